"""A board of charts that is fed by a stream while it is live: nodes sample every second as long as somebody looks."""

from collections.abc import Callable, Mapping, Sequence

from console.pages.topics import Latest, watch_latest
from console.parts.charts import ChartBoard
from console.series import current
from console.view import View

STALE_SECONDS = 15.0
"""A value that is older is not shown as if it were the present one."""

APART_SECONDS = 0.9
"""Samples of several nodes that come in together make one point."""


class LiveBoard:
    """The charts with these keys, of a cluster or a node; `members` are the names of lines by node.

    `live` is "offered" beside the time ranges, or "only".
    """

    def __init__(
        self,
        view: View,
        heading: str,
        keys: Sequence[str],
        *,
        about: Mapping[str, str],
        members: Mapping[str, str],
        live: str,
    ) -> None:
        self._view = view
        self._about = about
        self._members = dict(members)
        self._stop: Callable[[], None] = lambda: None
        self._shown_at = 0.0
        self._board = ChartBoard(view, heading, keys, about=about, live=live, turned=self._turn)
        if live == "only":
            self._turn(True)

    def name_members(self, members: Mapping[str, str]) -> None:
        """The members are others now."""
        self._members = dict(members)

    def _turn(self, on: bool) -> None:
        self._stop()
        self._stop = lambda: None
        if not on:
            return
        node_id, metrics = self._about.get("node", ""), self._board.metrics
        cluster_id = "" if node_id else self._about.get("cluster", "")
        topic = ("latest", cluster_id, node_id, *metrics)
        api = self._view.api
        self._stop = self._view.follow(topic, lambda: watch_latest(api, cluster_id, node_id, metrics), self._push)

    def _push(self, latest: Latest) -> None:
        newest = max((at for at, _ in latest.values()), default=0.0)
        if newest - self._shown_at < APART_SECONDS:
            return
        self._shown_at = newest
        fresh = {key: value for key, (at, value) in latest.items() if newest - at < STALE_SECONDS}
        values = {chart.key: current(chart, self._members, fresh) for chart in self._board.charts}
        self._board.append(newest, values)
