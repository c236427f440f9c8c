"""The streams that pages follow, each with one name so that all pages of a session share it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from wap.control.v1.alert_pb2 import ALERT_STATE_RESOLVED, Alert, WatchAlertsRequest
from wap.control.v1.cluster_pb2 import Cluster, ListClustersRequest, WatchClustersRequest
from wap.control.v1.log_pb2 import LogFilter, LogLine, TailLogsRequest
from wap.control.v1.metric_pb2 import CurrentOperation, ListCurrentOperationsRequest, Series, StreamMetricsRequest
from wap.control.v1.node_pb2 import ListNodesRequest, Node
from wap.control.v1.operation_pb2 import ListOperationsRequest, Operation, WatchOperationRequest

from console.client import AsyncClient, is_finished
from console.client.monitoring import HOUR, query_request, span
from console.live import polled
from console.parts.words import seconds

WATCH_SECONDS = 120.0
"""A watch is opened anew after this time: a connection that died without a word is noticed by then."""

REOPEN_SECONDS = 1.0
"""Pause before a watch that the server has ended is opened again."""

NODE_SECONDS = 4.0
OPERATION_SECONDS = 2.0
OPERATIONS_SHOWN = 100

SAMPLING_SECONDS = 1.0
CURRENT_SECONDS = 2.0
TAIL_LINES = 300

CPU = "host.cpu.used_percent"
OPCOUNTERS = tuple(
    f"mongod.opcounters.{name}_per_second" for name in ("insert", "query", "update", "delete", "getmore", "command")
)
SPARK_STEP = 120.0
SPARK_SECONDS = 60.0
SPARKS_SHOWN = 60
SPARKS_AT_ONCE = 6


async def watch_clusters(api: AsyncClient, cluster_id: str = "") -> AsyncIterator[Sequence[Cluster]]:
    """All clusters that are not deleted, or one in any state."""
    request = WatchClustersRequest(cluster_id=cluster_id)
    while True:
        async for reply in api.clusters.WatchClusters(request, timeout=WATCH_SECONDS):
            yield reply.clusters
        await asyncio.sleep(REOPEN_SECONDS)


Latest = Mapping[tuple[str, str], tuple[float, float]]
"""(metric, node) -> when, in seconds since the epoch, and the value."""


async def watch_latest(
    api: AsyncClient, cluster_id: str, node_id: str, metrics: Sequence[str]
) -> AsyncIterator[Latest]:
    """The newest value of each metric and node, whenever one comes in; nodes sample every second meanwhile."""
    request = StreamMetricsRequest(
        cluster_id=cluster_id, node_id=node_id, metrics=metrics, interval=span(SAMPLING_SECONDS)
    )
    latest: dict[tuple[str, str], tuple[float, float]] = {}
    while True:
        async for reply in api.metrics.StreamMetrics(request, timeout=WATCH_SECONDS):
            for sample in reply.samples:
                if not sample.object:
                    latest[sample.metric, sample.node_id] = (seconds(sample.time), sample.value)
            yield dict(latest)
        await asyncio.sleep(REOPEN_SECONDS)


def watch_current_operations(
    api: AsyncClient, node_id: str, least_seconds: float
) -> AsyncIterator[Sequence[CurrentOperation]]:
    """What a node's mongod is doing, the longest running first."""
    request = ListCurrentOperationsRequest(node_id=node_id, running_at_least=span(least_seconds))

    async def read() -> list[CurrentOperation]:
        return list((await api.metrics.ListCurrentOperations(request)).operations)

    return polled(read, CURRENT_SECONDS)


@dataclass(frozen=True)
class Spark:
    """The last hour of a cluster in a few points: CPU of its busiest member, operations per second of all of them."""

    cpu: Sequence[float | None]
    operations: Sequence[float | None]


async def watch_sparks(api: AsyncClient) -> AsyncIterator[Mapping[str, Spark]]:
    """By cluster, for the first of many; each round begins when the one before has been over for a minute."""
    found: dict[str, Spark] = {}
    while True:
        clusters = (await api.clusters.ListClusters(ListClustersRequest(page_size=SPARKS_SHOWN))).clusters
        for place in range(0, len(clusters), SPARKS_AT_ONCE):
            part = [one.id for one in clusters[place : place + SPARKS_AT_ONCE]]
            sparks = await asyncio.gather(*(_spark(api, cluster_id) for cluster_id in part))
            found = found | dict(zip(part, sparks, strict=True))
            yield found
        await asyncio.sleep(SPARK_SECONDS)


