"""The embedded metric store: tiers, retention, restarts, late samples, and a disk that is full."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
import pytest

from controlplane.telemetry import grid as grids
from controlplane.telemetry.duckdb_file import DuckDBFile, Work
from controlplane.telemetry.duckdb_metrics import DuckDBMetricStore
from controlplane.telemetry.fake_metrics import FakeMetricStore
from controlplane.telemetry.port import Frame, Grid, MetricQuery, Series, StoreUnavailable

T = TypeVar("T")
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
CPU, LAG = "host.cpu.user_percent", "replica_set.lag_seconds"
TEN, MINUTE, HOUR, DAY = timedelta(seconds=10), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBMetricStore]:
    store = open_store(tmp_path)
    yield store
    await store.close()


def open_store(directory: Path) -> DuckDBMetricStore:
    return DuckDBMetricStore(DuckDBFile(directory / "metrics.duckdb", reserve_bytes=0))


def samples(start: datetime, end: datetime, every: timedelta = TEN, nodes: int = 1, seed: int = 0) -> list[Frame]:
    """Random samples of some nodes, with gaps."""
    random = np.random.default_rng(seed)
    frames = []
    for index in range((end - start) // every):
        for node in range(nodes):
            values = {CPU: float(np.float32(random.normal(40, 10)))}
            if random.random() < 0.5:
                values[LAG] = float(random.integers(0, 9))
            if random.random() < 0.9:
                frames.append(Frame(f"n{node}", "c1", "", start + index * every, values))
    return frames


def spanning(start: datetime, end: datetime, step: timedelta, nodes: Sequence[str] = ("n0", "n1")) -> MetricQuery:
    return MetricQuery(nodes, [CPU, LAG], Grid(start, step, (end - start) // step))


def same(found: list[Series], expected: list[Series]) -> None:
    assert [(s.node_id, s.metric, s.object) for s in found] == [(s.node_id, s.metric, s.object) for s in expected]
    for one, other in zip(found, expected, strict=True):
        for column, wanted in ((one.averages, other.averages), (one.minima, other.minima), (one.maxima, other.maxima)):
            np.testing.assert_allclose(with_nan(column), with_nan(wanted), rtol=1e-5)


def with_nan(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


async def tables(store: DuckDBMetricStore) -> set[str]:
    found = await store._file.read(lambda cursor: cursor.execute("SELECT table_name FROM duckdb_tables()").fetchall())
    return {name for (name,) in found} - {"hours"}


async def test_every_tier_answers_as_the_samples_would(store: DuckDBMetricStore) -> None:
    truth = FakeMetricStore()
    frames = samples(NOW - timedelta(hours=36), NOW, timedelta(seconds=30), nodes=2)
    await truth.write(frames)
    midnight = NOW.replace(hour=0)
    queries = [
        spanning(midnight - 2 * DAY, midnight + DAY, step)
        for step in (TEN, MINUTE, timedelta(minutes=15), HOUR, 3 * HOUR, DAY)
    ]
    expected = [await truth.query(query) for query in queries]
    for begin in range(0, len(frames), 2000):
        await store.write(frames[begin : begin + 2000])
        if begin == 4000:
            await store.upkeep(NOW - timedelta(hours=10))
    for now in (None, NOW, NOW + 2 * HOUR):
        if now is not None:
            await store.upkeep(now)
        for query, right in zip(queries, expected, strict=True):
            same(await store.query(query), right)


async def test_an_hour_in_which_something_came_late_is_rolled_up_anew(store: DuckDBMetricStore) -> None:
    early, late = samples(NOW - 4 * HOUR, NOW, nodes=1), samples(NOW - 3 * HOUR, NOW - HOUR, nodes=2, seed=7)
    late = [frame for frame in late if frame.node_id == "n1"]
    truth = FakeMetricStore()
    await truth.write(early)
    await store.write(early)
    await store.upkeep(NOW)
    await store.write(late)
    query = spanning(NOW - DAY, NOW, HOUR)
    same(await store.query(query), await truth.query(query))
    await store.upkeep(NOW)
    await truth.write(late)
    for step in (TEN, MINUTE, HOUR, DAY):
        query = spanning(NOW.replace(hour=0), NOW.replace(hour=0) + DAY, step)
        same(await store.query(query), await truth.query(query))


async def test_a_frame_counts_once_across_a_restart_and_after_its_hour_was_moved(tmp_path: Path) -> None:
    frames = samples(NOW - 3 * HOUR, NOW, nodes=2)
    store = open_store(tmp_path)
    await store.write(frames)
    await store.upkeep(NOW)
    await store.close()
    store = open_store(tmp_path)
    await store.write(frames[-300:])
    await store.write(frames)
    await store.write(frames[:50])
    await store.upkeep(NOW + HOUR)
    rows = await store._file.read(
        lambda cursor: cursor.execute("SELECT count(*) FROM node_samples_20260304").fetchone()
    )
    assert rows == (len(frames),)
    await store.close()


async def test_what_is_too_old_goes_tier_by_tier(store: DuckDBMetricStore) -> None:
    for age in range(400, -1, -20):
        at = NOW - timedelta(days=age)
        await store.write(samples(at - 2 * HOUR, at - HOUR, MINUTE))
        await store.upkeep(at)
    left = await tables(store)
    assert {name for name in left if "samples" in name} == {"node_samples_20260304"}
    assert {name for name in left if "minutes" in name} == {"node_minutes_20260304"}
    assert {name for name in left if "hours" in name} == {f"node_hours_{m}" for m in (202512, 202601, 202602, 202603)}
    assert {name for name in left if "days" in name} == {"node_days_2025", "node_days_2026"}
    year = grids.choose(NOW - timedelta(days=401), NOW, None, NOW)
    (cpu, _lag) = await store.query(MetricQuery(["n0"], [CPU, LAG], year))
    assert sum(value is not None for value in cpu.averages) == 21


async def test_a_frame_older_than_samples_are_kept_is_counted_and_does_not_take_the_place_of_a_roll_up(
    store: DuckDBMetricStore,
) -> None:
    frames = samples(NOW - 60 * HOUR, NOW - 59 * HOUR)
    await store.write(frames)
    await store.upkeep(NOW - 50 * HOUR)
    await store.write(samples(NOW - HOUR, NOW))
    query = spanning(NOW - 60 * HOUR, NOW - 59 * HOUR, MINUTE)
    before = await store.query(query)
    await store.write([Frame("n0", "c1", "", NOW - 60 * HOUR + timedelta(seconds=1), {CPU: 1e6})])
    await store.upkeep(NOW)
    assert store.dropped == {"older than samples are kept": 1}
    assert await store.query(query) == before


async def test_new_metrics_get_columns_beside_the_old_ones(store: DuckDBMetricStore) -> None:
    await store.write([Frame("n0", "c1", "", NOW - HOUR, {CPU: 1})])
    await store.write([Frame("n0", "c1", "", NOW - HOUR + TEN, {LAG: 2, 'odd "metric" | name': 3})])
    await store.upkeep(NOW + HOUR)
    await store.write([Frame("n0", "c1", "", NOW, {"another": 4})])
    names = [CPU, LAG, 'odd "metric" | name', "another"]
    found = await store.query(MetricQuery(["n0"], names, Grid(NOW - HOUR, HOUR, 2)))
    assert {s.metric: list(s.averages) for s in found} == {
        CPU: [1, None],
        LAG: [2, None],
        names[2]: [3, None],
        "another": [None, 4],
    }


async def test_readers_are_answered_while_hours_are_moved(store: DuckDBMetricStore) -> None:
    frames = samples(NOW - 12 * HOUR, NOW, nodes=2)
    await store.write(frames)
    query = spanning(NOW - 12 * HOUR, NOW, timedelta(minutes=2))
    before = await store.query(query)
    upkeep = asyncio.create_task(store.upkeep(NOW))
    answers = 0
    while not upkeep.done():
        same(await store.query(query), before)
        answers += 1
    await upkeep
    assert answers > 3


class Hesitant(DuckDBFile):
    """A file whose writer stops for a while between a commit and what follows from it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, reserve_bytes=0)
        self.stops, self.stopped, self.go = False, threading.Semaphore(0), threading.Semaphore(0)

    async def run(self, work: Work[T], committed: Callable[[], None] = lambda: None) -> T:
        def late() -> None:
            if self.stops:
                self.stopped.release()
                assert self.go.acquire(timeout=20)
            committed()

        return await super().run(work, late)


