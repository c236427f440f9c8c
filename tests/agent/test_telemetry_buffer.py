"""The telemetry buffer: bounded, numbered without repetition, and whole after crashes, full disks and damage."""

import asyncio
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from wap.agent.v1 import telemetry_pb2

from agent.telemetry.buffer import BUFFER_FULL, NOT_WRITTEN, Buffer
from agent.telemetry.frames import Names, Sample
from tests.agent.wire import values_of

BIG = 1024 * 1024


def sample(value: float, thing: str = "") -> Sample:
    return Sample(1_700_000_000 + value, thing, ("a", "b"), {"a": value, "b": -value})


def line(text: str) -> telemetry_pb2.LogRecord:
    return telemetry_pb2.LogRecord(text=text)


async def numbers(buffer: Buffer) -> list[int]:
    return [frame.sequence for frame in (await buffer.pending(BIG)).frames]


async def texts(buffer: Buffer) -> list[str]:
    return [record.text for record in (await buffer.pending(BIG)).lines]


async def test_what_was_added_waits_in_order_until_it_is_acknowledged(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "t.db")
    news = buffer.news()
    assert await buffer.add([sample(1), sample(2), sample(3, "db.c")], [line("x"), line("y")])
    assert news.is_set()
    pending = await buffer.pending(BIG)
    found = [values_of(frame, pending.sets[frame.metric_set_id]) for frame in pending.frames]
    assert found == [{"a": 1, "b": -1}, {"a": 2, "b": -2}, {"a": 3, "b": -3}]
    assert [pending.sets[frame.metric_set_id].object for frame in pending.frames] == ["", "", "db.c"]
    assert [frame.time.seconds for frame in pending.frames] == [1_700_000_001, 1_700_000_002, 1_700_000_003]
    first = pending.frames[0].sequence
    assert [frame.sequence for frame in pending.frames] == [first, first + 1, first + 2]
    assert [record.text for record in pending.lines] == ["x", "y"]
    await buffer.acknowledge(first + 1, pending.lines[0].sequence)
    assert await numbers(buffer) == [first + 2]
    assert await texts(buffer) == ["y"]
    await buffer.acknowledge(first + 2, pending.lines[1].sequence)
    assert not await buffer.pending(BIG)
    assert buffer.bytes == 0
    await buffer.close()


async def test_what_is_no_number_never_leaves_the_node(tmp_path: Path) -> None:
    buffer, names = Buffer(tmp_path / "t.db"), Names()
    await buffer.add([names.sample(1.0, {"a": math.nan, "b": math.inf, "c": 1.0, "d": -math.inf})])
    await buffer.add([names.sample(2.0, {"c": 2.0})])  # the same set, most of it absent
    pending = await buffer.pending(BIG)
    assert all(math.isfinite(value) for frame in pending.frames for value in frame.values)
    assert [list(frame.absent) for frame in pending.frames] == [[0, 1, 3], [0, 1, 3]]
    assert len(pending.sets) == 1
    await buffer.close()


