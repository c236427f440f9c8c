"""Slow queries by shape: what costs the most time, and where an index would help, with the reason."""

import json
from collections.abc import Sequence

from wap.control.v1.log_pb2 import ListSlowQueriesRequest, SlowQueryShape

from console.client.monitoring import query_times
from console.design import ICONS
from console.pages.scope import Scope, scope_of
from console.parts.controls import Choice, Option, button, copyable, field, link_button, select
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.tables import empty, skeleton
from console.parts.words import count, grouped, since, time_spent
from console.view import View

SPANS = (Option("3600", "1 h"), Option("21600", "6 h"), Option("86400", "24 h"), Option("604800", "7 d"))
MANY_EXAMINED = 100.0
"""Documents examined for each one returned from which on the figure stands out."""


async def build(view: View) -> None:
    """Fill the page."""
    scope = await scope_of(view, "Slow queries", "Grouped by shape; queries that differ in their values only are one")
    if not scope.clusters:
        words = "Slow queries of a cluster appear here once it runs."
        create = link_button("Create cluster", "/clusters/new", kind="primary")
        show(h("div", empty("slow", "No clusters yet", words, create), class_="panel nothing"))
        return
    page = _SlowQueriesPage(view, scope)
    await page.read()


class _SlowQueriesPage:
    def __init__(self, view: View, scope: Scope) -> None:
        self._view = view
        self._scope = scope
        node = scope.nodes.get(scope.node_id)
        cluster = node.cluster_id if node is not None else scope.cluster_id or next(iter(scope.clusters))
        with box("panel filters"), box("tools choices"):
            self._cluster = select(view, "Cluster", scope.cluster_names(), cluster, self._narrow, mark="cluster")
            names = scope.node_names("All members", cluster)
            self._node = select(view, "Member", names, scope.node_id, self.read, mark="node")
            self._namespace = field("Namespace", mark="namespace", value=view.query("namespace"))
            self._namespace.props["placeholder"] = "database.collection"
            self._namespace.on("keydown.enter", view.authorised(self.read))
            self._span = Choice(view, "Time", SPANS, "86400", self._again, look="segments", mark="span")
            with box("buttons end"):
                button(view, "Refresh", self.read, icon="retry", mark="refresh")
        self._told = show(Html(""), classes="small muted").props('role="status"')
        self._shapes = show(h("div", skeleton(5), class_="panel"), classes="stack shapes")

    async def read(self) -> None:
        """Ask again."""
        with self._view.errors_to(self._complain, "The slow queries cannot be read"):
            reply = await self._view.api.logs.ListSlowQueries(self._request())
        partial = (
            " The time has more slow queries than were looked at: a shorter one tells more." if reply.partial else ""
        )
        total = sum(shape.count for shape in reply.shapes)
        words = f"{count(len(reply.shapes), 'shape')} of {grouped(total)} slow queries, the most costly first.{partial}"
        change(self._told, h("span", words if reply.shapes else ""))
        change(self._shapes, _cards(reply.shapes))

    def _request(self) -> ListSlowQueriesRequest:
        start, end = query_times(float(self._span.chosen))
        node = self._node.value or ""
        return ListSlowQueriesRequest(
            cluster_id="" if node else self._cluster.value or "",
            node_id=node,
            start_time=start,
            end_time=end,
            namespace=(self._namespace.value or "").strip(),
        )

    def _again(self) -> None:
        self._view.later(self.read)

    async def _narrow(self) -> None:
        names = self._scope.node_names("All members", self._cluster.value or "")
        self._node.set_options(names, value="")
        await self.read()

    def _complain(self, panel: Html) -> None:
        change(self._told, Html(""))
        change(self._shapes, panel)


def _cards(shapes: Sequence[SlowQueryShape]) -> Html:
    if not shapes:
        words = "No operation took longer than mongod's threshold (100 ms unless it was changed) in this time."
        return h("div", empty("check", "No slow queries", words), class_="panel nothing")
    return joined(_card(shape, f"index-{number}") for number, shape in enumerate(shapes))


def _card(shape: SlowQueryShape, place: str) -> Html:
    ratio = shape.docs_examined / shape.docs_returned if shape.docs_returned else float(shape.docs_examined)
    figures = joined(
        [
            _figure("Count", grouped(shape.count)),
            _figure("Median", time_spent(shape.p50)),
            _figure("95 %", time_spent(shape.p95)),
            _figure("In total", time_spent(shape.total)),
            _figure("Examined per returned", grouped(ratio), "bad" if ratio >= MANY_EXAMINED else ""),
            _figure("Collection scans", grouped(shape.collection_scans), "bad" if shape.collection_scans else ""),
        ]
    )
    sort = joined([h("span", "sort "), h("code", shape.sort_shape)]) if shape.sort_shape else None
    plan = joined([h("span", "plan "), h("code", shape.plan_summary)]) if shape.plan_summary else None
    under = h("div", *(h("span", part) for part in (sort, plan) if part), h("span", "last ", since(shape.last_time)))
    query = h(
        "div",
        h("div", h("h2", shape.namespace), h("span", shape.operation, class_="tag mono"), class_="step-title"),
        h("code", shape.predicate_shape or "{}", class_="shape"),
        h("div", under, class_="small muted spaced"),
        class_="stack",
    )
    advice = _advice(shape, place) if shape.HasField("advice") else None
    return h(
        "article",
        h("div", query, h("div", figures, class_="shape-figures"), class_="shape-head"),
        advice,
        class_="panel shape-card",
    )


def _figure(label: str, value: str, tone: str = "") -> Html:
    return h("div", h("span", label, class_="small muted"), h("b", value, class_=f"num {tone}".strip()))


def _advice(shape: SlowQueryShape, place: str) -> Html:
    database, _, collection = shape.namespace.partition(".")
    place_in = f"db.getSiblingDB({json.dumps(database)}).getCollection({json.dumps(collection)})"
    command = f"{place_in}.createIndex({shape.advice.keys})"
    words = h("div", h("b", "An index would help. "), h("span", shape.advice.reason))
    snippet = h(
        "div", h("code", command, id=place, class_="shape"), copyable("the command", place), class_="advice-command"
    )
    return h("div", ICONS["info"], h("div", words, snippet), class_="notice advice")
