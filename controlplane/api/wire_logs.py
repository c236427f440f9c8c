"""Log lines and shapes of slow queries -> proto."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from wap.control.v1 import log_pb2 as pb

from controlplane.api.wire import time_to_wire
from controlplane.telemetry.port import LogLine
from controlplane.telemetry.slow_queries import Shape


def line_to_wire(line: LogLine, node_name: str) -> pb.LogLine:
    """One line under the name that its node has now."""
    return pb.LogLine(
        node_id=line.node_id,
        node_name=node_name,
        cluster_id=line.cluster_id,
        time=time_to_wire(line.time),
        component=line.component,
        severity=line.severity,
        message_id=line.message_id,
        text=line.text,
        context=line.context,
        attributes=line.attributes,
    )


def shape_to_wire(shape: Shape) -> pb.SlowQueryShape:
    """A group of slow queries, with the index that would help where there is one."""
    advice = shape.advice
    return pb.SlowQueryShape(
        namespace=shape.namespace,
        operation=shape.operation,
        predicate_shape=shape.predicate_shape,
        sort_shape=shape.sort_shape,
        count=shape.count,
        p50=_millis(shape.p50_millis),
        p95=_millis(shape.p95_millis),
        total=_millis(shape.total_millis),
        docs_examined=shape.docs_examined,
        docs_returned=shape.docs_returned,
        collection_scans=shape.collection_scans,
        plan_summary=shape.plan_summary,
        last_time=time_to_wire(shape.last_time),
        advice=pb.IndexAdvice(keys=advice.keys, reason=advice.reason) if advice is not None else None,
    )


def _millis(count: int) -> Duration:
    made = Duration()
    made.FromTimedelta(timedelta(milliseconds=count))
    return made
