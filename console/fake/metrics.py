"""MetricService of the fake: invented curves for every node, and operations that can be killed."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1 import metric_pb2 as pb
from wap.control.v1.metric_pb2_grpc import MetricServiceServicer
from wap.control.v1.node_pb2 import AGENT_STATE_CONNECTED, AGENT_STATE_REMOVED, Node
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR
from wap.type.v1.failure_pb2 import FAILURE_CODE_AGENT_SILENT

from collector.catalog import CATALOG, Kind, Metric
from console.client.monitoring import span, stamp
from console.fake.curves import CURVES, STORAGE, STORAGE_METRICS, value
from console.fake.gate import actor
from console.fake.refusals import Refused, invalid, not_found
from console.fake.world import World

MOST_POINTS = 1000
MOST_METRICS = 20
MOST_ANSWER = 100_000
"""Points of one answer; where there would be more, steps are made longer."""

SAMPLING = 10.0
TWO_DAYS = 172_800.0

RUNNING = (
    ("query", "shop.orders", '{"find":"orders","filter":{"status":"?string"},"sort":{"created":-1}}', "COLLSCAN", 14.2),
    (
        "command",
        "audit.events",
        '{"aggregate":"events","pipeline":[{"$match":{"at":{"$gte":"?date"}}}]}',
        "IXSCAN",
        3.1,
    ),
    ("update", "shop.carts", '{"update":"carts","updates":[{"q":{"_id":"?objectId"}}]}', "IDHACK", 0.02),
    ("getmore", "local.oplog.rs", '{"getMore":"?long","collection":"oplog.rs"}', "COLLSCAN", 0.4),
)
"""Operation, namespace, shape, plan and seconds; the last one is mongod's own."""


class MetricService(MetricServiceServicer):
    """Answers for the nodes in the world; `born` is when the fake started, which its curves hang on."""

    def __init__(self, world: World, born: float) -> None:
        self._world = world
        self._born = born
        self.most_answer = MOST_ANSWER
        self._killed: set[tuple[str, int]] = set()

    async def ListMetrics(self, request: pb.ListMetricsRequest, context: Any) -> pb.ListMetricsResponse:
        """The real catalogue; there are figures for a part of it."""
        return pb.ListMetricsResponse(metrics=[_as_metric(CATALOG[name]) for name in sorted(CATALOG)])

    async def QueryMetrics(self, request: pb.QueryMetricsRequest, context: Any) -> pb.QueryMetricsResponse:
        """Average, minimum and maximum per step; steps in the future are gaps."""
        nodes = self._nodes(request.cluster_id, request.node_id)
        _check_metrics(request.metrics)
        start, step, count = _grid(request)
        while count * len(nodes) * len(request.metrics) > self.most_answer:
            request.step.CopyFrom(span(step * 2))
            start, step, count = _grid(request)
        reply = pb.QueryMetricsResponse(start_time=stamp(start), step=span(step))
        for node in nodes:
            for metric in request.metrics:
                reply.series.extend(self._series(node, metric, request.object, start, step, count))
        return reply

    async def SummariseMetrics(self, request: pb.SummariseMetricsRequest, context: Any) -> pb.SummariseMetricsResponse:
        """The quantile of 60 moments of the time."""
        _check_metrics([request.metric])
        if not 0 <= request.quantile <= 1:
            raise invalid("quantile", request.quantile, "0 to 1")
        start, end = _seconds(request.start_time), _seconds(request.end_time) or time.time()
        reply = pb.SummariseMetricsResponse()
        for node in self._visible(request.project_id, request.cluster_id):
            moments = (start + (end - start) * part / 60 for part in range(60))
            values = sorted(found for at in moments if (found := self._value(node, request.metric, at)) is not None)
            if values:
                chosen = values[min(len(values) - 1, math.ceil(request.quantile * (len(values) - 1)))]
                reply.summaries.add(node_id=node.id, node_name=node.name, cluster_id=node.cluster_id, value=chosen)
        return reply

    async def StreamMetrics(
        self, request: pb.StreamMetricsRequest, context: Any
    ) -> AsyncIterator[pb.StreamMetricsResponse]:
        """Samples every `interval`; the first at once."""
        _check_metrics(request.metrics)
        interval = request.interval.seconds + request.interval.nanos / 1e9
        if request.HasField("interval") and not 1 <= interval <= 10:
            raise invalid("interval", f"{interval:g} s", "1 to 10 s")
        while True:
            at = time.time()
            samples = [
                pb.Sample(node_id=node.id, metric=metric, time=stamp(at), value=found)
                for node in self._nodes(request.cluster_id, request.node_id)
                for metric in request.metrics
                if (found := self._value(node, metric, at)) is not None
            ]
            yield pb.StreamMetricsResponse(samples=samples)
            await asyncio.sleep(interval or SAMPLING)

    async def ListCurrentOperations(
        self, request: pb.ListCurrentOperationsRequest, context: Any
    ) -> pb.ListCurrentOperationsResponse:
        """The same few, longer each time; those killed are gone."""
        node = self._world.node_by(actor(), request.node_id)
        if node.agent_state != AGENT_STATE_CONNECTED:
            raise Refused(FAILURE_CODE_AGENT_SILENT, "The agent of this node is not connected.", field="node_id")
        least = request.running_at_least.seconds + request.running_at_least.nanos / 1e9
        found = [one for one in self._running(node) if one.running.ToMilliseconds() / 1000 >= least]
        return pb.ListCurrentOperationsResponse(operations=found)

    async def KillOperation(self, request: pb.KillOperationRequest, context: Any) -> pb.KillOperationResponse:
        """Only operations of clients."""
        node = self._world.node_by(actor(), request.node_id)
        actor().require(node.project_id, ACCESS_ROLE_OPERATOR)
        wanted = [one for one in self._running(node) if one.id == request.current_operation_id]
        if not wanted:
            raise not_found("operation", str(request.current_operation_id))
        if not wanted[0].killable:
            raise invalid("current_operation_id", request.current_operation_id, "an operation of a client")
        self._killed.add((node.id, request.current_operation_id))
        resource = f"node/{node.id}"
        self._world.record(actor(), "KillOperation", resource, project_id=node.project_id, after={"id": wanted[0].id})
        return pb.KillOperationResponse()

    def _running(self, node: Node) -> list[pb.CurrentOperation]:
        age = time.time() - self._born
        found = []
        for number, (operation, namespace, shape, plan, seconds) in enumerate(RUNNING, start=4711):
            if (node.id, number) in self._killed:
                continue
            running = seconds + age if seconds > 1 else seconds
            found.append(
                pb.CurrentOperation(
                    id=number,
                    operation=operation,
                    namespace=namespace,
                    command_shape=shape,
                    client=f"10.20.0.{number % 250}:50512" if namespace != "local.oplog.rs" else "",
                    application="checkout" if namespace.startswith("shop") else "",
                    plan_summary=plan,
                    running=span(running),
                    waiting_for_lock=number == 4712,
                    description="conn42" if namespace != "local.oplog.rs" else "ReplBatcher",
                    killable=namespace != "local.oplog.rs",
                )
            )
        return sorted(found, key=lambda one: -one.running.ToMilliseconds())

    def _nodes(self, cluster_id: str, node_id: str) -> list[Node]:
        if bool(cluster_id) == bool(node_id):
            raise invalid("cluster_id", cluster_id, "one of cluster_id and node_id")
        if node_id:
            return [self._world.node_by(actor(), node_id)]
        self._world.cluster_by(actor(), cluster_id)
        return self._visible("", cluster_id)

    def _visible(self, project_id: str, cluster_id: str) -> list[Node]:
        found = [
            node
            for node in self._world.nodes.values()
            if actor().sees(node.project_id)
            and project_id in ("", node.project_id)
            and cluster_id in ("", node.cluster_id)
            and node.agent_state != AGENT_STATE_REMOVED
        ]
        return sorted(found, key=lambda node: node.name)

    def _series(
        self, node: Node, metric: str, object_name: str, start: float, step: float, count: int
    ) -> Iterable[pb.Series]:
        if metric in STORAGE_METRICS:
            for namespace, sizes in STORAGE.items():
                if object_name in ("", namespace):
                    size = sizes[STORAGE_METRICS.index(metric)]
                    yield _as_series(node, metric, namespace, [_point([size])] * count)
            return
        points = []
        for index in range(count):
            begin = start + index * step
            moments = (begin,) if step <= SAMPLING else (begin, begin + step / 3, begin + step * 2 / 3)
            points.append(_point([self._value(node, metric, at) for at in moments]))
        if any(point.HasField("average") for point in points):
            yield _as_series(node, metric, "", points)

    def _value(self, node: Node, metric: str, at: float) -> float | None:
        if metric not in CURVES or at > time.time() or node.agent_state != AGENT_STATE_CONNECTED:
            return None
        members = sorted(self._world.clusters[node.cluster_id].members, key=lambda one: one.name)
        leader = next((number for number, one in enumerate(members) if one.state == "PRIMARY"), 0)
        place = next((number for number, one in enumerate(members) if one.node_id == node.id), 0)
        former = (leader + 1) % max(1, len(members))
        return value(metric, node.id, at, born=self._born, is_primary=place == leader, was_primary=place == former)


