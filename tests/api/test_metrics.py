"""Metrics as clients ask for them: the catalogue, series, summaries, live samples, and what a mongod does now."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from wap.agent.v1 import telemetry_pb2
from wap.control.v1 import metric_pb2 as pb
from wap.control.v1 import node_pb2

from collector.catalog import CATALOG
from controlplane.domain.failure import FailureCode
from controlplane.domain.node import AgentState
from controlplane.fleet.fake import Fault
from controlplane.store.database import Database
from controlplane.store.tables import Node
from controlplane.telemetry.port import MOST_POINTS, Frame
from tests.api.world import START, World, populate, running
from tests.waiting import eventually

USER, LOAD, DOCUMENTS = "host.cpu.user_percent", "host.load.one_minute", "collection.documents"
NODES = ("orders-rs0-0", "orders-rs0-1", "orders-rs0-2")
FRESH = timedelta(seconds=1)


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


def span(seconds: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


def frame(world: World, node: str, at: datetime, values: Mapping[str, float], object: str = "") -> Frame:
    return Frame(world.ids[node], world.ids["orders"], object, at, values)


async def an_hour(world: World, *, hot: bool = False, hours: int = 1) -> None:
    """One hour of samples of the three members, at 10 seconds; each node's CPU has a level of its own."""
    ticks = [START - timedelta(seconds=10 * number) for number in range(360 * hours, 0, -1)]
    for level, node in enumerate(NODES, 1):
        frames = [frame(world, node, at, {USER: level * 10.0, LOAD: float(level)}) for at in ticks]
        await world.measured.metrics.write(frames)
        if hot:
            world.measured.hot.take(frames)


async def query(world: World, as_: str = "viewer-a", **fields: Any) -> pb.QueryMetricsResponse:
    request = pb.QueryMetricsRequest(**{"cluster_id": world.ids["orders"], "metrics": [USER], **fields})
    reply: pb.QueryMetricsResponse = await world.call("MetricService/QueryMetrics", request, as_)
    return reply


async def test_the_catalogue_is_told_whole(world: World) -> None:
    reply = await world.call("MetricService/ListMetrics", pb.ListMetricsRequest(), "viewer-b")
    assert {one.name for one in reply.metrics} == set(CATALOG)
    found = {one.name: one for one in reply.metrics}
    assert (found[USER].unit, found[USER].kind, found[USER].group) == ("percent", pb.METRIC_KIND_GAUGE, "host")
    assert all(one.help for one in reply.metrics)


async def test_series_of_a_cluster_are_one_grid_with_a_series_for_each_member(world: World) -> None:
    await an_hour(world)
    reply = await query(world, metrics=[USER, LOAD])
    assert [(one.node_name, one.metric) for one in reply.series] == [
        (f"orders-rs0-{number}", metric) for number in range(3) for metric in (USER, LOAD)
    ]
    assert reply.step.seconds == 10
    assert 360 <= len(reply.series[0].points) <= 362
    measured = [point for point in reply.series[2].points if point.HasField("average")]
    assert len(measured) == 360
    assert {(point.average, point.minimum, point.maximum) for point in measured} == {(20.0, 20.0, 20.0)}


async def test_gaps_are_told_as_gaps(world: World) -> None:
    times = [START - timedelta(seconds=600), START - timedelta(seconds=20)]
    await world.measured.metrics.write([frame(world, NODES[0], at, {USER: 1.0}) for at in times])
    reply = await query(world, start_time=stamp(START - timedelta(seconds=700)))
    (series,) = reply.series
    held = [point.HasField("average") for point in series.points]
    assert sum(held) == 2
    assert not any(
        point.HasField("minimum") or point.HasField("maximum")
        for point in series.points
        if not point.HasField("average")
    )


async def test_what_memory_holds_is_answered_without_the_store(world: World) -> None:
    world.clock.advance(1200)  # memory knows that it has everything from its own start on
    ticks = [START + timedelta(seconds=10 * number) for number in range(1, 121)]
    world.measured.hot.take([frame(world, NODES[0], at, {USER: 5.0}) for at in ticks])
    world.measured.metrics.unavailable = True
    (series,) = (await query(world, start_time=stamp(START + timedelta(minutes=5)))).series
    assert {point.average for point in series.points if point.HasField("average")} == {5.0}
    request = pb.QueryMetricsRequest(cluster_id=world.ids["orders"], metrics=[USER], start_time=stamp(START - FRESH))
    error = await world.refusal("MetricService/QueryMetrics", request)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert "metrics" in error.message
    summary = pb.SummariseMetricsRequest(metric=USER, quantile=1, start_time=stamp(START + timedelta(minutes=5)))
    reply = await world.call("MetricService/SummariseMetrics", summary, "viewer-a")
    assert [(one.node_name, one.value) for one in reply.summaries] == [(NODES[0], 5.0)]


