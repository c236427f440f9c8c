"""Logs of mongods and agents: search by words, place, kind and time, page by page; or follow them as they come."""

import time
from collections import deque
from collections.abc import Callable

from nicegui import ui
from wap.control.v1.log_pb2 import LogFilter, SearchLogsResponse

from console.client.monitoring import log_filter, search_request
from console.pages.scope import Scope, scope_of
from console.pages.topics import TAIL_LINES, Tail, watch_logs
from console.parts.controls import Choice, Option, button, field, select
from console.parts.log_lines import log_rows
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.tables import empty, skeleton
from console.parts.words import count
from console.view import View

PAGE = 100
SPANS = (Option("900", "15 min"), Option("3600", "1 h"), Option("86400", "24 h"), Option("604800", "7 d"))
WORST = (Option("", "All"), Option("W", "Warnings and worse"), Option("E", "Errors and worse"))
COMPONENTS = (
    "ACCESS", "ASSERT", "COMMAND", "CONTROL", "ELECTION", "FTDC", "INDEX", "INITSYNC", "JOURNAL", "NETWORK", "QUERY",
    "RECOVERY", "REPL", "REPL_HB", "ROLLBACK", "SHARDING", "STORAGE", "TXN", "WRITE", "WT", "agent",
)  # fmt: skip
ALL = ""


async def build(view: View) -> None:
    """Fill the page."""
    scope = await scope_of(view, "Logs", "mongod and agents of every node; literals in queries are redacted")
    page = _LogsPage(view, scope)
    await page.search()


