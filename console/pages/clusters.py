"""The list of clusters: what there is, how it is, and what it costs, live."""

from collections.abc import Mapping, Sequence

from wap.control.v1.cluster_pb2 import (
    CLUSTER_HEALTH_HEALTHY,
    CLUSTER_HEALTH_UNKNOWN,
    CLUSTER_STATE_AVAILABLE,
    CLUSTER_STATE_FAILED,
    Cluster,
    ClusterHealth,
    ClusterState,
    Member,
)
from wap.type.v1.cluster_pb2 import TOPOLOGY_SHARDED

from console.frame import heading
from console.pages.topics import Spark, watch_clusters, watch_sparks
from console.parts.controls import link_button
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.sparkline import NOT_KNOWN, newest, sparkline
from console.parts.tables import Column, Table, empty, filter_field
from console.parts.words import meter, money, per_cent, pill, share, size, word
from console.view import View

COLUMNS = (
    Column("Cluster", "named"),
    Column("Status"),
    Column("Members", "num"),
    Column("Region", "wide-only nowrap"),
    Column("Instance", "wide-only"),
    Column("CPU, last hour", "wide-only"),
    Column("Ops / s", "num wide-only"),
    Column("Disk"),
    Column("Per month", "num"),
)


async def build(view: View) -> None:
    """Fill the page."""
    with box("head-row"):
        heading("Clusters", "MongoDB deployments that this control plane runs")
        show(link_button("Create cluster", "/clusters/new", kind="primary", icon="plus"))
    figures = show(_figures([]), classes="figures")
    with box("tools"):
        show(filter_field("clusters", "Filter by name, project, version, status"))
    table = Table(COLUMNS, "clusters", "Clusters", _empty())
    await view.connected()

    known: list[Cluster] = []
    sparks: dict[str, Spark] = {}

    def update(clusters: Sequence[Cluster]) -> None:
        known[:] = clusters
        change(figures, _figures(clusters))
        table.update({one.id: _row(one, sparks.get(one.id)) for one in clusters})

    def draw(found: Mapping[str, Spark]) -> None:
        sparks.update(found)
        if known:
            update(list(known))

    view.follow("clusters", lambda: watch_clusters(view.api), update)
    view.follow("sparks", lambda: watch_sparks(view.api), draw, lambda _: None)


def status_of(cluster: Cluster) -> str:
    """One word for the list: what happens to a cluster while something happens, else how it is."""
    if cluster.state == CLUSTER_STATE_AVAILABLE and cluster.health:
        return word(ClusterHealth.DESCRIPTOR, cluster.health)
    return word(ClusterState.DESCRIPTOR, cluster.state)


def kind_of(cluster: Cluster) -> str:
    """ "Replica set" or "Sharded cluster"."""
    return "Sharded cluster" if cluster.spec.topology == TOPOLOGY_SHARDED else "Replica set"


def _row(cluster: Cluster, spark: Spark | None) -> Sequence[Child]:
    size_of = cluster.spec.replica_sets[0].size if cluster.spec.replica_sets else None
    wanted = sum(one.members for one in cluster.spec.replica_sets)
    healthy = sum(member.healthy for member in cluster.members)
    facts = " · ".join((cluster.project_name, kind_of(cluster), f"MongoDB {cluster.spec.mongodb_version}"))
    name = h("a", cluster.name, href=f"/clusters/{cluster.id}", class_="row-link")
    why = cluster.health_reason if cluster.health not in (CLUSTER_HEALTH_HEALTHY, CLUSTER_HEALTH_UNKNOWN) else ""
    return (
        joined([name, h("div", facts, class_="small muted")]),
        joined([pill(status_of(cluster)), h("div", why, class_="small muted") if why else None]),
        f"{healthy} / {wanted}",
        cluster.spec.region,
        size_of.instance_type if size_of else "",
        sparkline(spark.cpu, "CPU of the busiest member, last hour", percent=True) if spark else NOT_KNOWN,
        newest(spark.operations) if spark else NOT_KNOWN,
        _disk(cluster.members, size_of.disk_gib if size_of else 0),
        money(cluster.usd_per_month),
    )


def _disk(members: Sequence[Member], wanted_gib: int) -> Html:
    """The fullest member's disk: it is the first that stops."""
    shares = [part for one in members if (part := share(one.disk_used_bytes, one.disk_total_bytes)) is not None]
    if not shares:
        return h("span", f"{wanted_gib} GiB" if wanted_gib else "\N{EN DASH}", class_="muted")
    fullest = max(shares)
    label = f"Disk of the fullest member: {per_cent(fullest)}"
    return h("span", h("span", per_cent(fullest), class_="num"), meter(fullest, label), class_="gauge", title=label)


def _figures(clusters: Sequence[Cluster]) -> Html:
    healthy = sum(one.state == CLUSTER_STATE_AVAILABLE and one.health == CLUSTER_HEALTH_HEALTHY for one in clusters)
    attention = sum(_needs_attention(one) for one in clusters)
    online = sum(member.agent_connected for one in clusters for member in one.members)
    used = sum(member.disk_used_bytes for one in clusters for member in one.members)
    cost = sum(one.usd_per_month for one in clusters)
    return joined(
        [
            figure("Healthy", f"{healthy} / {len(clusters)}"),
            figure("Need attention", str(attention), "bad" if attention else ""),
            figure("Agents online", str(online)),
            figure("Storage used", size(used) if used else "0"),
            figure("Estimated per month", money(cost)),
        ]
    )


def figure(label: str, value: str | Html, tone: str = "") -> Html:
    """One number with its name."""
    return h("div", h("span", label, class_="small muted"), h("b", value, class_=tone or None), class_="figure")


def _needs_attention(cluster: Cluster) -> bool:
    if cluster.state == CLUSTER_STATE_FAILED:
        return True
    return cluster.state == CLUSTER_STATE_AVAILABLE and cluster.health != CLUSTER_HEALTH_HEALTHY


def _empty() -> Html:
    words = "A replica set takes a few minutes: WAP launches the machines, starts MongoDB and hands you a connection string."
    return empty("clusters", "No clusters yet", words, link_button("Create cluster", "/clusters/new", kind="primary"))
