"""What an agent says wrongly, or too much of, is answered with its name, and nobody else notices."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from wap.agent.v1 import command_pb2, report_pb2, stream_pb2, telemetry_pb2

from controlplane.fleet.session import MESSAGES_BURST
from controlplane.store.database import Database
from tests.fleet.driver import CLUSTER, EOF, SERVICE, Agent, ControlPlane, Ended, Line, control_plane, ended
from tests.waiting import eventually

USER, LOAD = "host.cpu.user_percent", "host.load.one_minute"


async def report_of(plane: ControlPlane, node_id: str) -> dict[str, Any]:
    return dict((await plane.node(node_id)).report or {})


FIRST: dict[str, Any] = {
    "heartbeat": stream_pb2.Heartbeat(),
    "command_result": command_pb2.CommandResult(command_id="x"),
    "goodbye": stream_pb2.Goodbye(),
}


@pytest.mark.parametrize("body", FIRST)
async def test_the_first_message_must_be_hello(plane: ControlPlane, body: str) -> None:
    agent = await plane.add_agent()
    async with agent.line() as line:
        await line.say(**{body: FIRST[body]})
        end = await line.ended()
    assert (end.status, end.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION")
    assert (end.field, end.given, end.allowed) == ("body", body, "hello")
    assert await plane.state(agent.node_id) == "WAITING"


async def test_hello_is_said_once(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        await line.say(hello=stream_pb2.Hello(protocol=1))
        end = await line.ended()
    assert (end.status, end.reason, end.given) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "PROTOCOL_VIOLATION",
        "hello",
    )
    assert "heartbeat" in end.allowed


@pytest.mark.parametrize("version", [0, 2, 4_000_000_000])
async def test_another_version_of_the_protocol_is_told_which_one_is_spoken(plane: ControlPlane, version: int) -> None:
    agent = await plane.add_agent()
    async with agent.line() as line:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await line.hello(protocol=version)
    end = ended(refused.value)
    assert (end.status, end.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION")
    assert (end.field, end.given, end.allowed) == ("hello.protocol", str(version), "1")


def raw(method: str) -> Callable[[Line], Any]:
    return lambda line: line.channel.stream_stream(SERVICE + method)()


@pytest.mark.parametrize("method", ["Connect", "Report"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(plane: ControlPlane, method: str) -> None:
    agent = await plane.add_agent()
    async with agent.line() as line:
        call = raw(method)(line)
        await call.write(b"\xff\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    end = ended(refused.value)
    assert (end.status, end.reason, end.field) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "message")


async def test_a_renewal_that_is_no_message_or_no_request_is_an_invalid_argument(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.channel() as channel:
        call = channel.unary_unary(SERVICE + "RenewCertificate")
        for request, field in ((b"\xff\xff", "request"), (b"\x0a\x05hello", "csr_pem")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request)
            end = ended(refused.value)
            assert (end.status, end.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_call_that_does_not_exist_is_named_with_our_version(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(SERVICE + "RunShell")(b"")
    end = ended(refused.value)
    assert (end.status, end.given) == (grpc.StatusCode.UNIMPLEMENTED, SERVICE + "RunShell")
    assert "WAP 0." in end.text


async def test_a_kind_of_message_that_is_not_known_is_an_invalid_argument(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        call = raw("Connect")(line)
        await call.write(stream_pb2.ConnectRequest(hello=stream_pb2.Hello(protocol=1)).SerializeToString())
        await call.read()
        await call.write(b"\xa2\x06\x00")  # field 100
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    end = ended(refused.value)
    assert (end.status, end.field) == (grpc.StatusCode.INVALID_ARGUMENT, "body")


@pytest.mark.parametrize(("size", "fits"), [(3 * 2**20, True), (5 * 2**20, False)])
async def test_a_message_over_four_mebibytes_is_refused(plane: ControlPlane, size: int, fits: bool) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        await line.beat(problem="x" * size)
        if fits:
            found = await eventually(lambda: report_of(plane, agent.node_id), within=15)
            assert len(found["problem"]) == 500
        else:
            end = await line.ended()
            assert end.status is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(4 * 2**20) in end.text


async def test_metadata_over_sixteen_kibibytes_is_refused(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.channel() as channel:
        call = channel.stream_stream(SERVICE + "Connect")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(metadata=(("x-large", "y" * 20_000),)).read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_goodbye_ends_the_stream_in_order(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        await line.say(goodbye=stream_pb2.Goodbye(reason="upgrade"))
        assert (await line.ended()).status is grpc.StatusCode.OK
    await eventually(lambda: _is(plane, agent, "SILENT"), within=8)


async def _is(plane: ControlPlane, agent: Agent, state: str) -> bool:
    return await plane.state(agent.node_id) == state


async def test_a_flood_ends_its_own_stream_and_nobody_elses(plane: ControlPlane) -> None:
    hostile, honest = await plane.add_agent(), await plane.add_agent()
    async with honest.session() as quiet, hostile.session() as loud:
        flood = asyncio.create_task(_flood(loud))
        await quiet.beat(problem="heard in the flood")
        await loud.ended()  # with what status a client learns in the middle of its writes depends on the client
        await flood
        found = await eventually(lambda: report_of(plane, honest.node_id), within=15)
        assert found["problem"] == "heard in the flood"
        assert await plane.state(honest.node_id) == "CONNECTED"
        # A new stream gives no new allowance: what was spent stays spent.
        async with hostile.channel() as channel:
            refused = [end for end in [await _open(channel) for _ in range(10)] if end is not None]
        assert {(end.status, end.reason) for end in refused} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
        }
        assert "messages a second" in refused[0].allowed
        (event,) = await plane.audit("agent.refused")
        assert (event.resource, event.outcome) == (f"node/{hostile.node_id}", "TOO_MANY_ATTEMPTS")


async def test_what_the_allowance_covers_is_taken(plane: ControlPlane) -> None:
    """The control of the flood: as many messages as an agent may have to say at once pass."""
    agent = await plane.add_agent()
    async with agent.session() as line:
        for number in range(int(MESSAGES_BURST) - 50):
            await line.beat(problem=str(number))
        last = str(int(MESSAGES_BURST) - 51)

        async def arrived() -> bool:
            return (await report_of(plane, agent.node_id)).get("problem") == last

        assert await eventually(arrived, within=10)


async def _flood(line: Line) -> None:
    for _ in range(20_000):
        try:
            await line.call.write(stream_pb2.ConnectRequest(heartbeat=stream_pb2.Heartbeat()))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return


async def _open(channel: Any) -> Ended | None:
    """How a new stream is refused; None when it is not."""
    call: Any = channel.stream_stream(
        SERVICE + "Connect",
        request_serializer=stream_pb2.ConnectRequest.SerializeToString,
        response_deserializer=stream_pb2.ConnectResponse.FromString,
    )()
    try:
        await Line(channel, call).hello()
    except grpc.aio.AioRpcError as error:
        return ended(error)
    return None


async def test_no_report_of_one_agent_breaks_the_writing_of_the_others(database: Database) -> None:
    """A time that is no date, figures that are no numbers, NUL, far too much: all of it in one report."""
    async with control_plane(database) as plane:
        hostile, honest = await plane.add_agent(), await plane.add_agent()
        report = report_pb2.NodeReport(
            time=timestamp_pb2.Timestamp(seconds=2**60, nanos=-5),
            mongod_state=99,  # type: ignore[arg-type]
            problem="nul\0" * 1000,
            lag_seconds=float("nan"),
            cpu_percent=float("inf"),
            members=[report_pb2.MemberView(host="h\0" * 999, lag_seconds=float("-inf")) for _ in range(500)],
            disk_total_bytes=2**64 - 1,
        )
        async with hostile.session() as loud, honest.session() as quiet:
            await loud.say(heartbeat=stream_pb2.Heartbeat(report=report))
            await quiet.beat(problem="fine")
            assert (await eventually(lambda: report_of(plane, honest.node_id), within=15))["problem"] == "fine"
            kept = await eventually(lambda: report_of(plane, hostile.node_id), within=15)
            assert len(kept["members"]) == 50
            assert "\0" not in str(kept)
            assert kept["time"].startswith(str(plane.clock.now().year))


@pytest.mark.parametrize("command_id", ["nul\0", "x" * 256])
async def test_an_id_that_no_command_can_have_is_refused(database: Database, command_id: str) -> None:
    async with control_plane(database) as plane:
        agent = await plane.add_agent()
        async with agent.session() as line:
            await line.answer(command_id)
            end = await line.ended()
        assert (end.status, end.field) == (grpc.StatusCode.INVALID_ARGUMENT, "command_id")


def frame(
    plane: ControlPlane, sequence: int, *values: float, set_id: int = 1, off: int = 0
) -> telemetry_pb2.SampleFrame:
    at = timestamp_pb2.Timestamp(seconds=int(plane.clock.now().timestamp()) + off)
    return telemetry_pb2.SampleFrame(sequence=sequence, time=at, metric_set_id=set_id, values=values)


async def test_bad_samples_are_dropped_one_by_one_and_all_are_acknowledged(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.channel() as channel:
        call: Any = channel.stream_stream(
            SERVICE + "Report",
            request_serializer=telemetry_pb2.ReportRequest.SerializeToString,
            response_deserializer=telemetry_pb2.ReportResponse.FromString,
        )()
        frames = [
            frame(plane, 1, 1.0, 2.0),
            frame(plane, 2, float("nan"), 2.0),
            frame(plane, 3, 1.0),
            frame(plane, 4, 5.0, 6.0, off=-7201),
            frame(plane, 5, 5.0, 6.0, off=10**14),
            frame(plane, 6, 7.0, 8.0, set_id=2),
            frame(plane, 7, 3.0, 4.0),
            frame(plane, 7, 9.0, 9.0),
        ]
        sets = [telemetry_pb2.MetricSet(id=1, names=[USER, LOAD])]
        await call.write(telemetry_pb2.ReportRequest(metric_sets=sets, frames=frames))
        assert (await call.read()).frame_sequence == 7
        kept = [(one.node_id, one.cluster_id, dict(one.values)) for one in plane.frames]
        me = (agent.node_id, CLUSTER)
        assert kept == [(*me, {USER: 1.0, LOAD: 2.0}), (*me, {LOAD: 2.0}), (*me, {USER: 3.0, LOAD: 4.0})]


async def test_a_second_telemetry_stream_ends_the_first(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.line() as line:
        first = raw("Report")(line)
        await first.write(b"")
        assert await first.read() is not EOF
        second = raw("Report")(line)
        await second.write(b"")
        assert await second.read() is not EOF
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await first.read()
    assert ended(refused.value).status is grpc.StatusCode.ABORTED


async def test_a_stopping_control_plane_ends_streams_in_order_and_leaves_the_truth(sqlite: Database) -> None:
    async with control_plane(sqlite) as plane:
        agent = await plane.add_agent()
        async with agent.session() as line:
            assert await plane.state(agent.node_id) == "CONNECTED"
            await plane.down()
            assert (await line.ended()).status is grpc.StatusCode.OK
        assert await plane.state(agent.node_id) == "SILENT"
        answer = await agent.attempt()
        assert isinstance(answer, Ended)
