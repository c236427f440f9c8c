"""The telemetry stream: nothing twice, nothing lost, at a pace that keeps nobody waiting, whatever ends in between."""

import asyncio
import functools
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from wap.agent.v1 import command_pb2, stream_pb2_grpc, telemetry_pb2

from agent.telemetry.buffer import Buffer
from agent.telemetry.frames import Sample
from agent.telemetry.station import BOOT_ID
from agent.telemetry.stream import Limits, Reports
from tests.agent.conftest import MakeMachine
from tests.agent.control import ControlPlane
from tests.agent.machine import Machine
from tests.agent.wire import HEARTBEAT_SECONDS, Telemetry, Wire, command
from tests.waiting import eventually

BIG = 1024 * 1024
# Streams that break are opened again soon.
QUICK = Limits(first_retry_seconds=0.05, most_retry_seconds=0.2)
UNPACED = Limits(bytes_per_second=1e12, messages_per_second=1e9)


class Server(Wire):
    """Takes the reports of one agent, without TLS. After so many messages the stream breaks before an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = Telemetry()
        self.breaks_after = 10**9
        # Knows nothing any more of what it took on the stream before.
        self.forgets = False

    async def Report(
        self, request_iterator: AsyncIterator[telemetry_pb2.ReportRequest], context: Any
    ) -> AsyncIterator[telemetry_pb2.ReportResponse]:
        self.heard.streams += 1
        if self.forgets:
            self.heard.frame_sequence = 0
        sets: dict[int, telemetry_pb2.MetricSet] = {}
        async for request in request_iterator:
            answer = self.heard.take(request, sets)
            self.breaks_after -= 1
            if self.breaks_after < 0:  # it has the message, and the agent does not hear so
                self.breaks_after = 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
            if answer is not None:
                yield answer


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator["stream_pb2_grpc.AgentServiceAsyncStub"]:
    listener = grpc.aio.server()
    port = listener.add_insecure_port("127.0.0.1:0")
    stream_pb2_grpc.add_AgentServiceServicer_to_server(server, listener)
    await listener.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield stream_pb2_grpc.AgentServiceStub(channel)
    finally:
        await listener.stop(0)


@asynccontextmanager
async def reporting(buffer: Buffer, server: Server, limits: Limits = QUICK) -> AsyncIterator[Reports]:
    reports = Reports(buffer, lambda: [telemetry_pb2.Dropped(reason="test", frames=7)], limits)
    async with serving(server) as stub:
        task = asyncio.create_task(reports.run(stub))
        try:
            yield reports
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def samples(count: int) -> list[Sample]:
    return [Sample(1_700_000_000 + number, "", ("a",), {"a": float(number)}) for number in range(count)]


def lines(count: int, size: int = 1000) -> list[telemetry_pb2.LogRecord]:
    return [telemetry_pb2.LogRecord(text=f"{number} " + "x" * size) for number in range(count)]


async def test_what_waits_goes_out_in_order_and_what_comes_in_follows_at_once(tmp_path: Path) -> None:
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    await buffer.add(samples(3), lines(2))
    async with reporting(buffer, server):
        await eventually(lambda: len(server.heard.frames) == 3 and len(server.heard.lines) == 2, within=15)
        assert [sample["a"] for sample in server.heard.samples()] == [0, 1, 2]
        assert server.heard.dropped["test"].frames == 7
        await eventually(lambda: buffer.bytes == 0, within=15)
        await buffer.add(samples(1))
        await eventually(lambda: len(server.heard.frames) == 4, within=1)
    assert server.heard.streams == 1
    await buffer.close()


async def test_a_stream_that_breaks_after_each_message_sends_nothing_twice(tmp_path: Path) -> None:
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    server.breaks_after = 1
    await buffer.add(samples(50), lines(400))
    async with reporting(buffer, server):
        await eventually(lambda: len(server.heard.lines) >= 400 and buffer.bytes == 0, within=20)
    assert server.heard.streams > 3
    assert len(server.heard.frames) == 50
    assert [line.sequence for line in server.heard.lines] == sorted({line.sequence for line in server.heard.lines})
    await buffer.close()


async def test_the_control_a_control_plane_that_does_not_say_what_it_has_gets_it_twice(tmp_path: Path) -> None:
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    server.breaks_after, server.forgets = 1, True
    await buffer.add(samples(50))
    async with reporting(buffer, server):
        await eventually(lambda: len(server.heard.frames) > 50, within=10)
    await buffer.close()


async def test_a_control_plane_without_room_is_asked_again_and_loses_nothing(tmp_path: Path) -> None:
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    server.heard.full = True
    await buffer.add(samples(5), lines(5))
    async with reporting(buffer, server):
        await eventually(lambda: len(server.heard.requests) > 5, within=15)
        assert len(server.heard.requests) < 50, "not as fast as it can"
        assert not server.heard.frames
        server.heard.full = False
        await eventually(lambda: len(server.heard.frames) == 5 and len(server.heard.lines) == 5, within=15)
    assert server.heard.streams == 1
    await buffer.close()


async def test_a_control_plane_that_says_nothing_is_left(tmp_path: Path) -> None:
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    server.heard.deaf = True
    await buffer.add(samples(5))
    async with reporting(buffer, server, replace(QUICK, answer_seconds=0.3)):
        await eventually(lambda: server.heard.streams >= 3, within=10)
        server.heard.deaf = False
        await eventually(lambda: buffer.bytes == 0, within=10)
    assert len(server.heard.frames) == 5
    await buffer.close()


@pytest.mark.parametrize("paced", [True, False])
async def test_a_backlog_goes_out_at_a_pace(tmp_path: Path, paced: bool) -> None:
    """With the control: without a pace it goes as fast as the other end takes it."""
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    await buffer.add(samples(100), lines(3000))
    async with reporting(buffer, server, Limits() if paced else UNPACED):
        await eventually(lambda: len(server.heard.lines) == 3000, within=20)
    sizes = [size for _, size in server.heard.requests]
    first, last = server.heard.requests[0][0], server.heard.requests[-1][0]
    assert max(sizes) <= Limits().message_bytes * 1.1
    assert len(server.heard.frames) == 100, "samples go first"
    assert (sum(sizes[:-1]) / (last - first) <= 1.1 * BIG) == paced
    await buffer.close()


@pytest.mark.parametrize("most_sets", [10, 10_000])
async def test_a_stream_declares_no_more_sets_than_it_may(tmp_path: Path, most_sets: int) -> None:
    """Namespaces that come and go need a set each; another stream begins with none. With the control."""
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    async with reporting(buffer, server, replace(QUICK, most_sets=most_sets)):
        for number in range(30):
            await buffer.add([Sample(1_700_000_000, f"db.c{number}", ("a",), {"a": 1.0})])
            await eventually(functools.partial(_heard, server, number + 1), within=15, every=0.01)
    assert [names.object for _, names in server.heard.frames] == [f"db.c{number}" for number in range(30)]
    assert server.heard.streams == (3 if most_sets == 10 else 1)
    await buffer.close()


def _heard(server: Server, least: int) -> bool:
    return len(server.heard.frames) >= least


async def test_two_connections_for_a_moment_make_one_stream(tmp_path: Path) -> None:
    """A renewed certificate opens a session beside the one before."""
    buffer, server = Buffer(tmp_path / "t.db"), Server()
    await buffer.add(samples(1))
    async with reporting(buffer, server) as reports, serving(server) as other:
        await eventually(lambda: buffer.bytes == 0, within=15)
        second = asyncio.create_task(reports.run(other))
        await buffer.add(samples(1))
        await eventually(lambda: len(server.heard.frames) == 2, within=15)
        assert server.heard.streams == 1
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    await buffer.close()


async def test_an_outage_is_caught_up_across_a_restart_of_the_agent_and_delays_nothing(
    machine: Machine, other_end: Wire
) -> None:
    """Samples every second while the control plane is away, the agent killed in between, and a backlog on top."""
    peer = other_end.peers[machine.id]
    hurry = command_pb2.SetSampling(interval_seconds=1, for_seconds=600)
    await machine.order(set_sampling=hurry)
    await eventually(lambda: len(peer.telemetry.frames) >= 3, within=10)
    await other_end.down()
    before = len(peer.telemetry.frames)
    await machine.end_agent(signal.SIGKILL)
    boot_id = await asyncio.to_thread(BOOT_ID.read_text)
    buffer = Buffer(machine.paths.telemetry, boot_id.strip())
    await buffer.add(lines=[telemetry_pb2.LogRecord(text="backlog " + "x" * 1000)] * 5000)
    await buffer.close()
    machine.start_agent()
    await eventually(lambda: machine.log().count("not connected") >= 2, within=20)
    await other_end.up()
    await eventually(lambda: peer.sessions >= 2 and peer.connected, within=30)
    began = len(peer.heard)
    sent = asyncio.create_task(_orders(machine, other_end))
    await eventually(lambda: len([line for line in peer.telemetry.lines if "backlog" in line.text]) == 5000, within=30)
    assert max(await sent) < 1.0, "orders are answered at once"
    beats = [at for at, message in peer.heard[began:] if message.HasField("heartbeat")]
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 2 * HEARTBEAT_SECONDS
    numbers = [frame.sequence for frame, _ in peer.telemetry.frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no gap, no repeat"
    assert len(numbers) > before
    lines = [line.sequence for line in peer.telemetry.lines]
    assert lines == list(range(lines[0], lines[0] + len(lines)))


async def test_the_real_control_plane_has_each_sample_once_after_it_was_away(
    control: ControlPlane, make_machine: MakeMachine
) -> None:
    machine = make_machine(control)
    await machine.boot()
    await machine.connected()
    await machine.order(set_sampling=command_pb2.SetSampling(interval_seconds=1, for_seconds=600))
    await eventually(lambda: len(control.frames) > 3, within=20)
    await control.down()
    before = len(control.frames)
    await eventually(lambda: machine.log().count("not connected") >= 3, within=30)
    await control.up()
    await eventually(lambda: len(control.frames) > before + 4, within=30)
    times = [frame.time.timestamp() for frame in control.frames]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0 < gap < 2.5 for gap in gaps[2:]), "none is missing, none came twice"
    assert control.ingest.losses(machine.id) == []
    assert any(line.text == "not connected" and line.component == "agent" for line in control.lines)


async def _orders(machine: Machine, other_end: Wire) -> list[float]:
    loop, took = asyncio.get_running_loop(), []
    for _ in range(5):
        began = loop.time()
        await other_end.order(machine.id, command(create_member_key=command_pb2.CreateMemberKey()))
        took.append(loop.time() - began)
    return took
