"""The fleet at a glance: how its clusters are, what fires, and which nodes are the busiest, fullest and furthest behind."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wap.control.v1.alert_pb2 import ALERT_STATE_FIRING, Alert
from wap.control.v1.cluster_pb2 import CLUSTER_HEALTH_HEALTHY, CLUSTER_STATE_AVAILABLE, Cluster
from wap.control.v1.metric_pb2 import NodeSummary
from wap.control.v1.node_pb2 import AGENT_STATE_CONNECTED, Node

from console.client import AsyncClient
from console.client.monitoring import HOUR, summary_request
from console.design import ICONS
from console.frame import heading
from console.live import polled
from console.pages.alerts import severity_pill
from console.pages.clusters import figure, status_of
from console.pages.topics import Spark, watch_alerts, watch_clusters, watch_nodes, watch_sparks
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.sparkline import NOT_KNOWN, short, sparkline
from console.parts.tables import empty, skeleton
from console.parts.words import count, measured, pill, since, size
from console.view import View

TOP = 6
RANKS_SECONDS = 30.0
ALERTS_SHOWN = 6


@dataclass(frozen=True)
class Ranking:
    """One list of nodes: by which metric, over the last hour."""

    title: str
    note: str
    metric: str
    unit: str
    quantile: float
    full: float
    """What fills the bar; 0: the first of the list."""


RANKINGS = (
    Ranking("Busiest", "CPU, 95 % of the last hour below", "host.cpu.used_percent", "percent", 0.95, 100),
    Ranking("Fullest", "Disk space in use", "host.disk.used_percent", "percent", 1.0, 100),
    Ranking("Furthest behind", "Most replication lag, last hour", "replica_set.lag_seconds", "seconds", 1.0, 0),
    Ranking("Slowest disks", "Write latency, 95 % below", "host.disk.write_latency_milliseconds", "ms", 0.95, 0),
)

Ranks = Mapping[str, Sequence[NodeSummary]]


async def build(view: View) -> None:
    """Fill the page."""
    heading("Fleet", "Every cluster and node that you can see")
    page = _FleetPage()
    await view.connected()
    view.follow("clusters", lambda: watch_clusters(view.api), page.see_clusters)
    view.follow("nodes", lambda: watch_nodes(view.api), page.see_nodes)
    view.follow("alerts", lambda: watch_alerts(view.api), page.see_alerts)
    view.follow("sparks", lambda: watch_sparks(view.api), page.see_sparks, lambda _: None)
    view.follow("ranks", lambda: polled(lambda: _ranks(view.api), RANKS_SECONDS), page.see_ranks, lambda _: None)


async def _ranks(api: AsyncClient) -> Ranks:
    requests = [summary_request(one.metric, last_seconds=HOUR, quantile=one.quantile) for one in RANKINGS]
    replies = await asyncio.gather(*(api.metrics.SummariseMetrics(request) for request in requests))
    return {one.title: list(reply.summaries) for one, reply in zip(RANKINGS, replies, strict=True)}


class _FleetPage:
    def __init__(self) -> None:
        self._clusters: Sequence[Cluster] = ()
        self._nodes: Sequence[Node] = ()
        self._alerts: Mapping[str, Alert] = {}
        self._sparks: Mapping[str, Spark] = {}
        self._figures = show(Html(""), classes="figures")
        with box("columns even"):
            with box("panel"):
                show(joined([h("h2", "Clusters"), h("a", "All clusters", href="/clusters")]), classes="panel-head")
                self._list = show(skeleton(5))
            with box("panel"):
                show(joined([h("h2", "Open alerts"), h("a", "All alerts", href="/alerts")]), classes="panel-head")
                self._open = show(skeleton(3))
        show(h("h2", "Nodes that stand out"), classes="section-head")
        self._ranks = show(joined(h("div", skeleton(4), class_="panel") for _ in RANKINGS), classes="rankings")

    def see_clusters(self, clusters: Sequence[Cluster]) -> None:
        """All clusters."""
        self._clusters = clusters
        self._paint()

    def see_nodes(self, nodes: Sequence[Node]) -> None:
        """All nodes."""
        self._nodes = nodes
        change(self._figures, self._told())

    def see_alerts(self, alerts: Mapping[str, Alert]) -> None:
        """The open alerts."""
        self._alerts = alerts
        self._paint()

    def see_sparks(self, sparks: Mapping[str, Spark]) -> None:
        """How the clusters went."""
        self._sparks = sparks
        self._paint()

    def see_ranks(self, ranks: Ranks) -> None:
        """One number per node and list."""
        change(self._ranks, joined(_ranking(one, ranks[one.title]) for one in RANKINGS))

    def _paint(self) -> None:
        change(self._figures, self._told())
        change(self._list, self._rows())
        change(self._open, _alerts(list(self._alerts.values())))

    def _told(self) -> Html:
        available = [one for one in self._clusters if one.state == CLUSTER_STATE_AVAILABLE]
        healthy = sum(one.health == CLUSTER_HEALTH_HEALTHY for one in available)
        connected = sum(node.agent_state == AGENT_STATE_CONNECTED for node in self._nodes)
        firing = sum(one.state == ALERT_STATE_FIRING for one in self._alerts.values())
        newest = [known[-1] for one in self._sparks.values() if (known := [v for v in one.operations if v is not None])]
        used = sum(node.disk_used_bytes for node in self._nodes)
        return joined(
            [
                figure("Healthy clusters", f"{healthy} / {len(self._clusters)}"),
                figure("Nodes connected", f"{connected} / {len(self._nodes)}"),
                figure("Alerts firing", str(firing), "bad" if firing else ""),
                figure("Operations / s", short(sum(newest)) if newest else "\N{EN DASH}"),
                figure("Storage used", size(used) if used else "0"),
            ]
        )

    def _rows(self) -> Html:
        if not self._clusters:
            return h(
                "div", empty("clusters", "No clusters yet", "Create one on the page of clusters."), class_="nothing"
            )
        firing: dict[str, int] = {}
        for alert in self._alerts.values():
            if alert.state == ALERT_STATE_FIRING:
                firing[alert.cluster_id] = firing.get(alert.cluster_id, 0) + 1
        # Those that need somebody come first.
        urgent = sorted(
            self._clusters, key=lambda one: (one.health == CLUSTER_HEALTH_HEALTHY, -firing.get(one.id, 0), one.name)
        )
        titles = h(
            "li", *(h("span", one) for one in ("Cluster", "Status", "CPU", "Operations / s")), class_="rows-head"
        )
        return h(
            "ul",
            titles,
            joined(_cluster(one, self._sparks.get(one.id), firing.get(one.id, 0)) for one in urgent),
            class_="rows",
        )


def _cluster(cluster: Cluster, spark: Spark | None, firing: int) -> Html:
    name = h("a", cluster.name, href=f"/clusters/{cluster.id}", class_="row-name")
    alerts = h("span", count(firing, "alert"), class_="small bad") if firing else None
    facts = h(
        "div",
        f"{cluster.project_name} · {cluster.spec.region} · {count(len(cluster.members), 'member')} ",
        alerts,
        class_="small muted",
    )
    cpu = sparkline(spark.cpu, "CPU of the busiest member, last hour", percent=True) if spark else NOT_KNOWN
    operations = sparkline(spark.operations, "Operations per second, last hour") if spark else NOT_KNOWN
    return h("li", h("div", name, facts), pill(status_of(cluster)), h("div", cpu), h("div", operations))


def _alerts(alerts: Sequence[Alert]) -> Html:
    if not alerts:
        return h("div", empty("check", "Nothing is wrong", "No alert is open."), class_="nothing")
    urgent = sorted(alerts, key=lambda one: (one.state != ALERT_STATE_FIRING, -one.severity, -one.start_time.seconds))
    rows = joined(
        h(
            "li",
            severity_pill(one.severity),
            h(
                "div",
                h("a", one.summary, href=f"/alerts/{one.id}", class_="row-name"),
                h("div", since(one.start_time), class_="small muted"),
            ),
        )
        for one in urgent[:ALERTS_SHOWN]
    )
    return h("ul", rows, class_="rows alerts-short")


def _ranking(ranking: Ranking, summaries: Sequence[NodeSummary]) -> Html:
    first = sorted(summaries, key=lambda one: -one.value)[:TOP]
    head = h("div", h("h3", ranking.title), h("span", ranking.note, class_="small muted"), class_="ranking-head")
    if not first:
        return h(
            "div",
            head,
            h("p", ICONS["info"], "No figures in the last hour", class_="small muted no-figures"),
            class_="panel ranking",
        )
    full = ranking.full or max(first[0].value, 1e-9)
    rows = joined(_rank(one, ranking, full) for one in first)
    return h("div", head, h("ol", rows), class_="panel ranking")


def _rank(one: NodeSummary, ranking: Ranking, full: float) -> Html:
    share = min(100.0, 100 * one.value / full)
    level = "brand" if not ranking.full or share < 75 else "bad" if share >= 90 else "caution"
    bar = h("span", h("i", class_=level, style=f"width:{share:.0f}%"), class_="meter", aria_hidden="true")
    name = h("a", one.node_name, href=f"/nodes/{one.node_id}")
    return h("li", h("span", name, class_="ranking-name"), h("b", measured(one.value, ranking.unit), class_="num"), bar)
