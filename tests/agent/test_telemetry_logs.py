"""Log lines on their way: none lost or doubled whatever dies, literals redacted, floods counted and nobody delayed."""

import functools
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pymongo
import pymongo.errors
import pytest
from wap.agent.v1 import command_pb2, telemetry_pb2

from agent.mongod.rotation import MOST_BYTES, remove_old
from agent.telemetry.buffer import Buffer
from agent.telemetry.follow import NOT_READABLE, RATE_LIMIT, LogSource, agent_record, mongod_record
from collector.limit import Limiter
from tests.agent.machine import Machine
from tests.agent.wire import HEARTBEAT_SECONDS, Wire
from tests.running import running
from tests.waiting import eventually

BIG = 64 * 1024 * 1024
PASSWORD = "canary-password-55512"


def mongod_line(number: int, severity: str = "I", at: str = "2026-01-01T00:00:00.000+00:00") -> bytes:
    line = {"t": {"$date": at}, "s": severity, "c": "NETWORK", "id": 22943, "ctx": "listener", "msg": f"line {number}"}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


async def texts(buffer: Buffer) -> list[str]:
    return [record.text for record in (await buffer.pending(BIG)).lines]


async def test_each_line_comes_once_through_rotation_and_restarts(tmp_path: Path) -> None:
    path, state = tmp_path / "mongod.log", tmp_path / "t.db"
    count = itertools.count()
    for turn in range(6):
        buffer = Buffer(state)
        async with running(LogSource("log", path, buffer, mongod_record, Limiter(10**9)).run()):
            with path.open("ab") as log:
                log.writelines(mongod_line(next(count)) for _ in range(700))
            if turn % 2:
                path.rename(tmp_path / f"mongod.log.2026-01-0{turn}")
                path.write_bytes(mongod_line(next(count)))
            if turn % 3 == 0:
                await eventually(functools.partial(_has, buffer, 700 * (turn + 1)), within=10)
        await buffer.close()
    buffer = Buffer(state)
    total = next(count)
    async with running(LogSource("log", path, buffer, mongod_record, Limiter(10**9)).run()):
        await eventually(lambda: _has(buffer, total), within=10)
    assert await texts(buffer) == [f"line {number}" for number in range(total)]
    await buffer.close()


async def _has(buffer: Buffer, least: int) -> bool:
    return len(await texts(buffer)) >= least


async def test_a_flood_is_limited_by_the_minute_but_for_warnings_and_counted(tmp_path: Path) -> None:
    path, buffer = tmp_path / "mongod.log", Buffer(tmp_path / "t.db")
    with path.open("wb") as log:
        log.writelines(mongod_line(number, "W" if number % 100 == 0 else "I") for number in range(5000))
        log.write(mongod_line(5000, at="2026-01-01T00:01:00.000+00:00"))
    source = LogSource("log", path, buffer, mongod_record)
    async with running(source.run()):
        await eventually(lambda: _has(buffer, 1051), within=10)
    found = [record.severity for record in (await buffer.pending(BIG)).lines]
    assert (found.count("W"), found.count("I")) == (50, 1001)
    assert source.dropped[RATE_LIMIT] == 4950 - 1000
    await buffer.close()


async def test_a_line_that_cannot_be_read_is_counted_and_holds_up_nothing(tmp_path: Path) -> None:
    path, buffer = tmp_path / "mongod.log", Buffer(tmp_path / "t.db")
    path.write_bytes(b"".join(mongod_line(number) for number in range(20)))

    def record(line: bytes) -> telemetry_pb2.LogRecord:
        if b"line 7" in line:
            raise ZeroDivisionError
        return mongod_record(line)

    source = LogSource("log", path, buffer, record)
    async with running(source.run()):
        await eventually(lambda: _has(buffer, 19), within=10)
    assert source.dropped[NOT_READABLE] == 1
    await buffer.close()


