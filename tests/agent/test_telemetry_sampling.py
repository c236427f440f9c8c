"""Samples of a real node: paced, complete, without spikes, and there also while mongod is not."""

import asyncio
import contextlib
import itertools
import signal
import statistics
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pymongo
import pymongo.errors
import pytest
from wap.agent.v1 import command_pb2

from agent.telemetry.pace import USUAL_SECONDS, Pace
from collector.catalog import CATALOG, COLLECTION
from tests.agent.machine import Machine
from tests.agent.wire import Wire, command
from tests.running import running
from tests.waiting import eventually

PASSWORD = "canary-password-90210"
ADMIN = {"username": "admin", "password": PASSWORD}
LONGEST = 200
MIB = 1024 * 1024


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time


async def test_ticks_are_even_and_hurried_for_a_while() -> None:
    clock, ticks = Clock(), list[float]()
    pace = Pace(clock.now)

    async def tick() -> None:
        await pace.tick()
        ticks.append(clock.time)

    await asyncio.wait_for(tick(), 1)  # the first is due at once
    assert pace.interval == USUAL_SECONDS
    pace.hurry(1, 30)
    assert pace.interval == 1
    for late in (0.0, 0.2, 0.0, 3.0):
        clock.time = ticks[0] + len(ticks) + late
        await asyncio.wait_for(tick(), 1)
    assert ticks == [100, 101, 102.2, 103, 107]
    clock.time = 108  # what was missed is not made up for: the next is due a second after
    await asyncio.wait_for(tick(), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tick(), 0.05)
    clock.time = 131
    assert pace.interval == USUAL_SECONDS, "nobody has to take it back"


async def test_a_hurry_wakes_a_tick_that_waits() -> None:
    pace = Pace()
    await pace.tick()
    async with running(pace.tick()) as waiting:
        pace.hurry(1, 60)
        await eventually(waiting.done, within=3)


@pytest.fixture
async def primary(machine: Machine) -> Machine:
    """A node that is primary of its own set, with a user, sampled every second."""
    await machine.order(set_sampling=command_pb2.SetSampling(interval_seconds=1, for_seconds=600))
    await machine.start_mongod()
    await machine.initiate()
    roles = [command_pb2.DatabaseRole(role="root", database="admin")]
    await machine.order(ensure_user=command_pb2.EnsureUser(username="admin", password=PASSWORD, roles=roles))
    return machine


