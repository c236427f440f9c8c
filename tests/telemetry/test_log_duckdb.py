"""What the embedded log store promises on top of the port: bounded disk, nothing doubled across restarts, no long reads."""

import asyncio
import random
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from controlplane.telemetry.duckdb_file import DuckDBFile
from controlplane.telemetry.duckdb_logs import FULL, TOO_MUCH, DuckDBLogStore
from controlplane.telemetry.port import LogLine, LogQuery, StoreUnavailable
from tests.waiting import eventually

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIB = 2**20


def line(sequence: int, *, ago: timedelta = timedelta(0), node: str = "n1", text: str = "") -> LogLine:
    text = text or f"{sequence * 7919:x}" * 20
    return LogLine(
        node, "c1", sequence, NOW - ago + timedelta(milliseconds=sequence), "REPL", "I", 1, text, "main", "{}"
    )


def noise(seed: int) -> str:
    """Text that does not compress below half."""
    return random.Random(seed).randbytes(4096).hex()


async def sequences(store: DuckDBLogStore, **fields: object) -> list[int]:
    query = replace(LogQuery(["n1"], NOW - 60 * DAY, NOW + DAY, limit=100_000), **fields)  # type: ignore[arg-type]
    return [found.sequence for found in (await store.search(query)).lines]


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[DuckDBFile]:
    made = DuckDBFile(tmp_path / "logs.duckdb", reserve_bytes=0)
    yield made
    await made.close()


async def test_what_is_too_old_is_dropped_by_the_hour(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file, keep=2 * DAY, free_bytes=0)
    await store.write([line(1, ago=3 * DAY), line(2, ago=2 * DAY + HOUR), line(3, ago=2 * DAY), line(4)])
    await store.upkeep(NOW)
    assert await sequences(store) == [4, 3]
    await store.write([line(5), line(6, ago=2 * DAY)])
    assert await sequences(store) == [5, 4, 6, 3]


async def test_the_oldest_go_when_all_take_too_much(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file, most_bytes=12 * MIB, free_bytes=0, segment_rows=500)
    for start in range(0, 6_000, 500):
        # Text that does not compress; all in one hour, as in a flood.
        await store.write([line(number, text=noise(number)) for number in range(start, start + 500)])
        await store.upkeep(NOW)
    left = await sequences(store)
    assert left[0] == 5_999
    assert left == list(range(5_999, left[-1] - 1, -1))
    assert 500 <= len(left) < 6_000
    assert store.lost == {TOO_MUCH: 6_000 - len(left)}
    assert file.path.stat().st_size < 24 * MIB


async def test_without_the_bound_the_file_grows_on(file: DuckDBFile) -> None:
    """The control of the test above."""
    store = DuckDBLogStore(file, free_bytes=0, segment_rows=500)
    for start in range(0, 6_000, 500):
        await store.write([line(number, text=noise(number)) for number in range(start, start + 500)])
        await store.upkeep(NOW)
    assert len(await sequences(store)) == 6_000
    assert file.path.stat().st_size > 24 * MIB


async def test_what_was_stored_before_a_restart_is_not_stored_again(tmp_path: Path) -> None:
    file = DuckDBFile(tmp_path / "logs.duckdb", reserve_bytes=0)
    await DuckDBLogStore(file).write([line(number) for number in range(100)])
    await file.close()
    file = DuckDBFile(tmp_path / "logs.duckdb", reserve_bytes=0)
    store = DuckDBLogStore(file)
    # An agent that resumes sends what was not acknowledged in several messages.
    await store.write([line(number) for number in range(60, 80)])
    await store.write([line(number) for number in range(80, 120)])
    assert await sequences(store) == list(range(119, -1, -1))
    await store.close()


async def test_a_write_that_was_rolled_back_can_be_repeated(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file)
    with pytest.raises(Exception, match="surrogate"):
        await store.write([line(1), line(2, text="\ud800"), line(3, ago=HOUR)])
    await store.write([line(1), line(3, ago=HOUR)])
    assert await sequences(store) == [1, 3]