async def test_a_reader_between_a_commit_and_its_catalogue_is_answered(tmp_path: Path) -> None:
    file = Hesitant(tmp_path / "metrics.duckdb")
    store = DuckDBMetricStore(file)
    await store.write(samples(NOW - 3 * HOUR, NOW))
    query = spanning(NOW - 3 * HOUR, NOW, timedelta(minutes=2))
    before = await store.query(query)
    file.stops = True
    upkeep = asyncio.create_task(store.upkeep(NOW + HOUR))
    waited = 0
    while not waited:
        assert await asyncio.to_thread(file.stopped.acquire, timeout=20)
        reading = asyncio.create_task(store.query(query))
        done, _ = await asyncio.wait({reading}, timeout=0.5)
        waited += not done  # it has found a table gone, and waits for the catalogue
        file.stops = not waited
        file.go.release()
        same(await reading, before)
    await upkeep
    await store.close()


async def test_a_caller_who_no_longer_waits_leaves_the_store_whole(store: DuckDBMetricStore) -> None:
    frames = samples(NOW - HOUR, NOW)
    writing = asyncio.create_task(store.write(frames))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.write(frames)
    truth = FakeMetricStore()
    await truth.write(frames)
    query = spanning(NOW - HOUR, NOW, MINUTE)
    same(await store.query(query), await truth.query(query))


