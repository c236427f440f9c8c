"""One cluster, live: its members, how to connect, what happened to it, what it costs, and how to delete it."""

from collections.abc import Sequence

from nicegui import ui
from wap.control.v1.cluster_pb2 import (
    CLUSTER_HEALTH_DEGRADED,
    CLUSTER_HEALTH_UNAVAILABLE,
    CLUSTER_STATE_AVAILABLE,
    CLUSTER_STATE_DELETED,
    CLUSTER_STATE_DELETING,
    Cluster,
    DeleteClusterRequest,
    GetClusterRequest,
)
from wap.control.v1.node_pb2 import Node
from wap.control.v1.operation_pb2 import OPERATION_STATE_FAILED, Operation, Plan
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.design import ICONS
from console.frame import heading, loading
from console.pages.clusters import kind_of, status_of
from console.pages.live_board import LiveBoard
from console.pages.operation import title_of
from console.pages.operations import operation_table
from console.pages.topics import watch_clusters, watch_nodes, watch_operations
from console.parts.connection import ConnectionPanel
from console.parts.controls import Dialog, button, field
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.tabs import cluster_tabs
from console.parts.topology import topology, zones_of
from console.parts.words import at, count, money, pill, tag, zone_list
from console.view import View

OVERVIEW = ("operations", "cpu", "connections", "lag")


async def build(view: View) -> None:
    """Fill the page."""
    cluster_id = view.parameter("cluster_id")
    async with loading(view):
        reply = await view.api.clusters.GetCluster(GetClusterRequest(cluster_id=cluster_id))
    page = _ClusterPage(view, reply.cluster)
    view.follow(("cluster", cluster_id), lambda: watch_clusters(view.api, cluster_id), page.see_clusters)
    view.follow(("nodes", cluster_id), lambda: watch_nodes(view.api, cluster_id), page.see_nodes)
    view.follow(("operations", cluster_id), lambda: watch_operations(view.api, cluster_id), page.see_operations)


def short_names(cluster: Cluster) -> dict[str, str]:
    """Node -> its member's name without the cluster's: what lines of a chart are called."""
    return {member.node_id: member.name.removeprefix(f"{cluster.name}-") for member in cluster.members}


class _ClusterPage:
    def __init__(self, view: View, cluster: Cluster) -> None:
        self._view = view
        self._cluster = cluster
        self._nodes: dict[str, Node] = {}
        self._operations: Sequence[Operation] = ()
        ui.page_title(f"{cluster.name} · WAP")
        self._head()
        cluster_tabs(cluster.id, "Overview")
        self._banner = show(Html(""))
        with box("section-head"):
            show(h("h2", "Members"))
            self._spread = show(Html(""), classes="small muted")
        self._members = show(Html(""), classes="topology")
        about = {"cluster": cluster.id, "prefix": f"{cluster.name}-"}
        self._board = LiveBoard(view, "Metrics", OVERVIEW, about=about, members=short_names(cluster), live="offered")
        with box("columns"):
            with box("stack main-column"):
                self._connection = ConnectionPanel(view, cluster)
                show(h("h2", "Operations"), classes="section-head")
                self._table = operation_table("No operations yet")
            with box("stack main-column"):
                self._configuration = show(Html(""), "aside", "panel summary").props('aria-label="Configuration"')
        self._dialog, self._typed, self._plan = self._delete_question()
        self._paint()

    def see_clusters(self, clusters: Sequence[Cluster]) -> None:
        """A new state of the cluster."""
        for cluster in clusters:
            self._cluster = cluster
        self._paint()

    def see_nodes(self, nodes: Sequence[Node]) -> None:
        """What the machines report."""
        self._nodes = {node.id: node for node in nodes}
        self._paint()

    def see_operations(self, operations: Sequence[Operation]) -> None:
        """What was done to the cluster, newest first."""
        self._operations = operations
        self._table(operations)
        self._paint()

    def _head(self) -> None:
        with box("head-row"):
            with box("stack"):
                heading(self._cluster.name, crumbs=(("Clusters", "/clusters"),))
                self._facts = show(Html(""), classes="facts-row")
            with box("buttons"):
                self._delete = button(
                    self._view, "Delete", self._ask_delete, kind="danger", icon="trash", mark="delete"
                )

    def _paint(self) -> None:
        cluster = self._cluster
        change(self._facts, _facts(cluster))
        change(self._banner, _banner(cluster, self._operations))
        change(self._members, topology(cluster, self._nodes))
        spread = f"{count(len(cluster.members), 'member')} in {count(zones_of(cluster.members), 'zone')}"
        change(self._spread, h("span", spread if cluster.members else ""))
        change(self._configuration, _configuration(cluster))
        self._connection.update(cluster)
        self._board.name_members(short_names(cluster))
        may_act = self._view.session.role_in(cluster.project_id) >= ACCESS_ROLE_OPERATOR
        gone = cluster.state in (CLUSTER_STATE_DELETING, CLUSTER_STATE_DELETED)
        self._delete.set_visibility(may_act and not gone)

    async def _ask_delete(self) -> None:
        request = DeleteClusterRequest(cluster_id=self._cluster.id, validate_only=True)
        reply = await self._view.api.clusters.DeleteCluster(request)
        self._typed.value = ""
        change(self._plan, _loss(self._cluster, reply.plan))
        self._dialog.open()

    async def _do_delete(self) -> None:
        request = DeleteClusterRequest(cluster_id=self._cluster.id, confirm_name=(self._typed.value or "").strip())
        with self._view.errors_to(self._dialog.complain):
            reply = await self._view.api.clusters.DeleteCluster(request)
        self._dialog.close()
        self._view.go(f"/operations/{reply.operation.id}")

    def _delete_question(self) -> tuple[Dialog, ui.input, ui.html]:
        dialog = Dialog(f"Delete {self._cluster.name}?", mark="delete-dialog")
        with dialog.body:
            plan = show(Html(""))
            typed = field(f"Type {self._cluster.name} to confirm", mark="confirm-name")
        with dialog.foot:
            button(self._view, "Keep the cluster", dialog.close, mark="keep")
            button(self._view, "Delete cluster", self._do_delete, kind="danger-solid", mark="confirm-delete")
        return dialog, typed, plan


