"""What a cluster or a node is doing now: charts that move every second, and the operations under way, which can be killed."""

from collections.abc import Callable, Mapping, Sequence

from nicegui import ui
from wap.control.v1.cluster_pb2 import Cluster, GetClusterRequest
from wap.control.v1.metric_pb2 import CurrentOperation, KillOperationRequest
from wap.control.v1.node_pb2 import GetNodeRequest
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.client import WapError
from console.frame import heading, loading
from console.pages.cluster import short_names
from console.pages.live_board import LiveBoard
from console.pages.topics import watch_current_operations
from console.parts.controls import Choice, Dialog, Option, button
from console.parts.failures import error_panel
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty
from console.parts.tabs import cluster_tabs, node_tabs
from console.parts.words import time_spent
from console.view import View

OF_CLUSTER = ("operations", "cpu", "queue-total", "read-latency", "write-latency", "sent")
OF_NODE = ("operations", "cpu-kinds", "queue", "latency", "disk-latency", "network")
COLUMNS = (
    Column("Operation", "named"),
    Column("Running", "num"),
    Column("Plan", "wide-only"),
    Column("Client", "wide-only"),
)
LEASTS = (Option("0", "All"), Option("1", "1 s and longer"), Option("10", "10 s and longer"))


async def build_cluster(view: View) -> None:
    """Fill the page about a cluster."""
    cluster_id = view.parameter("cluster_id")
    async with loading(view):
        cluster = (await view.api.clusters.GetCluster(GetClusterRequest(cluster_id=cluster_id))).cluster
    crumbs = (("Clusters", "/clusters"), (cluster.name, f"/clusters/{cluster.id}"))
    _title(f"Real-time view of {cluster.name}", crumbs)
    cluster_tabs(cluster.id, "Real-time")
    about = {"cluster": cluster.id, "prefix": f"{cluster.name}-"}
    members = short_names(cluster)
    LiveBoard(view, "Last 10 minutes", OF_CLUSTER, about=about, members=members, live="only")
    if members:
        CurrentOperations(view, members, cluster.project_id, _primary(cluster))


async def build_node(view: View) -> None:
    """Fill the page about a node."""
    node_id = view.parameter("node_id")
    async with loading(view):
        node = (await view.api.nodes.GetNode(GetNodeRequest(node_id=node_id))).node
    _title(f"Real-time view of {node.name}", (("Nodes", "/nodes"), (node.name, f"/nodes/{node.id}")))
    node_tabs(node.id, "Real-time")
    about = {"node": node.id, "cluster": node.cluster_id}
    LiveBoard(view, "Last 10 minutes", OF_NODE, about=about, members={node.id: node.name}, live="only")
    CurrentOperations(view, {node.id: node.name}, node.project_id, node.id)


class CurrentOperations:
    """The operations under way on one of several nodes, read every two seconds."""

    def __init__(self, view: View, members: Mapping[str, str], project_id: str, first: str) -> None:
        self._view = view
        self._may_kill = view.session.role_in(project_id) >= ACCESS_ROLE_OPERATOR
        self._operations: dict[str, CurrentOperation] = {}
        self._killing = 0
        self._stop: Callable[[], None] = lambda: None
        with box("section-head"):
            show(h("h2", "Current operations"))
            show(h("span", "mongod's own operations cannot be killed", class_="small muted"))
        with box("tools choices"):
            options = [Option(node, name) for node, name in members.items()]
            self._node = Choice(view, "Member", options, first, self._look, look="segments", mark="member")
            self._least = Choice(view, "Running for", LEASTS, "0", self._look, look="segments", mark="least")
        self._trouble = show(Html(""))
        words = "mongod has nothing to do that is as long as this."
        self._table = Table(
            COLUMNS, "current-operations", "Current operations", empty("clock", "No operations", words), self._buttons
        )
        self._dialog = Dialog("Kill this operation?", mark="kill-dialog")
        with self._dialog.body:
            self._which = show(Html(""))
        with self._dialog.foot:
            button(view, "Let it run", self._dialog.close)
            button(view, "Kill operation", self._kill, kind="danger-solid", icon="stop", mark="confirm-kill")
        self._look()

    def _look(self) -> None:
        self._stop()
        node, least = self._node.chosen, float(self._least.chosen)
        api = self._view.api
        self._stop = self._view.follow(
            ("current operations", node, least),
            lambda: watch_current_operations(api, node, least),
            self._show,
            self._complain,
        )

    def _show(self, operations: Sequence[CurrentOperation]) -> None:
        change(self._trouble, Html(""))
        self._operations = {str(one.id): one for one in operations}
        self._table.update({str(one.id): _row(one) for one in operations})

    def _complain(self, error: WapError) -> None:
        self._show([])
        change(self._trouble, error_panel(error, "The operations of this member cannot be read"))

    def _buttons(self, key: str) -> None:
        if self._may_kill and self._operations[key].killable:
            about = f"Kill operation {key}"
            button(
                self._view,
                "Kill",
                lambda: self._ask(key),
                kind="danger small",
                icon="stop",
                mark=f"kill:{key}",
                about=about,
            )

    def _ask(self, key: str) -> None:
        operation = self._operations.get(key)
        if operation is None:
            self._view.say("The operation has ended by itself")
            return
        self._killing = operation.id
        words = "It ends within moments, and its client gets an error. What it has written stays."
        shape = h("pre", operation.command_shape)
        change(
            self._which,
            joined([h("p", h("b", _name(operation)), f", running for {_running(operation)}."), shape, h("p", words)]),
        )
        self._dialog.open()

    async def _kill(self) -> None:
        request = KillOperationRequest(node_id=self._node.chosen, current_operation_id=self._killing)
        with self._view.errors_to(self._dialog.complain):
            await self._view.api.metrics.KillOperation(request)
        self._dialog.close()
        self._view.say("mongod was told to end the operation")


def _title(title: str, crumbs: tuple[tuple[str, str], ...]) -> None:
    ui.page_title(f"{title} · WAP")
    heading("Real-time", "Every second while this page is open; what is stored stays at 10 s", crumbs=crumbs)


def _primary(cluster: Cluster) -> str:
    leading = [member.node_id for member in cluster.members if member.state == "PRIMARY"]
    return leading[0] if leading else cluster.members[0].node_id


def _row(operation: CurrentOperation) -> Sequence[Child]:
    waiting = h("span", "Waits for a lock", class_="pill caution") if operation.waiting_for_lock else None
    name = h("div", h("span", _name(operation), class_="row-name"), waiting, class_="step-title")
    scan = operation.plan_summary == "COLLSCAN"
    return (
        joined([name, h("div", operation.command_shape, class_="mono muted shape")]),
        _running(operation),
        h("span", operation.plan_summary, class_="mono caution-text" if scan else "mono"),
        joined(
            [h("div", operation.client or operation.description), h("div", operation.application, class_="small muted")]
        ),
    )


def _name(operation: CurrentOperation) -> str:
    return f"{operation.operation} on {operation.namespace}" if operation.namespace else operation.operation


def _running(operation: CurrentOperation) -> str:
    return time_spent(operation.running)