async def test_a_search_that_takes_too_long_answers_what_it_has_and_goes_on(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file, search_seconds=0, segment_rows=100)
    await store.write([line(number, ago=number * HOUR) for number in range(120)])
    query = LogQuery(["n1"], NOW - 90 * DAY, NOW + DAY, limit=10_000)
    pages, found = 0, list[int]()
    while True:
        page = await store.search(query)
        pages += 1
        found += [each.sequence for each in page.lines]
        if not page.after:
            break
        query = replace(query, after=page.after)
    assert found == list(range(120))
    assert pages > 1


async def test_reading_goes_on_beside_writing_and_dropping(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file, keep=2 * HOUR, free_bytes=0, segment_rows=50)

    async def write() -> None:
        for number in range(0, 1000, 50):
            await store.write([line(each, ago=each % 4 * HOUR) for each in range(number, number + 50)])
            await store.upkeep(NOW)

    writing = asyncio.create_task(write())
    while not writing.done():
        await sequences(store)
    await writing


async def test_one_who_reads_for_long_does_not_make_upkeep_drop_more_than_is_too_much(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file, most_bytes=12 * MIB, free_bytes=0, segment_rows=500)
    for start in range(0, 4_000, 500):
        await store.write([line(number, text=noise(number)) for number in range(start, start + 500)])
    began, enough = threading.Event(), threading.Event()

    def read_for_long(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.begin()
        cursor.execute("SELECT count(*) FROM lines_2026030112_000001").fetchall()
        began.set()
        enough.wait(3)

    reading = asyncio.create_task(file.read(read_for_long))
    await eventually(began.is_set, within=10)
    await store.upkeep(NOW)
    enough.set()
    await reading
    await store.upkeep(NOW)
    left = await sequences(store)
    assert left == list(range(3_999, left[-1] - 1, -1))
    assert 1_000 <= len(left) < 4_000


async def test_a_disk_nearly_full_of_other_things_costs_the_oldest_logs_but_not_all(file: DuckDBFile) -> None:
    store = DuckDBLogStore(file, free_bytes=1 << 60, least_bytes=6 * MIB, segment_rows=500)
    for start in range(0, 4_000, 500):
        await store.write([line(number, text=noise(number)) for number in range(start, start + 500)])
    await store.upkeep(NOW)
    left = await sequences(store)
    assert left == list(range(3_999, left[-1] - 1, -1))
    assert 500 <= len(left) <= 2_000
    await store.upkeep(NOW)
    assert await sequences(store) == left


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MiB; skips the test where none can be mounted."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", directory], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


async def flood(store: DuckDBLogStore, lines: int) -> None:
    for start in range(0, lines, 200):
        batch = range(start, min(start + 200, lines))
        await store.write([line(number, text=noise(number)) for number in batch])


async def test_on_a_full_disk_the_oldest_go_and_ingestion_goes_on(small_disk: Path) -> None:
    file = DuckDBFile(small_disk / "logs.duckdb", log_bytes=4 * MIB, reserve_bytes=8 * MIB)
    store = DuckDBLogStore(file, free_bytes=0, segment_rows=400)
    await flood(store, 11_000)
    left = await sequences(store)
    assert left[0] == 10_999
    assert left == list(range(10_999, left[-1] - 1, -1))
    assert 400 <= len(left) < 11_000
    assert store.lost == {FULL: 11_000 - len(left)}
    await store.close()


async def test_a_disk_that_others_filled_is_told(small_disk: Path) -> None:
    """The control: with nothing of its own to drop the store says what is so, and writes again when there is room."""
    file = DuckDBFile(small_disk / "logs.duckdb", reserve_bytes=0)
    store = DuckDBLogStore(file, free_bytes=0)
    await store.write([line(1)])
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="space"), ballast.open("wb") as others:  # noqa: PT012
        while True:
            others.write(b"x" * MIB)
            others.flush()
    with pytest.raises(StoreUnavailable, match=r"full|space"):
        await flood(store, 10_000)
    ballast.unlink()
    await store.write([line(200_000)])
    assert 200_000 in await sequences(store)
    await store.close()