def _facts(cluster: Cluster) -> Html:
    size = cluster.spec.replica_sets[0].size.instance_type if cluster.spec.replica_sets else ""
    every = (
        kind_of(cluster),
        f"MongoDB {cluster.spec.mongodb_version}",
        cluster.spec.region,
        size,
        cluster.project_name,
    )
    protected = tag("Protected from deletion") if cluster.spec.deletion_protection else None
    return joined([pill(status_of(cluster)), joined(tag(text) for text in every if text), protected])


def _banner(cluster: Cluster, operations: Sequence[Operation]) -> Html:
    holder = next((one for one in operations if one.id == cluster.active_operation_id), None)
    if holder is not None:
        return _operation_banner(holder)
    if cluster.state == CLUSTER_STATE_DELETED:
        return h(
            "div",
            ICONS["info"],
            h("div", "This cluster was deleted ", at(cluster.delete_time), "."),
            class_="notice caution",
        )
    troubled = cluster.health in (CLUSTER_HEALTH_DEGRADED, CLUSTER_HEALTH_UNAVAILABLE)
    if cluster.state == CLUSTER_STATE_AVAILABLE and troubled and cluster.health_reason:
        look = "notice bad" if cluster.health == CLUSTER_HEALTH_UNAVAILABLE else "notice caution"
        return h("div", ICONS["alert"], h("div", cluster.health_reason), class_=look, role="alert")
    return Html("")


def _operation_banner(holder: Operation) -> Html:
    link = h("a", "View operation", href=f"/operations/{holder.id}", class_="end")
    if holder.state == OPERATION_STATE_FAILED:
        text = f"{title_of(holder)} failed: {holder.failure.message or holder.summary}"
        return h("div", ICONS["alert"], h("div", text), link, class_="notice bad", role="alert")
    step = f"step {min(holder.steps_done + 1, holder.steps_total)} of {holder.steps_total}"
    text = f"{title_of(holder)} is running: {step}" + (f", {holder.summary}" if holder.summary else "")
    return h(
        "div",
        h("span", class_="spinner", aria_hidden="true"),
        h("div", text),
        link,
        class_="notice busy",
        role="status",
    )


def _configuration(cluster: Cluster) -> Html:
    spec = cluster.spec
    rows: list[tuple[str, str | Html]] = [
        ("Project", cluster.project_name),
        ("MongoDB", spec.mongodb_version),
        ("Region", spec.region),
        ("Zones", zone_list(spec.zones)),
    ]
    for replica_set in spec.replica_sets:
        size = replica_set.size
        rows += [
            ("Replica set", f"{replica_set.name}, {count(replica_set.members, 'member')}"),
            ("Instance", size.instance_type),
            ("Disk", f"{size.disk_gib} GiB gp3 each"),
        ]
    rows += [
        ("Protection", "On" if spec.deletion_protection else "Off"),
        ("Created", at(cluster.create_time)),
        ("ID", h("span", cluster.id, class_="mono")),
    ]
    facts = h("dl", joined(joined([h("dt", label), h("dd", value)]) for label, value in rows), class_="facts")
    total = h("div", h("span", "Per month", class_="muted"), h("b", money(cluster.usd_per_month)), class_="total")
    return joined([h("h2", "Configuration"), facts, total])


def _loss(cluster: Cluster, plan: Plan) -> Html:
    """What a delete takes away, and what it no longer costs."""
    risks = sorted({step.risk for step in plan.steps if step.risk})
    words = (
        f"All data of {cluster.name} is deleted with its {count(len(cluster.members), 'member')}, volumes and network. "
        "This cannot be undone or cancelled."
    )
    warning = h(
        "div", ICONS["alert"], h("div", h("p", words), joined(h("p", risk) for risk in risks)), class_="notice bad"
    )
    saved = h(
        "p",
        f"{count(len(plan.steps), 'step')}. Ends a cost of about ",
        h("b", money(cluster.usd_per_month)),
        " per month.",
    )
    return h("div", warning, saved, class_="stack", style="gap:12px")
