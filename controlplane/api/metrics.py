"""MetricService: what was measured, then and now, and what a mongod is doing at this moment."""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from wap.agent.v1 import command_pb2
from wap.control.v1 import metric_pb2 as pb
from wap.control.v1.metric_pb2_grpc import MetricServiceServicer

from collector.catalog import CATALOG, COLLECTION, NODE, SHARDING
from controlplane.api import calls
from controlplane.api.attention import Attention
from controlplane.api.live import LiveSamples
from controlplane.api.monitoring import asked, visible
from controlplane.api.orders import Orders
from controlplane.api.periods import length, period
from controlplane.api.services import Services
from controlplane.api.wire_metrics import answer_to_wire, catalogue_to_wire, current_operation_to_wire
from controlplane.domain.failure import WapFailure, invalid
from controlplane.telemetry.grid import choose
from controlplane.telemetry.port import Grid, MetricQuery, Series

MAX_METRICS = 20
# Points of one answer, of about 30 bytes each: within what gRPC carries in one message.
MAX_ANSWER, FEWEST_POINTS = 100_000, 50
# How many objects a node is taken to have, before anybody has counted.
USUAL_OBJECTS = 50
LONGEST_STEP = timedelta(days=3640)
SLOWEST_SAMPLES = timedelta(seconds=10)
MAX_OPERATIONS = 200
# Nodes that are summarised without letting anybody else in between: some milliseconds.
NODES_AT_ONCE = 100
# Metrics that a node has of its objects too.
_OF_OBJECTS = frozenset(COLLECTION) | frozenset(SHARDING)
# By how much a start that was "an hour ago" when it was sent may be late.
_SLACK = timedelta(seconds=15)