async def test_a_node_is_sampled_with_its_mongod_its_collections_and_its_agent(
    primary: Machine, other_end: Wire
) -> None:
    heard = other_end.peers[primary.id].telemetry
    with primary.client(**ADMIN) as client:
        client["shop"]["orders"].insert_many([{"_id": number} for number in range(1000)])
    await primary.end_agent(signal.SIGTERM)  # a new agent looks at collections at once, not after a minute
    primary.start_agent()
    await eventually(lambda: other_end.peers[primary.id].sessions == 2, within=20)
    await primary.order(set_sampling=command_pb2.SetSampling(interval_seconds=1, for_seconds=600))
    before = len(heard.samples())
    rows = await eventually(
        lambda: [row for row in heard.samples()[before:] if row.get("replica_set.is_primary") == 1][7:], within=20
    )
    newest = rows[-1]
    assert newest["host.disk.total_bytes"] == psutil.disk_usage(str(primary.disk)).total
    assert newest["mongod.connections.current"] > 1
    assert newest["replica_set.oplog_window_seconds"] >= 0
    assert newest["mongod.process.resident_bytes"] > 10 * 1024 * 1024
    assert newest["agent.connection_losses"] == 0
    assert newest["agent.resident_bytes"] > 10 * 1024 * 1024
    assert "mongod.opcounters.query_per_second" in newest
    assert {name for row in heard.samples() for name in row} <= CATALOG.keys()
    sizes = await eventually(lambda: heard.samples("shop.orders"), within=75)
    assert sizes[-1]["collection.documents"] == 1000
    assert sizes[-1].keys() <= set(COLLECTION)
    await eventually(lambda: any(row.get("mongod.storage.documents") == 1000 for row in heard.samples()), within=15)
    assert len({names.id for _, names in heard.frames}) < 12, "a set of names is not made anew at each tick"
    times = [frame.time.ToMilliseconds() / 1000 for frame, names in heard.frames if not names.object][-6:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert statistics.median(gaps) == pytest.approx(1.0, abs=0.15)
    other_end.cut(primary.id)
    await eventually(lambda: heard.samples()[-1]["agent.connection_losses"] == 1, within=20)


async def test_a_mongod_that_hangs_or_dies_costs_its_own_figures_only(primary: Machine, other_end: Wire) -> None:
    heard = other_end.peers[primary.id].telemetry
    await eventually(lambda: any("mongod.connections.current" in row for row in heard.samples()), within=20)
    pid = primary.mongod_pid()
    psutil.Process(pid).suspend()
    before = len(heard.samples())
    blind = await eventually(lambda: heard.samples()[before + 2 :], within=20)
    assert all("mongod.connections.current" not in row for row in blind)
    assert all("host.cpu.used_percent" in row and "mongod.process.resident_bytes" in row for row in blind)
    psutil.Process(pid).resume()
    before = len(heard.samples())
    await eventually(lambda: any("mongod.connections.current" in row for row in heard.samples()[before:]), within=20)
    psutil.Process(pid).kill()
    before = len(heard.samples())
    await eventually(lambda: any(row.get("mongod.restarts") == 1 for row in heard.samples()[before:]), within=40)
    rates = await eventually(lambda: _rates(heard.samples()[before:]), within=20)
    assert max(rates) < 1000, "a restart is no spike"


def _rates(rows: list[dict[str, float]]) -> list[float]:
    return [value for row in rows for name, value in row.items() if "opcounters" in name]


@contextlib.contextmanager
def slow_find(machine: Machine) -> Iterator[list[Exception]]:
    """A client with an operation that takes a minute, unless it is ended: how it ended."""
    ended: list[Exception] = []

    def find() -> None:
        with machine.client(**ADMIN, appname="reports") as client:
            try:
                where = "function() { sleep(100); return true; }"
                list(client["shop"]["orders"].find({"secret": PASSWORD, "$where": where}))
            except pymongo.errors.PyMongoError as error:
                ended.append(error)

    with machine.client(**ADMIN) as client:
        client["shop"]["orders"].insert_many([{"secret": PASSWORD} for _ in range(600)])
    thread = threading.Thread(target=find)
    thread.start()
    try:
        yield ended
    finally:
        with machine.client(**ADMIN) as client:
            for operation in client.admin.aggregate([{"$currentOp": {}}, {"$match": {"appName": "reports"}}]):
                client.admin.command({"killOp": 1, "op": operation["opid"]})
        thread.join(30)


async def test_a_slow_operation_of_a_client_is_listed_without_literals_and_ended(primary: Machine) -> None:
    look = command_pb2.ListCurrentOperations(limit=LONGEST)
    with slow_find(primary) as ended:

        async def reports() -> list[command_pb2.CurrentOperation]:
            found = (await primary.order(list_current_operations=look)).list_current_operations.operations
            assert not any(operation.application == "wap-agent" and operation.killable for operation in found)
            seconds = [operation.running_seconds for operation in found]
            assert seconds == sorted(seconds, reverse=True)
            return [operation for operation in found if operation.application == "reports"]

        (operation,) = await eventually(reports, within=20)
        assert (operation.namespace, operation.killable) == ("shop.orders", True)
        assert operation.client
        assert "secret" in operation.command_shape
        assert PASSWORD not in str(operation)
        await primary.order(kill_operation=command_pb2.KillOperation(id=operation.id))
        await eventually(lambda: ended, within=20)
        assert isinstance(ended[0], pymongo.errors.OperationFailure)
        assert ended[0].code == 11601  # Interrupted

        async def gone() -> bool:
            refusal = await primary.refusal(kill_operation=command_pb2.KillOperation(id=operation.id))
            return refusal.field == "id" and "under way" in refusal.allowed

        await eventually(gone, within=10)


async def test_operations_of_mongod_and_of_the_agent_are_not_ended(primary: Machine) -> None:
    with primary.client(**ADMIN) as client:
        own = list(client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}]))
    threads = [row["opid"] for row in own if row.get("active") and not row.get("client") and row.get("opid")]
    assert threads
    refusals = [await primary.refusal(kill_operation=command_pb2.KillOperation(id=number)) for number in threads[:5]]
    assert any("mongod's or the agent's own" in refusal.message for refusal in refusals)