async def test_a_restart_goes_on_with_the_numbers_and_a_lost_file_goes_beyond_them(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    first = Buffer(path, "boot 1", now=lambda: 1000.0)
    await first.add([sample(1), sample(2)], remember={"log": "17"})
    before = await numbers(first)
    assert before[0] > 1000 * 1_000_000
    await first.acknowledge(before[-1], 0)  # all gone: only the file knows what was given
    crashed = Buffer(path, "boot 1", now=lambda: 2000.0)  # the first was never closed
    assert await crashed.remembered("log") == "17"
    await crashed.add([sample(3)])
    assert await numbers(crashed) == [before[-1] + 1]
    await crashed.close()
    rebooted = Buffer(path, "boot 2", now=lambda: 2000.0)  # the machine may have lost the newest numbers
    await rebooted.add([sample(4)])
    assert (await numbers(rebooted))[-1] > 2000 * 1_000_000
    await rebooted.close()
    path.unlink()
    fresh = Buffer(path, "boot 2", now=lambda: 3000.0)
    await fresh.add([sample(5)])
    assert (await numbers(fresh))[0] > 3000 * 1_000_000
    await fresh.close()
    await first.close()


async def test_an_old_file_that_came_back_is_numbered_beyond_what_the_control_plane_has(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "t.db", now=lambda: 1.0)
    await buffer.add([sample(1), sample(2)], [line("x")])
    had = (await numbers(buffer))[-1] + 500
    await buffer.acknowledge(had, 0)
    assert await numbers(buffer) == [had + 1, had + 2], "nothing that waits is taken for a repeat"
    await buffer.add([sample(3)])
    assert (await numbers(buffer))[-1] == had + 3
    assert await texts(buffer) == ["x"]
    await buffer.close()


@pytest.mark.parametrize("bound", [20_000, 10**9])
async def test_the_bound_drops_the_oldest_and_counts_them(tmp_path: Path, bound: int) -> None:
    """With the control: without a bound all of it stays."""
    buffer = Buffer(tmp_path / "t.db", most_frame_bytes=bound, most_line_bytes=bound)
    for number in range(100):
        await buffer.add([sample(number)], [line(f"{number}/{turn} " + "x" * 300) for turn in range(10)])
    kept = await texts(buffer)
    dropped = buffer.lines_dropped[BUFFER_FULL]
    assert len(kept) + dropped == 1000
    assert kept[-1].startswith("99/9 ")
    assert kept == [f"{number}/{turn} " + "x" * 300 for number in range(100) for turn in range(10)][dropped:]
    assert len(await numbers(buffer)) == 100, "a flood of lines costs no samples"
    assert (dropped > 900) == (bound == 20_000)
    assert (buffer.bytes <= 2 * bound) == (bound == 20_000) or dropped == 0
    await buffer.close()
    again = Buffer(tmp_path / "t.db", most_frame_bytes=bound, most_line_bytes=bound)
    assert await texts(again) == kept
    assert again.bytes == buffer.bytes
    await again.close()


def bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


async def test_an_hour_without_a_control_plane_fits(tmp_path: Path) -> None:
    """360 ticks of 150 figures, 200 namespaces of 11 each minute, 1,000 lines of 450 bytes a minute."""
    names, buffer = Names(), Buffer(tmp_path / "t.db")
    node = {f"group.figure_{number}": number / 7 for number in range(150)}
    collection = {f"collection.figure_{number}": number / 7 for number in range(11)}
    of_collections = Names()
    for minute in range(60):
        samples = [names.sample(minute * 60 + 10 * turn, node) for turn in range(6)]
        samples += [of_collections.sample(minute * 60, collection, f"shop.c{number}") for number in range(200)]
        assert await buffer.add(samples, [line("x" * 450)] * 1000)
    assert not buffer.frames_dropped.total()
    assert not buffer.lines_dropped.total()
    assert buffer.bytes < 40 * BIG
    assert await asyncio.to_thread(bytes_in, tmp_path) < 60 * BIG
    await buffer.close()


async def test_positions_and_lines_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    buffer = Buffer(path)
    await buffer.add(lines=[line("kept")], remember={"log": "1"})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON remembered BEGIN SELECT RAISE(ABORT, 'full'); END")
    assert not await buffer.add([sample(1)], [line("lost")], remember={"log": "2"})
    assert await texts(buffer) == ["kept"]
    assert await buffer.remembered("log") == "1"
    assert buffer.frames_dropped[NOT_WRITTEN] == 1
    assert not buffer.lines_dropped[NOT_WRITTEN], "lines are read again"
    other.execute("DROP TRIGGER full")
    other.close()
    assert await buffer.add(lines=[line("read again")], remember={"log": "2"})
    assert await texts(buffer) == ["kept", "read again"]
    await buffer.close()


async def test_what_a_full_disk_does_not_let_be_deleted_is_not_sent_again(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "t.db")
    await buffer.add([sample(1)], [line("x")])
    await buffer.add([sample(2)], [line("y")])
    first = await buffer.pending(BIG)
    other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE DELETE ON frame BEGIN SELECT RAISE(ABORT, 'full'); END")
    await buffer.acknowledge(first.frames[0].sequence, first.lines[0].sequence)
    assert await numbers(buffer) == [first.frames[1].sequence]
    assert await texts(buffer) == ["y"]
    other.execute("DROP TRIGGER full")
    other.close()
    await buffer.acknowledge(first.frames[1].sequence, first.lines[1].sequence)
    assert buffer.bytes == 0
    await buffer.close()


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 8192 + content[8292:])


def replace(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


@pytest.mark.parametrize("damage", [cut_in_half, overwrite, replace])
async def test_a_damaged_file_is_begun_anew_with_numbers_beyond(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "t.db"
    buffer = Buffer(path, now=lambda: 1000.0)
    await buffer.add([sample(number) for number in range(1000)])
    last = (await numbers(buffer))[-1]
    await buffer.close()
    damage(path)
    anew = Buffer(path, now=lambda: 1001.0)
    assert await anew.add([sample(1)], [line("x")])
    assert (await numbers(anew))[0] > last
    await anew.close()


async def test_a_file_that_is_damaged_at_work_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    buffer = Buffer(path)
    await buffer.add([sample(number) for number in range(5000)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    for _ in range(3):
        await buffer.add([sample(1)])
    assert await buffer.add([sample(2)], [line("x")])
    assert await texts(buffer) == ["x"]
    await buffer.close()


async def test_where_there_can_be_no_file_the_agent_keeps_a_little_in_memory(tmp_path: Path) -> None:
    (tmp_path / "t.db").mkdir()
    buffer = Buffer(tmp_path / "t.db")
    for _ in range(30):
        assert await buffer.add([sample(1)], [line("x" * 1000)] * 100)
    assert 0 < buffer.bytes <= 2 * BIG
    assert buffer.lines_dropped[BUFFER_FULL] > 1000
    await buffer.close()