class Metrics(MetricServiceServicer):
    """Metrics."""

    def __init__(self, services: Services) -> None:
        self._database, self._clock, self._monitoring = services.database, services.clock, services.monitoring
        self._orders = Orders(services.database, services.monitoring.fleet, services.clock)
        self._attention = Attention(self._orders)

    async def ListMetrics(self, request: pb.ListMetricsRequest, context: Any) -> pb.ListMetricsResponse:
        """The catalogue."""
        return catalogue_to_wire()

    async def QueryMetrics(self, request: pb.QueryMetricsRequest, context: Any) -> pb.QueryMetricsResponse:
        """Series on one grid, as fine as fits."""
        names = _known(request.metrics)
        start, end = period(request, self._clock.now())
        step = None
        if request.HasField("step"):
            step = length("step", request.step, timedelta(seconds=1), LONGEST_STEP)
        find = visible(calls.current(), cluster_id=request.cluster_id, node_id=request.node_id)
        nodes = await self._database.read(find)
        objects = USUAL_OBJECTS if not request.object and _OF_OBJECTS.intersection(names) else 1
        grid = self._grid(start, end, step, len(nodes) * len(names) * objects)
        found: Sequence[Series] = ()
        if nodes:
            found = await self._series(MetricQuery(list(nodes), names, grid, request.object or None))
        if len(found) * grid.count > MAX_ANSWER:
            allowed = f"the name of one object, or a step that leaves at most {MAX_ANSWER} points"
            raise invalid("object", f"{len(found)} series of {grid.count} points", allowed)
        return await asyncio.to_thread(answer_to_wire, grid, found, nodes)

    def _grid(self, start: datetime, end: datetime, step: timedelta | None, series: int) -> Grid:
        """Fewer points where there are many series."""
        most = max(FEWEST_POINTS, MAX_ANSWER // max(1, series))
        try:
            grid = choose(start, end, step, self._clock.now())
            while grid.count > most:
                grid = choose(start, end, grid.step * 2, self._clock.now())
        except ValueError as error:
            raise invalid("start_time", f"{start:%FT%TZ}", f"a time for which {error} is not so") from None
        return grid

    async def _series(self, query: MetricQuery) -> Sequence[Series]:
        hot = self._monitoring.hot
        of_nodes = query.object is None and not _OF_OBJECTS.intersection(query.metrics)
        if self._monitoring.alone and of_nodes and hot.covers(query.grid.start):
            found: list[Series] = []
            for node_id in query.node_ids:
                found += hot.series(dataclasses.replace(query, node_ids=[node_id]))
                await asyncio.sleep(0)  # memory is read on the event loop, which others need too
            return found
        return await asked("metrics", self._monitoring.metrics.query(query))

    async def SummariseMetrics(self, request: pb.SummariseMetricsRequest, context: Any) -> pb.SummariseMetricsResponse:
        """One number per node."""
        (metric,) = _known([request.metric], "metric")
        if not 0 <= request.quantile <= 1:  # NaN neither
            raise invalid("quantile", request.quantile, "0 to 1")
        start, end = period(request, self._clock.now())
        find = visible(calls.current(), project_id=request.project_id, cluster_id=request.cluster_id)
        nodes = await self._database.read(find)
        values: dict[str, float] = {}
        if nodes:
            values = await self._summaries(metric, list(nodes), start, end, request.quantile)
        summaries = [
            pb.NodeSummary(node_id=node.id, node_name=node.name, cluster_id=node.cluster_id, value=values[node.id])
            for node in nodes.values()
            if node.id in values
        ]
        return pb.SummariseMetricsResponse(summaries=summaries)

    async def _summaries(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        hot = self._monitoring.hot
        if self._monitoring.alone and metric in NODE and hot.covers(start + _SLACK):
            values: dict[str, float] = {}
            for begin in range(0, len(node_ids), NODES_AT_ONCE):
                some = node_ids[begin : begin + NODES_AT_ONCE]
                values.update(hot.summarise(metric, some, start, end, quantile))
                await asyncio.sleep(0)
            return values
        return await asked("metrics", self._monitoring.metrics.summarise(metric, node_ids, start, end, quantile))

    async def StreamMetrics(
        self, request: pb.StreamMetricsRequest, context: Any
    ) -> AsyncIterator[pb.StreamMetricsResponse]:
        """The first message comes at once, also when nothing is known yet."""
        names, pause = _known(request.metrics), 1.0
        if request.HasField("interval"):
            pause = length("interval", request.interval, timedelta(seconds=1), SLOWEST_SAMPLES).total_seconds()
        find = visible(calls.current(), cluster_id=request.cluster_id, node_id=request.node_id)
        live = LiveSamples(self._monitoring, self._database, find, names, self._clock)
        faster = request.HasField("interval") and pause < SLOWEST_SAMPLES.total_seconds()
        async with contextlib.AsyncExitStack() as stack:
            if faster:
                await stack.enter_async_context(self._attention.to(live.nodes, math.floor(pause)))
            yield pb.StreamMetricsResponse(samples=await live.fresh())
            while True:
                await asyncio.sleep(pause)
                if samples := await live.fresh():
                    yield pb.StreamMetricsResponse(samples=samples)

    async def ListCurrentOperations(
        self, request: pb.ListCurrentOperationsRequest, context: Any
    ) -> pb.ListCurrentOperationsResponse:
        """Asked of the agent now."""
        least = timedelta(0)
        if request.HasField("running_at_least"):
            least = length("running_at_least", request.running_at_least, timedelta(0), timedelta(days=365))
        body = command_pb2.ListCurrentOperations(min_seconds=int(least.total_seconds()), limit=MAX_OPERATIONS)
        result = await self._orders.give(request.node_id, command_pb2.Command(list_current_operations=body))
        found = result.list_current_operations.operations[:MAX_OPERATIONS]
        return pb.ListCurrentOperationsResponse(operations=[current_operation_to_wire(one) for one in found])

    async def KillOperation(self, request: pb.KillOperationRequest, context: Any) -> pb.KillOperationResponse:
        """Told to the agent now; the audit says how it went."""
        if request.current_operation_id <= 0:
            raise invalid("current_operation_id", request.current_operation_id, "an id of ListCurrentOperations")
        body = command_pb2.KillOperation(id=request.current_operation_id)
        try:
            await self._orders.give(request.node_id, command_pb2.Command(kill_operation=body))
        except WapFailure as failure:
            await self._record(request, failure.code)
            raise
        await self._record(request, "ok")
        return pb.KillOperationResponse()

    async def _record(self, request: pb.KillOperationRequest, outcome: str) -> None:
        call, now = calls.current(), self._clock.now()
        after = {"current_operation_id": request.current_operation_id}
        await self._database.write(
            lambda tx: call.record(tx, now, f"node/{request.node_id}", after=after, outcome=outcome)
        )


def _known(metrics: Sequence[str], field: str = "metrics") -> list[str]:
    """The names, if the catalogue has them all."""
    if not 1 <= len(metrics) <= MAX_METRICS:
        raise invalid(field, f"{len(metrics)} names", f"1 to {MAX_METRICS} names that ListMetrics tells")
    for index, name in enumerate(metrics):
        if name not in CATALOG:
            path = f"{field}[{index}]" if field == "metrics" else field
            raise invalid(path, name, "a name that ListMetrics tells")
    return list(dict.fromkeys(metrics))