async def test_a_look_waits_for_no_order_and_leaves_no_trace(primary: Machine, other_end: Wire) -> None:
    """An order that waits for a volume goes on and on meanwhile."""
    order = command_pb2.PrepareVolume(volume_id="vol-ffffffff")
    other_end.deliver(primary.id, command("slow", within=20, prepare_volume=order))
    await eventually(lambda: '"command begins", "command": "slow"' in primary.log(), within=10)
    loop = asyncio.get_running_loop()
    began = loop.time()
    stale = command("look", epoch=0, list_current_operations=command_pb2.ListCurrentOperations(limit=1))
    first = await other_end.order(primary.id, stale)
    again = await other_end.order(primary.id, stale)
    assert not first.HasField("failure"), first
    assert not again.replayed
    assert loop.time() - began < 3
    assert not other_end.peers[primary.id].results("slow"), "the control: the order is still under way"
    assert '"command": "look"' not in primary.log()


async def test_wrong_wishes_are_refused_with_the_field(machine: Machine) -> None:
    bad: list[tuple[str, dict[str, Any]]] = [
        ("interval_seconds", {"set_sampling": command_pb2.SetSampling(interval_seconds=0, for_seconds=5)}),
        ("interval_seconds", {"set_sampling": command_pb2.SetSampling(interval_seconds=11, for_seconds=5)}),
        ("for_seconds", {"set_sampling": command_pb2.SetSampling(interval_seconds=1)}),
        ("for_seconds", {"set_sampling": command_pb2.SetSampling(interval_seconds=1, for_seconds=601)}),
        ("limit", {"list_current_operations": command_pb2.ListCurrentOperations()}),
        ("limit", {"list_current_operations": command_pb2.ListCurrentOperations(limit=201)}),
    ]
    for field, body in bad:
        assert (await machine.refusal(**body)).field == field
    kill, look = command_pb2.KillOperation(id=1), command_pb2.ListCurrentOperations(limit=1)
    assert (await machine.refusal(kill_operation=kill)).retryable, "mongod does not run"
    assert (await machine.refusal(list_current_operations=look)).retryable


async def test_the_agent_keeps_to_its_budget(primary: Machine, other_end: Wire) -> None:
    """At the usual pace: a small part of a core, and 60 MB beside the pages of libraries that the kernel may drop."""
    assert primary.agent is not None
    await primary.end_agent(signal.SIGTERM)
    primary.start_agent()
    heard = other_end.peers[primary.id].telemetry
    process = psutil.Process(primary.agent.pid)
    before = len(heard.samples())
    await eventually(lambda: len(heard.samples()) > before + 1, within=40)
    used, began = sum(process.cpu_times()[:2]), asyncio.get_running_loop().time()
    await eventually(lambda: len(heard.samples()) > before + 4, within=60)
    cores = (sum(process.cpu_times()[:2]) - used) / (asyncio.get_running_loop().time() - began)
    memory = process.memory_full_info()
    print(
        f"{100 * cores:.2f} % of a core, {memory.uss / MIB:.0f} MB of its own, {memory.rss / MIB:.0f} MB with libraries"
    )
    assert cores < 0.025
    assert memory.uss < 60 * MIB
