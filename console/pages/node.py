"""One node: its machine and agent, everything measured on it, and how large its collections are."""

from collections.abc import Sequence

from nicegui import ui
from wap.control.v1.metric_pb2 import QueryMetricsRequest, Series
from wap.control.v1.node_pb2 import AgentState, GetNodeRequest, Node

from console.client.monitoring import query_request
from console.frame import heading, loading
from console.live import polled
from console.pages.clusters import figure
from console.pages.live_board import LiveBoard
from console.pages.topics import watch_nodes
from console.parts.charts import ChartBoard
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty
from console.parts.tabs import node_tabs
from console.parts.words import at, grouped, per_cent, pill, share, since, size, tag, word
from console.view import View

FIRST = ("operations", "cpu-kinds", "memory", "disk-latency")
BOARDS = (
    ("mongod", ("connections", "latency", "queue", "tickets", "cache-kinds", "page-faults", "targeting", "scans")),
    ("Replication", ("lag", "oplog")),
    ("Machine", ("disk-used", "iops", "disk-queue", "network", "swap", "descriptors")),
    ("Agent", ("agent-cpu", "agent-memory", "agent-buffer")),
)
SIZES = ("collection.documents", "collection.data_bytes", "collection.storage_bytes", "collection.index_bytes")
COLUMNS = (
    Column("Collection", "named"),
    Column("Documents", "num"),
    Column("Data", "num"),
    Column("On disk", "num"),
    Column("Indexes", "num"),
)
SIZES_SECONDS = 60.0
SIZES_BACK = 1800.0
"""Sizes are measured in turn, so that the newest of a collection may be some minutes old."""


async def build(view: View) -> None:
    """Fill the page."""
    node_id = view.parameter("node_id")
    async with loading(view):
        node = (await view.api.nodes.GetNode(GetNodeRequest(node_id=node_id))).node
    ui.page_title(f"{node.name} · WAP")
    page = _NodePage(view, node)
    view.follow(("nodes", node.cluster_id), lambda: watch_nodes(view.api, node.cluster_id), page.see)
    view.follow(("sizes", node.id), lambda: polled(page.read_sizes, SIZES_SECONDS), page.see_sizes)


class _NodePage:
    def __init__(self, view: View, node: Node) -> None:
        self._view = view
        self._id = node.id
        with box("stack"):
            heading(node.name, crumbs=(("Nodes", "/nodes"),))
            self._facts = show(Html(""), classes="facts-row")
        node_tabs(node.id, "Metrics")
        self._figures = show(Html(""), classes="figures")
        about = {"node": node.id, "cluster": node.cluster_id}
        LiveBoard(view, "Metrics", FIRST, about=about, members={node.id: node.name}, live="offered")
        for title, keys in BOARDS:
            ChartBoard(view, title, keys, about=about)
        with box("section-head"):
            show(h("h2", "Collections"))
            show(h("span", "Sizes are taken now and then, within a bounded share of one core", class_="small muted"))
        words = "The agent looks at collections in turn; the first figures take a minute or two."
        self._table = Table(COLUMNS, "collections", "Collections", empty("nodes", "No sizes yet", words))
        self.see([node])

    def see(self, nodes: Sequence[Node]) -> None:
        """A new state of the node."""
        for node in nodes:
            if node.id == self._id:
                change(self._facts, _facts(node))
                change(self._figures, _figures(node))

    async def read_sizes(self) -> list[Series]:
        """The newest sizes."""
        request: QueryMetricsRequest = query_request(
            SIZES, node_id=self._id, last_seconds=SIZES_BACK, step_seconds=SIZES_BACK
        )
        return list((await self._view.api.metrics.QueryMetrics(request)).series)

    def see_sizes(self, series: Sequence[Series]) -> None:
        """New sizes, the largest collection first."""
        by_name: dict[str, dict[str, float]] = {}
        for one in series:
            values = [point.average for point in one.points if point.HasField("average")]
            if values:
                by_name.setdefault(one.object, {})[one.metric] = values[-1]
        largest = sorted(by_name.items(), key=lambda item: -item[1].get("collection.storage_bytes", 0))
        self._table.update({name: _row(name, sizes) for name, sizes in largest})


def _facts(node: Node) -> Html:
    cluster = h("a", node.cluster_name, href=f"/clusters/{node.cluster_id}", class_="tag")
    every = (node.member_state.lower(), node.zone, node.instance_type, node.private_ip, node.instance_id)
    state = pill(word(AgentState.DESCRIPTOR, node.agent_state))
    return joined([state, cluster, joined(tag(text) for text in every if text)])


def _figures(node: Node) -> Html:
    seen = bool(node.last_seen_time.seconds)
    return joined(
        [
            figure("Last seen", since(node.last_seen_time)),
            figure("mongod", node.mongod_state or "\N{EN DASH}"),
            figure("CPU", per_cent(node.cpu_percent) if seen else "\N{EN DASH}"),
            figure("Memory", per_cent(share(node.memory_used_bytes, node.memory_total_bytes))),
            figure("Disk", per_cent(share(node.disk_used_bytes, node.disk_total_bytes))),
            figure("Certificate until", at(node.certificate_expire_time)),
        ]
    )


def _row(name: str, sizes: dict[str, float]) -> Sequence[Child]:
    documents, *rest = (sizes.get(metric) for metric in SIZES)
    return (
        h("span", name, class_="row-name"),
        "\N{EN DASH}" if documents is None else grouped(documents),
        *("\N{EN DASH}" if value is None else size(value) for value in rest),
    )