async def _spark(api: AsyncClient, cluster_id: str) -> Spark:
    request = query_request((CPU, *OPCOUNTERS), cluster_id=cluster_id, last_seconds=HOUR, step_seconds=SPARK_STEP)
    series = (await api.metrics.QueryMetrics(request)).series
    cpu = [_values(one) for one in series if one.metric == CPU]
    operations = [_values(one) for one in series if one.metric != CPU]
    return Spark(_over(cpu, max), _over(operations, sum))


def _values(series: Series) -> list[float | None]:
    return [point.average if point.HasField("average") else None for point in series.points]


def _over(every: Sequence[Sequence[float | None]], reduce: Callable[[Sequence[float]], float]) -> list[float | None]:
    steps = [[value for value in step if value is not None] for step in zip(*every, strict=False)]
    return [reduce(step) if step else None for step in steps]


@dataclass(frozen=True)
class Tail:
    """The newest lines of a tail, newest first; how many there were in all; how many came too fast to be sent."""

    lines: Sequence[LogLine]
    total: int
    skipped: int


async def watch_logs(api: AsyncClient, wanted: LogFilter) -> AsyncIterator[Tail]:
    """Log lines from now on; the newest of them are kept."""
    lines: deque[LogLine] = deque(maxlen=TAIL_LINES)
    total = skipped = 0
    yield Tail((), 0, 0)
    while True:
        async for reply in api.logs.TailLogs(TailLogsRequest(filter=wanted), timeout=WATCH_SECONDS):
            lines.extendleft(reply.lines)
            total += len(reply.lines)
            skipped += reply.skipped
            yield Tail(tuple(lines), total, skipped)
        await asyncio.sleep(REOPEN_SECONDS)


async def watch_alerts(
    api: AsyncClient, project_id: str = "", cluster_id: str = ""
) -> AsyncIterator[Mapping[str, Alert]]:
    """The open alerts by id, those that fired last first."""
    request = WatchAlertsRequest(project_id=project_id, cluster_id=cluster_id)
    while True:
        found: dict[str, Alert] = {}
        yield found
        async for reply in api.alerts.WatchAlerts(request, timeout=WATCH_SECONDS):
            found = {key: one for key, one in found.items() if key != reply.alert.id}
            if reply.alert.state != ALERT_STATE_RESOLVED:
                found[reply.alert.id] = reply.alert
            yield dict(sorted(found.items(), key=lambda item: -item[1].start_time.seconds))
        await asyncio.sleep(REOPEN_SECONDS)


async def watch_operation(api: AsyncClient, operation_id: str) -> AsyncIterator[Operation]:
    """One operation until it is over for good."""
    while True:
        request = WatchOperationRequest(operation_id=operation_id)
        async for reply in api.operations.WatchOperation(request, timeout=WATCH_SECONDS):
            yield reply.operation
            if is_finished(reply.operation):
                return
        await asyncio.sleep(REOPEN_SECONDS)  # a failed operation is not over: someone may retry it


def watch_nodes(api: AsyncClient, cluster_id: str = "") -> AsyncIterator[Sequence[Node]]:
    """Nodes by name; asked for again and again, since there is no watch for them."""

    async def read() -> list[Node]:
        return list((await api.nodes.ListNodes(ListNodesRequest(cluster_id=cluster_id))).nodes)

    return polled(read, NODE_SECONDS)


def watch_operations(api: AsyncClient, cluster_id: str = "") -> AsyncIterator[Sequence[Operation]]:
    """The latest operations, newest first, without their steps."""
    request = ListOperationsRequest(cluster_id=cluster_id, page_size=OPERATIONS_SHOWN)

    async def read() -> list[Operation]:
        return list((await api.operations.ListOperations(request)).operations)

    return polled(read, OPERATION_SECONDS)