async def test_quantiles_of_long_ranges_come_from_roll_ups(store: DuckDBMetricStore) -> None:
    await store.write(samples(NOW - 30 * HOUR, NOW, MINUTE))
    await store.upkeep(NOW)
    truth = FakeMetricStore()
    await truth.write(samples(NOW - 30 * HOUR, NOW, MINUTE))
    for quantile in (0, 0.5, 0.95, 1):
        found = await store.summarise(CPU, ["n0"], NOW - 30 * HOUR, NOW, quantile)
        assert found == pytest.approx(await truth.summarise(CPU, ["n0"], NOW - 30 * HOUR, NOW, quantile), rel=1e-5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


# Ten nodes of fifty metrics that cannot be made smaller: 0.7 MB an hour.
NOISE = np.random.default_rng(5).normal(size=(3600, 50)).tolist()
EVENING = NOW.replace(hour=20)


def noise(hour: int) -> list[Frame]:
    begin = EVENING + hour * HOUR
    return [
        Frame(f"n{index % 10}", "c1", "", begin + index // 10 * TEN, {f"m{m}": value for m, value in enumerate(row)})
        for index, row in enumerate(NOISE)
    ]


async def write_hours(store: DuckDBMetricStore, hours: range) -> None:
    for hour in hours:
        await store.write(noise(hour))
        await store.upkeep(EVENING + (hour + 1) * HOUR)


def fill(disk: Path) -> None:
    """Take what is left, as another program may."""
    with (disk / "another program's").open("wb", buffering=0) as filler:
        while (free := shutil.disk_usage(disk).free) > 0:
            filler.write(b"x" * free)


def on_small_disk(disk: Path, reserve_mib: int) -> DuckDBMetricStore:
    file = DuckDBFile(disk / "metrics.duckdb", log_bytes=2**20, reserve_bytes=reserve_mib * 2**20)
    return DuckDBMetricStore(file, least_free_bytes=0)


async def test_a_full_disk_costs_the_oldest_samples_and_the_newest_come_in(small_disk: Path) -> None:
    store = on_small_disk(small_disk, reserve_mib=3)
    await write_hours(store, range(6))
    await asyncio.to_thread(fill, small_disk)
    await write_hours(store, range(6, 12))
    assert store.dropped["the disk is full"] >= 1
    assert "node_samples_20260304" not in await tables(store)
    (newest,) = await store.query(MetricQuery(["n0"], ["m0"], Grid(EVENING + 11 * HOUR, MINUTE, 60)))
    assert all(value is not None for value in newest.averages)
    await store.close()


async def test_control_without_a_reserve_a_full_disk_ends_ingestion(small_disk: Path) -> None:
    store = on_small_disk(small_disk, reserve_mib=0)
    await write_hours(store, range(6))
    await asyncio.to_thread(fill, small_disk)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await write_hours(store, range(6, 12))
    await store.close()


async def nearly_full(directory: Path, least_bytes: int) -> DuckDBMetricStore:
    """A store that wants more of the disk free than there is."""
    file = DuckDBFile(directory / "metrics.duckdb", reserve_bytes=0)
    store = DuckDBMetricStore(file, least_free_bytes=2 * shutil.disk_usage(directory).total, least_bytes=least_bytes)
    await store.write(noise(0))
    await store.write(noise(1))
    return store


async def test_upkeep_makes_room_before_the_disk_is_full(tmp_path: Path) -> None:
    store = await nearly_full(tmp_path, least_bytes=0)
    await store.upkeep(EVENING + 2 * HOUR)
    assert store.dropped["the disk is full"] >= 1
    left = await tables(store)
    assert "node_samples_20260304" not in left
    assert "node_open_2026030421" in left, "the hour that is being written stays"
    await store.close()


async def test_upkeep_drops_nothing_of_a_small_store_on_a_disk_full_of_other_things(tmp_path: Path) -> None:
    store = await nearly_full(tmp_path, least_bytes=64 * 2**20)
    await store.upkeep(EVENING + 2 * HOUR)
    assert not store.dropped
    await store.close()


async def test_one_who_reads_for_long_does_not_make_the_store_drop_everything(tmp_path: Path) -> None:
    store = await nearly_full(tmp_path, least_bytes=0)
    reading, done = threading.Event(), threading.Event()

    def read(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.begin()
        cursor.execute("SELECT count(*) FROM node_open_2026030420").fetchall()
        reading.set()
        done.wait(60)

    reader = asyncio.create_task(store._file.read(read))
    await asyncio.to_thread(reading.wait, 10)
    with pytest.raises(StoreUnavailable, match="somebody reads"):
        await store.upkeep(EVENING + 2 * HOUR)
    assert store.dropped["the disk is full"] <= 1
    done.set()
    await reader
    await store.close()


async def test_a_file_that_another_process_holds_is_unavailable_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    hold = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('held', flush=True); sys.stdin.read()"
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", hold, stdin=PIPE, stdout=PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    store = open_store(tmp_path)
    with pytest.raises(StoreUnavailable, match="lock"):
        await store.write(samples(NOW - HOUR, NOW))
    await holder.communicate(b"")
    await store.write(samples(NOW - HOUR, NOW))
    await store.close()
    assert not (tmp_path / "metrics.duckdb.damaged").exists()


@pytest.mark.parametrize("damage", ["overwritten", "header", "cut"])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "metrics.duckdb"
    store = open_store(tmp_path)
    await store.write(samples(NOW - HOUR, NOW))
    await store.close()
    whole = path.read_bytes()
    broken = {"overwritten": b"x" * 5000, "header": whole[:4100] + b"y" * 64 + whole[4164:], "cut": whole[:12288]}
    path.write_bytes(broken[damage])
    store = open_store(tmp_path)
    await store.write(samples(NOW - HOUR, NOW))
    assert len(await store.query(spanning(NOW - HOUR, NOW, MINUTE))) == 2
    await store.close()
    assert (tmp_path / "metrics.duckdb.damaged").read_bytes() == broken[damage]


async def test_a_closed_store_is_unavailable(store: DuckDBMetricStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.write(samples(NOW - HOUR, NOW))


async def test_the_file_reaches_nothing_but_itself(tmp_path: Path) -> None:
    file = DuckDBFile(tmp_path / "x.duckdb", reserve_bytes=0)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(duckdb.Error, match="disabled"):
        await file.run(lambda connection: connection.execute(f"SELECT * FROM read_csv('{secret}')"))
    await file.close()