@pytest.mark.parametrize("days", [1, 7, 60, 365, 3650])
async def test_no_series_has_more_than_a_thousand_points(world: World, days: int) -> None:
    await an_hour(world)
    start, end = START - timedelta(days=days), START
    reply = await query(world, start_time=stamp(start), end_time=stamp(end), step=span(1))
    assert len(reply.series) == 3
    assert all(0 < len(one.points) <= MOST_POINTS for one in reply.series)
    assert reply.start_time.ToDatetime(START.tzinfo) <= start


async def test_many_series_get_fewer_points_each(world: World) -> None:
    await an_hour(world)
    metrics = [*[name for name in CATALOG if name.startswith("host.")][:18], USER, LOAD]
    one = await query(world, start_time=stamp(START - timedelta(hours=2)))
    many = await query(world, start_time=stamp(START - timedelta(hours=2)), metrics=list(dict.fromkeys(metrics)))
    assert many.ByteSize() < 4 * 2**20
    assert len(many.series[0].points) <= len(one.series[0].points)


async def test_objects_are_answered_all_or_one(world: World) -> None:
    at = START - timedelta(seconds=30)
    frames = [frame(world, NODES[0], at, {DOCUMENTS: float(n)}, f"shop.c{n}") for n in range(5)]
    await world.measured.metrics.write(frames)
    reply = await query(world, metrics=[DOCUMENTS])
    assert [one.object for one in reply.series] == [f"shop.c{n}" for n in range(5)]
    reply = await query(world, metrics=[DOCUMENTS], object="shop.c3")
    assert [one.object for one in reply.series] == ["shop.c3"]


async def test_an_answer_that_no_message_carries_is_refused_with_what_to_do(world: World) -> None:
    at = START - timedelta(seconds=30)
    frames = [frame(world, node, at, {DOCUMENTS: float(n)}, f"shop.c{n}") for node in NODES for n in range(700)]
    await world.measured.metrics.write(frames)
    request = pb.QueryMetricsRequest(
        cluster_id=world.ids["orders"], metrics=[DOCUMENTS], start_time=stamp(START - timedelta(hours=1))
    )
    error = await world.refusal("MetricService/QueryMetrics", request)
    assert (error.field, error.reason) == ("object", "INVALID_ARGUMENT")
    assert "name of one object" in error.allowed


async def test_summaries_hold_a_number_for_each_visible_node(world: World) -> None:
    await an_hour(world)
    await world.measured.metrics.write(
        [Frame(world.ids["secrets-rs0-0"], world.ids["secrets"], "", START - FRESH, {USER: 99.0})]
    )
    request = pb.SummariseMetricsRequest(metric=USER, quantile=0.95)
    reply = await world.call("MetricService/SummariseMetrics", request, "viewer-a")
    assert {one.node_name: one.value for one in reply.summaries} == dict(zip(NODES, (10.0, 20.0, 30.0), strict=True))
    reply = await world.call("MetricService/SummariseMetrics", request, "viewer-b")
    assert [one.value for one in reply.summaries] == [99.0]
    reply = await world.call("MetricService/SummariseMetrics", request, "root")
    assert len(reply.summaries) == 4
    side = pb.SummariseMetricsRequest(
        metric=USER, quantile=1, project_id=world.ids["bb"], cluster_id=world.ids["orders"]
    )
    assert not (await world.call("MetricService/SummariseMetrics", side, "viewer-a")).summaries


async def test_live_samples_begin_with_the_newest_and_go_on(world: World) -> None:
    hot = world.measured.hot
    hot.take([frame(world, NODES[0], START - FRESH, {USER: 1.0, LOAD: 9.0})])
    request = pb.StreamMetricsRequest(cluster_id=world.ids["orders"], metrics=[USER])
    async with world.watch("MetricService/StreamMetrics", request, "viewer-a") as stream:
        (first,) = (await stream.next()).samples
        assert (first.node_id, first.metric, first.value) == (world.ids[NODES[0]], USER, 1.0)
        hot.take([frame(world, NODES[1], START, {USER: 2.0}), frame(world, NODES[0], START, {LOAD: 8.0})])
        (second,) = (await stream.next()).samples
        assert (second.node_id, second.value) == (world.ids[NODES[1]], 2.0)


