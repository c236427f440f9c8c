"""The catalogue, series, samples and current operations -> proto."""

from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration
from wap.agent.v1 import command_pb2
from wap.control.v1 import metric_pb2 as pb

from collector.catalog import CATALOG, Kind, Metric
from controlplane.api.wire import time_to_wire
from controlplane.store.nodes import NodeName
from controlplane.telemetry.port import Grid, Series

_KINDS = {Kind.GAUGE: pb.METRIC_KIND_GAUGE, Kind.RATE: pb.METRIC_KIND_RATE}


def catalogue_to_wire() -> pb.ListMetricsResponse:
    """All metrics by name."""
    return pb.ListMetricsResponse(metrics=[_metric(CATALOG[name]) for name in sorted(CATALOG)])


def _metric(metric: Metric) -> pb.Metric:
    return pb.Metric(name=metric.name, unit=metric.unit, kind=_KINDS[metric.kind], help=metric.help, group=metric.group)


def answer_to_wire(grid: Grid, found: Iterable[Series], names: Mapping[str, NodeName]) -> pb.QueryMetricsResponse:
    """Series by node name, metric and object. Slow for many points: call it in a thread."""
    step = Duration()
    step.FromTimedelta(grid.step)
    made = [_series(one, names[one.node_id].name) for one in found]
    made.sort(key=lambda series: (series.node_name, series.metric, series.object))
    return pb.QueryMetricsResponse(start_time=time_to_wire(grid.start), step=step, series=made)


def _series(found: Series, node_name: str) -> pb.Series:
    columns = zip(found.averages, found.minima, found.maxima, strict=True)
    points = [pb.Point(average=average, minimum=least, maximum=most) for average, least, most in columns]
    return pb.Series(
        node_id=found.node_id, node_name=node_name, metric=found.metric, object=found.object, points=points
    )


def current_operation_to_wire(found: command_pb2.CurrentOperation) -> pb.CurrentOperation:
    """One operation that mongod is carrying out."""
    running = Duration()
    running.FromNanoseconds(int(found.running_seconds * 1e9))
    return pb.CurrentOperation(
        id=found.id,
        operation=found.operation,
        namespace=found.namespace,
        command_shape=found.command_shape,
        client=found.client,
        application=found.application,
        plan_summary=found.plan_summary,
        running=running,
        waiting_for_lock=found.waiting_for_lock,
        description=found.description,
        killable=found.killable,
    )