def _grid(request: pb.QueryMetricsRequest) -> tuple[float, float, int]:
    start = _seconds(request.start_time)
    end = _seconds(request.end_time) if request.HasField("end_time") else time.time()
    if not start or start >= end:
        raise invalid("start_time", request.start_time.ToJsonString(), "a moment before end_time")
    unit = SAMPLING if time.time() - start <= TWO_DAYS else 60.0
    least = max((end - start) / MOST_POINTS, request.step.seconds, unit)
    step = math.ceil(least / unit) * unit
    begin = math.floor(start / step) * step
    return begin, step, min(MOST_POINTS, math.ceil((end - begin) / step))


def _check_metrics(names: Sequence[str]) -> None:
    if not 1 <= len(names) <= MOST_METRICS:
        raise invalid("metrics", len(names), f"1 to {MOST_METRICS} names")
    for name in names:
        if name not in CATALOG:
            raise invalid("metrics", name, "names that ListMetrics returns")


def _as_metric(metric: Metric) -> pb.Metric:
    kind = pb.METRIC_KIND_RATE if metric.kind is Kind.RATE else pb.METRIC_KIND_GAUGE
    return pb.Metric(name=metric.name, unit=metric.unit, kind=kind, help=metric.help, group=metric.group)


def _point(values: Sequence[float | None]) -> pb.Point:
    found = [one for one in values if one is not None]
    if not found:
        return pb.Point()
    return pb.Point(average=sum(found) / len(found), minimum=min(found), maximum=max(found))


def _as_series(node: Node, metric: str, object_name: str, points: Sequence[pb.Point]) -> pb.Series:
    return pb.Series(node_id=node.id, node_name=node.name, metric=metric, object=object_name, points=points)


def _seconds(message: Timestamp) -> float:
    return message.seconds + message.nanos / 1e9