HOSTILE = [
    b"\xff\xfe\x00\x1b[31m",
    b'{"t":{"$date":"2026-01-01T00:00:00Z"},"s":"I","c":"QUERY","id":51803,"attr":{"command":[1,{"a":null}]}}',
    b'{"t":5,"s":[],"c":{},"id":"x","ctx":7,"msg":{"a":1},"attr":"text"}',
    b'{"msg":"\\ud800 lone","attr":{"\\udfff":"\\ud800"}}',
    b'{"t":{"$date":"9999-99-99"},"id":-1}',
    b'{"id":99999999999999999999,"s":"I"}',
    b"x" * 1_000_000,
    b"[" * 100_000,
    b'{"attr":' * 2000 + b"1" + b"}" * 2000,
    b"",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_lines_become_records_that_the_wire_takes(line: bytes) -> None:
    for record in (mongod_record(line), agent_record(line)):
        assert record.ByteSize() < 100_000
        assert "\x1b" not in record.SerializeToString().decode(errors="replace")


def test_a_line_of_the_agent_is_told_as_the_agents() -> None:
    line = {"timestamp": "2026-01-01T00:00:00.5+00:00", "level": "warning", "logger": "agent.x", "event": "e", "pid": 7}
    record = agent_record(json.dumps(line).encode())
    assert (record.component, record.severity, record.context, record.text) == ("agent", "W", "agent.x", "e")
    assert (record.attributes, record.time.nanos) == ('{"pid": 7}', 500_000_000)
    for odd in (b"\xff\x1b[31m no json", b"[1]", b"{}", b'{"timestamp": 5}', b""):
        assert agent_record(odd).text.isprintable()


def test_old_logs_are_removed_and_new_ones_kept(tmp_path: Path) -> None:
    for day in range(1, 8):
        (tmp_path / f"mongod.log.2026-01-0{day}T00-00-00").touch()
    (tmp_path / "mongod.log").touch()
    remove_old(tmp_path / "mongod.log", kept=2)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["mongod.log", "mongod.log.2026-01-06T00-00-00", "mongod.log.2026-01-07T00-00-00"]


async def test_lines_of_a_real_mongod_come_once_through_its_rotation_and_the_agents_death(
    machine: Machine, other_end: Wire
) -> None:
    heard = other_end.peers[machine.id].telemetry
    await machine.start_mongod()
    await machine.initiate()
    roles = [command_pb2.DatabaseRole(role="root", database="admin")]
    await machine.order(ensure_user=command_pb2.EnsureUser(username="admin", password=PASSWORD, roles=roles))
    with machine.client(username="admin", password=PASSWORD) as client:
        client.admin.command({"profile": 0, "slowms": 0})
        for number in range(5):
            client["shop"]["orders"].insert_one({"_id": number, "secret": PASSWORD})
            list(client["shop"]["orders"].find({"secret": PASSWORD, "n": {"$gt": number}}).sort("n"))
            if number == 2:
                await eventually(functools.partial(_rotated, client), within=15)
                await machine.end_agent(signal.SIGKILL)
                machine.start_agent()
        client.admin.command({"profile": 0, "slowms": 100})
        await eventually(functools.partial(_rotated, client), within=15)
    finds = await eventually(lambda: _finds(heard.lines, 5), within=60)
    assert {find.namespace for find in finds} == {"shop.orders"}
    assert all(find.collection_scan for find in finds)
    assert len({find.predicate_shape for find in finds}) == 1
    assert PASSWORD not in "".join(f"{line.text} {line.attributes} {line.slow_query}" for line in heard.lines)
    numbers = [line.sequence for line in heard.lines]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    written = sum(_lines_of(path) for path in machine.paths.logs.glob("mongod.log*"))
    await eventually(lambda: sum(line.component != "agent" for line in heard.lines) >= written, within=20)
    assert any(line.component == "agent" and line.text == "agent begins" for line in heard.lines)


def _rotated(client: "pymongo.MongoClient[dict[str, Any]]") -> bool:
    try:
        client.admin.command({"logRotate": "server"})
    except pymongo.errors.OperationFailure:  # the last rotation was in the same second, of which a file has its name
        return False
    return True


def _finds(lines: list[telemetry_pb2.LogRecord], least: int) -> list[telemetry_pb2.SlowQuery]:
    found = [line.slow_query for line in lines if line.HasField("slow_query")]
    finds = [query for query in found if query.operation == "find" and query.namespace == "shop.orders"]
    return finds if len(finds) >= least else []


def _lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


async def test_a_log_that_is_large_is_rotated_by_its_mongod(machine: Machine, other_end: Wire) -> None:
    heard = other_end.peers[machine.id].telemetry
    await machine.start_mongod()
    log = machine.paths.mongod_log
    os.truncate(log, MOST_BYTES + 1)  # a hole, which is also a line without an end
    await eventually(lambda: list(log.parent.glob("mongod.log.2*")), within=25)
    await eventually(lambda: 0 < log.stat().st_size < MOST_BYTES, within=10)
    await eventually(lambda: any(line.text == "mongod's log was rotated" for line in heard.lines), within=10)
    await machine.initiate()
    await eventually(
        lambda: any(line.component == "REPL" and "PRIMARY" in line.attributes for line in heard.lines), within=30
    )


async def test_a_flood_of_lines_delays_no_heartbeat(machine: Machine, other_end: Wire) -> None:
    """5,000 lines a second for ten seconds; the agent takes a small part of a core meanwhile."""
    peer = other_end.peers[machine.id]
    assert machine.agent is not None
    process = psutil.Process(machine.agent.pid)
    began, at_first = time.monotonic(), len(peer.heard)
    used = sum(process.cpu_times()[:2])
    written = 0

    def flooded() -> bool:
        nonlocal written
        due = int((time.monotonic() - began) * 5000)
        with machine.paths.mongod_log.open("ab") as log:
            log.writelines(mongod_line(number) for number in range(written, due))
        written = due
        return written >= 50_000

    await eventually(flooded, within=30)
    seconds = time.monotonic() - began
    cores = (sum(process.cpu_times()[:2]) - used) / seconds
    beats = [at for at, message in peer.heard[at_first:] if message.HasField("heartbeat")]
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 2 * HEARTBEAT_SECONDS
    assert cores < 0.3, cores
    drops = peer.telemetry.dropped
    await eventually(lambda: RATE_LIMIT in drops and drops[RATE_LIMIT].logs >= written - 1000, within=60)
    assert sum(line.text.startswith("line ") for line in peer.telemetry.lines) == 1000
