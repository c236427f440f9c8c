"""`wap metrics`: what is measured, what was, and what is being measured now."""

import time
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.text import Text
from wap.control.v1 import metric_pb2 as pb
from wap.control.v1.metric_pb2 import MetricKind
from wap.control.v1.node_pb2 import ListNodesRequest

from console.cli.command import ProjectOption, answering
from console.cli.completion import cluster_names
from console.cli.measures import LastOption, curve, quantity, seconds_of
from console.cli.nodes import find_node
from console.cli.session import Session, as_dict, table
from console.cli.text import moment, word
from console.client import Client
from console.client.monitoring import follow, query_request, span, summary_request

ClusterOption = Annotated[
    str | None, typer.Option("--cluster", "-c", help="All members of this cluster.", autocompletion=cluster_names)
]
NodeOption = Annotated[str | None, typer.Option("--node", "-N", help="Only this node, by name or id.")]


def register(app: typer.Typer) -> None:
    """Put the command on the root."""
    app.command()(answering(metrics))


def metrics(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[METRIC]...", help="Up to 20 metrics; none: list what there is.")
    ] = None,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    project: ProjectOption = None,
    last: LastOption = "1h",
    step: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Distance of points; default: as fine as fits.")
    ] = None,
    object_name: Annotated[str, typer.Option("--object", help="One namespace or disk, where a metric has some.")] = "",
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Show samples as they come in, once a second; Ctrl-C ends it.")
    ] = False,
) -> None:
    """Show metrics of a cluster's members, of a node, or of all nodes at once."""
    with session.client() as client:
        units = {one.name: one for one in client.metrics.ListMetrics(pb.ListMetricsRequest()).metrics}
        if not names:
            _catalogue(session, list(units.values()))
            return
        cluster_id, node_id = _place(session, client, cluster, node, project)
        if following:
            _follow(session, client, names, cluster_id, node_id, units)
        elif cluster_id or node_id:
            request = query_request(
                names,
                cluster_id=cluster_id,
                node_id=node_id,
                last_seconds=seconds_of(last, "--last"),
                step_seconds=seconds_of(step, "--step") if step else None,
                object_name=object_name,
            )
            _series(session, client.metrics.QueryMetrics(request), units)
        else:
            _all_nodes(session, client, names, session.project_id(client, project), seconds_of(last, "--last"), units)


def _place(
    session: Session, client: Client, cluster: str | None, node: str | None, project: str | None
) -> tuple[str, str]:
    """The ids of the cluster or of the node; a node's name alone may stand in several clusters."""
    if node:
        return "", find_node(session, client, node, project, cluster).id
    return (session.cluster(client, cluster, project).id if cluster else ""), ""


def _catalogue(session: Session, found: list[pb.Metric]) -> None:
    rows = [(one.name, one.unit or "-", word(MetricKind.DESCRIPTOR, one.kind), one.help) for one in found]
    session.answer(
        pb.ListMetricsResponse(metrics=found),
        lambda: table(("METRIC", "UNIT", "KIND", "MEANING"), rows, empty="No metrics."),
    )


def _series(session: Session, reply: pb.QueryMetricsResponse, units: Mapping[str, pb.Metric]) -> None:
    rows = []
    for one in reply.series:
        unit = units[one.metric].unit if one.metric in units else ""
        known = [point for point in one.points if point.HasField("average")]
        averages = [point.average if point.HasField("average") else None for point in one.points]
        if known:
            figures = (
                known[-1].average,
                sum(point.average for point in known) / len(known),
                min(point.minimum for point in known),
                max(point.maximum for point in known),
            )
            texts = [quantity(figure, unit) for figure in figures]
            rows.append((one.node_name, one.metric, one.object, *texts, curve(averages)))
    columns = ("NODE", "METRIC", "OBJECT", ">NEWEST", ">AVERAGE", ">LOWEST", ">HIGHEST", "CURVE")
    session.answer(reply, lambda: table(columns, rows, empty="Nothing was measured in this time."))


def _all_nodes(
    session: Session,
    client: Client,
    names: list[str],
    project_id: str,
    seconds: float,
    units: Mapping[str, pb.Metric],
) -> None:
    """One line for each node and metric: its median, 95th percentile and maximum."""
    rows: list[tuple[str, ...]] = []
    found: list[dict[str, object]] = []
    end = time.time()  # the same for all, or a sample between two calls sets the median above the maximum
    for name in names:
        replies = [
            client.metrics.SummariseMetrics(
                summary_request(name, project_id=project_id, quantile=quantile, last_seconds=seconds, end=end)
            )
            for quantile in (0.5, 0.95, 1.0)
        ]
        values = [{one.node_id: one.value for one in reply.summaries} for reply in replies]
        unit = units[name].unit if name in units else ""
        for one in replies[0].summaries:
            figures = [each.get(one.node_id, one.value) for each in values]
            rows.append((one.node_name, name, *(quantity(figure, unit) for figure in figures)))
            found.append(
                {
                    "node_id": one.node_id,
                    "node_name": one.node_name,
                    "cluster_id": one.cluster_id,
                    "metric": name,
                    **dict(zip(("median", "p95", "maximum"), figures, strict=True)),
                }
            )
    if session.json:
        session.print_json({"summaries": found})
        return
    columns = ("NODE", "METRIC", ">MEDIAN", ">P95", ">HIGHEST")
    session.out.print(table(columns, rows, empty="Nothing was measured in this time."))


def _follow(
    session: Session,
    client: Client,
    names: list[str],
    cluster_id: str,
    node_id: str,
    units: Mapping[str, pb.Metric],
) -> None:
    called = {one.id: one.name for one in client.nodes.ListNodes(ListNodesRequest(cluster_id=cluster_id)).nodes}
    request = pb.StreamMetricsRequest(cluster_id=cluster_id, node_id=node_id, metrics=names, interval=span(1))
    for reply in follow(client.metrics.StreamMetrics, request):
        for one in reply.samples:
            if session.json:
                session.print_json(as_dict(one), indent=None)
                continue
            unit = units[one.metric].unit if one.metric in units else ""
            text = (
                f"{moment(one.time)}  {called.get(one.node_id, one.node_id)}  {one.metric}  {quantity(one.value, unit)}"
            )
            session.out.print(Text(text), soft_wrap=True)