async def test_nodes_sample_every_second_while_somebody_looks(world: World) -> None:
    request = pb.StreamMetricsRequest(cluster_id=world.ids["orders"], metrics=[USER], interval=span(1))
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(world.watch("MetricService/StreamMetrics", request)) for _ in "ab"]
        for stream in streams:
            await stream.next()
        machines = world.measured.fleet.machines
        await eventually(
            lambda: (
                {machines()[world.ids[node]].sampling_seconds for node in NODES if world.ids[node] in machines()} == {1}
                and len(machines()) == 3
            ),
            within=10,
        )
    assert sum(world.measured.fleet.deliveries().values()) == 3, "two who look are one reason"


async def test_control_without_an_interval_no_node_is_disturbed(world: World) -> None:
    request = pb.StreamMetricsRequest(cluster_id=world.ids["orders"], metrics=[USER])
    async with world.watch("MetricService/StreamMetrics", request) as stream:
        await stream.next()
    assert not world.measured.fleet.deliveries()


async def test_samples_that_another_control_plane_hears_come_from_the_store(sqlite: Database) -> None:
    async with running(sqlite, alone=False) as world:
        await populate(world)
        await world.measured.metrics.write([frame(world, NODES[0], START - FRESH, {USER: 7.0})])
        request = pb.StreamMetricsRequest(cluster_id=world.ids["orders"], metrics=[USER])
        async with world.watch("MetricService/StreamMetrics", request) as stream:
            assert [one.value for one in (await stream.next()).samples] == [7.0]


async def test_current_operations_are_listed_and_killed_and_the_audit_says_so(world: World) -> None:
    node = world.ids[NODES[0]]
    reply = await world.call(
        "MetricService/ListCurrentOperations",
        pb.ListCurrentOperationsRequest(node_id=node, running_at_least=span(2)),
        "viewer-a",
    )
    assert [(one.id, one.namespace, one.killable) for one in reply.operations] == [
        (101, "shop.orders", True),
        (102, "shop.orders", True),
    ]
    assert reply.operations[0].running.ToTimedelta() == timedelta(seconds=12.5)
    kill = pb.KillOperationRequest(node_id=node, current_operation_id=101)
    await world.call("MetricService/KillOperation", kill, "operator-a")
    assert world.measured.fleet.machines()[node].operations == [102]
    error = await world.refusal("MetricService/KillOperation", kill, "operator-a")
    assert error.reason == "NOT_FOUND"
    events = [one for one in await world.events() if one.action == "KillOperation"]
    assert [(one.resource, one.outcome) for one in events] == [(f"node/{node}", "NOT_FOUND"), (f"node/{node}", "ok")]


async def test_an_agent_that_is_away_is_told_at_once(world: World) -> None:
    def silence(tx: object) -> None:
        tx.get_one(Node, world.ids[NODES[0]]).agent_state = AgentState.SILENT  # type: ignore[attr-defined]

    await world.database.write(silence)
    request = pb.ListCurrentOperationsRequest(node_id=world.ids[NODES[0]])
    error = await world.refusal("MetricService/ListCurrentOperations", request)
    assert (error.reason, error.field) == ("AGENT_SILENT", "node_id")
    assert not world.measured.fleet.deliveries()


async def test_what_the_agent_fails_at_is_told_with_its_code(world: World) -> None:
    world.measured.fleet.fail(Fault("list_current_operations", FailureCode.MONGOD_UNREACHABLE))
    request = pb.ListCurrentOperationsRequest(node_id=world.ids[NODES[0]])
    error = await world.refusal("MetricService/ListCurrentOperations", request)
    assert error.reason == "MONGOD_UNREACHABLE"


async def test_what_was_lost_of_a_node_is_shown_with_it(world: World) -> None:
    node = world.ids[NODES[0]]
    request = node_pb2.GetNodeRequest(node_id=node)
    assert not (await world.call("NodeService/GetNode", request)).node.telemetry_losses
    intake = world.measured.ingest.open(node, world.ids["orders"])
    long = [telemetry_pb2.LogRecord(sequence=number, text="x" * 10**5, time=stamp(START)) for number in (1, 2, 3)]
    dropped = telemetry_pb2.Dropped(reason="buffer full", frames=4, logs=1)
    intake.take(telemetry_pb2.ReportRequest(logs=long, dropped=[dropped]))
    losses = (await world.call("NodeService/GetNode", request, "viewer-a")).node.telemetry_losses
    assert [(one.reason, one.count, one.on_node) for one in losses] == [
        ("line cut", 3, False),
        ("buffer full", 5, True),
    ]