class _LogsPage:
    def __init__(self, view: View, scope: Scope) -> None:
        self._view = view
        self._scope = scope
        self._asked: tuple[LogFilter, float, float] = (LogFilter(), 0.0, 0.0)
        self._next = ""
        self._shown = 0
        self._stop: Callable[[], None] | None = None
        self._chunks: deque[tuple[ui.html, int]] = deque()
        self._told_of = 0
        with box("panel filters"):
            with box("tools wide"):
                self._text = field("Words", mark="text", value=view.query("text"))
                self._text.props["placeholder"] = "Part of the text or its attributes"
                self._text.on("keydown.enter", view.authorised(self.search))
                self._cluster = select(
                    view, "Cluster", scope.cluster_names("All clusters"), scope.cluster_id, self._narrow, mark="cluster"
                )
                self._node = select(
                    view, "Node", scope.node_names("All nodes"), scope.node_id, self._resume, mark="node"
                )
                components = {ALL: "All components"} | {name: name for name in COMPONENTS}
                self._component = select(
                    view, "Component", components, view.query("component"), self._resume, mark="component"
                )
                self._id = field("Message id", mark="message-id", value=view.query("id"))
                self._id.props["placeholder"] = "51803"
                self._id.on("keydown.enter", view.authorised(self.search))
            with box("tools choices"):
                worst = view.query("severity") if view.query("severity") in ("W", "E") else ""
                self._worst = Choice(view, "Severity", WORST, worst, self._again, look="segments", mark="severity")
                self._span = Choice(view, "Time", SPANS, "3600", self._again, look="segments", mark="span")
                with box("buttons end"):
                    button(view, "Search", self.search, kind="primary", icon="search", mark="search")
                    self._follow = button(view, "Follow", self._toggle, icon="forward", mark="follow")
        self._told = show(Html(""), classes="small muted").props('role="status"')
        with box("panel log") as self._log:
            self._rows = show(skeleton(6))
        with box("more"):
            self._more = button(view, "Show older", self._older, mark="older")
        self._more.set_visibility(False)

    async def search(self) -> None:
        """Read the newest lines that match."""
        self._halt()
        with self._view.errors_to(self._complain, "The logs cannot be searched"):
            self._asked = (self._filter(), float(self._span.chosen), time.time())
            reply = await self._page("")
        self._clear()
        self._add(reply)
        self._tell()

    def _again(self) -> None:
        self._view.later(self._resume)

    async def _resume(self) -> None:
        if self._stop is None:
            await self.search()
        else:
            self._halt()
            self._start()

    async def _narrow(self) -> None:
        """Offer the nodes of the chosen cluster only."""
        mine = self._scope.node_names("All nodes", self._cluster.value or ALL)
        self._node.set_options(mine, value=self._node.value if self._node.value in mine else ALL)
        await self._resume()

    async def _older(self) -> None:
        with self._view.errors_to(self._complain, "The logs cannot be searched"):
            reply = await self._page(self._next)
        self._add(reply)
        self._tell()

    async def _page(self, token: str) -> SearchLogsResponse:
        wanted, span, end = self._asked
        request = search_request(wanted, last_seconds=span, end=end, page_size=PAGE, page_token=token)
        return await self._view.api.logs.SearchLogs(request)

    def _filter(self) -> LogFilter:
        number = (self._id.value or "").strip()
        return log_filter(
            cluster_id=self._cluster.value or "",
            node_id=self._node.value or "",
            text=(self._text.value or "").strip(),
            component=self._component.value or "",
            minimum_severity=self._worst.chosen,
            message_id=int(number) if number.isdigit() else 0,
        )

    def _toggle(self) -> None:
        if self._stop is None:
            self._start()
        else:
            self._halt()

    def _start(self) -> None:
        wanted, api = self._filter(), self._view.api
        topic = ("tail", wanted.SerializeToString(deterministic=True))
        self._clear()
        self._more.set_visibility(False)
        self._stop = self._view.follow(topic, lambda: watch_logs(api, wanted), self._show_tail)
        self._follow.props["aria-pressed"] = "true"
        self._follow.classes(add="pressed")

    def _halt(self) -> None:
        if self._stop is not None:
            self._stop()
        self._stop = None
        self._follow.props["aria-pressed"] = "false"
        self._follow.classes(remove="pressed")

    def _show_tail(self, tail: Tail) -> None:
        """Only what is new is sent, so that lines that were opened stay open."""
        fresh = tail.lines[: max(0, tail.total - self._told_of)]
        if tail.total < self._told_of:  # the tail began anew
            self._clear()
            fresh = tail.lines
        self._told_of = tail.total
        if not tail.lines:
            waiting = empty("clock", "Waiting for lines", "What is logged from now on appears here, newest first.")
            change(self._rows, h("div", waiting, class_="nothing"))
        elif fresh:
            change(self._rows, Html(""))
            with self._log:
                chunk = show(log_rows(fresh))
            chunk.move(target_index=0)
            self._chunks.append((chunk, len(fresh)))
        while sum(lines for _, lines in self._chunks) > TAIL_LINES and len(self._chunks) > 1:
            self._chunks.popleft()[0].delete()
        left_out = f", {tail.skipped:,} left out because they came too fast" if tail.skipped else ""
        dot = h("i", class_="dot good", aria_hidden="true")
        change(self._told, joined([dot, h("span", f" Following: {count(tail.total, 'line')} so far{left_out}")]))

    def _clear(self) -> None:
        self._shown = self._told_of = 0
        self._chunks.clear()
        self._log.clear()
        with self._log:
            self._rows = show(Html(""))

    def _add(self, reply: SearchLogsResponse) -> None:
        self._next = reply.next_page_token
        self._shown += len(reply.lines)
        with self._log:
            if reply.lines:
                show(log_rows(reply.lines))
            elif not self._shown:
                nothing = empty("logs", "No lines", "Nothing matches in this time. Widen the time or the filters.")
                show(nothing, classes="nothing")
        self._more.set_visibility(bool(self._next))

    def _tell(self) -> None:
        more = "the newest of more" if self._next else "all that match"
        change(self._told, h("span", f"{count(self._shown, 'line')}, {more}" if self._shown else ""))

    def _complain(self, panel: Html) -> None:
        self._clear()
        change(self._rows, panel)
