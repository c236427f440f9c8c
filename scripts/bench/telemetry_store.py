"""What the embedded metric store costs: bytes a sample, a write, and the queries of the console, at 1,000 nodes.

Six hours of 60 metrics every ten seconds: 100 nodes for four hours and 1,000 in the last two, of which one is moved to its
day and one is as it came. Metrics are of the kinds that nodes have: rates with a decimal, sizes that
move now and then, percentages that are never the same.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import NamedTuple, ParamSpec

import duckdb
import numpy as np

from controlplane.domain.clock import FakeClock
from controlplane.telemetry import grid as grids
from controlplane.telemetry.duckdb_file import DuckDBFile
from controlplane.telemetry.duckdb_metrics import DuckDBMetricStore
from controlplane.telemetry.hot import HotHour
from controlplane.telemetry.port import Frame, MetricQuery

TICK = timedelta(seconds=10)
TICKS_AN_HOUR = 360
HOURS, FLEET_HOURS = 6, 2
FLEET, FEW = 1000, 100
KINDS = 20
METRICS = [f"bench.{kind}_{index}" for kind in ("rate", "size", "percent") for index in range(KINDS)]
CPU = "bench.percent_0"
REPEATS = 15
START = datetime(2026, 3, 4, 6, tzinfo=UTC)
END = START + timedelta(hours=HOURS)


P = ParamSpec("P")


class Cost(NamedTuple):
    """Milliseconds of the clock, and of all cores together: the second says more on a machine that others use too."""

    wall: float
    cpu: float


def run() -> dict[str, float]:
    """Figures of one run on this machine; times in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="wap-bench-") as directory:
        return asyncio.run(_measure(Path(directory)))


async def _measure(directory: Path) -> dict[str, float]:
    path = directory / "metrics.duckdb"
    store = DuckDBMetricStore(DuckDBFile(path, reserve_bytes=0))
    ticks: list[Cost] = []
    closing = Cost(0, 0)
    for hour in range(HOURS):
        fleet = FLEET if hour >= HOURS - FLEET_HOURS else FEW
        ticks = [await _cost(store.write, frames) for frames in _frames_of(fleet, hour)]
        if hour < HOURS - 1:
            closing = await _cost(store.upkeep, START + timedelta(hours=hour + 1, minutes=5))
    figures = {
        "write_tick_p50_ms": median(cost.wall for cost in ticks),
        "write_tick_p99_ms": float(np.quantile([cost.wall for cost in ticks], 0.99)),
        "write_tick_cpu_ms": median(cost.cpu for cost in ticks),
        "close_hour_ms": closing.wall,
        "close_hour_cpu_ms": closing.cpu,
    }
    figures |= await _query(store)
    await store.close()
    return figures | await asyncio.to_thread(_sizes, path)


async def _query(store: DuckDBMetricStore) -> dict[str, float]:
    """The two queries of the console's pages, from the disk; and the second from the hot hour."""
    cluster = MetricQuery(_nodes(3), [CPU], grids.choose(START, END, None, END))
    last_hour = (CPU, _nodes(FLEET), END - timedelta(hours=1), END, 0.95)
    hot = HotHour(FakeClock(END))
    took = []
    for frames in _frames_of(FLEET, HOURS - 1):
        began = time.perf_counter()
        hot.take(frames)
        took.append(time.perf_counter() - began)
    began = time.perf_counter()
    hot.summarise(*last_hour)
    from_memory = time.perf_counter() - began
    one = [await _cost(store.query, cluster) for _ in range(REPEATS)]
    fleet = [await _cost(store.summarise, *last_hour) for _ in range(REPEATS)]
    return {
        "one_metric_of_a_cluster_6h_ms": median(cost.wall for cost in one),
        "one_metric_of_a_cluster_6h_cpu_ms": median(cost.cpu for cost in one),
        "p95_of_1000_nodes_1h_ms": median(cost.wall for cost in fleet),
        "p95_of_1000_nodes_1h_cpu_ms": median(cost.cpu for cost in fleet),
        "p95_of_1000_nodes_1h_hot_ms": 1e3 * from_memory,
        "hot_hour_take_tick_p50_ms": 1e3 * median(took),
    }


def _sizes(path: Path) -> dict[str, float]:
    """Bytes a sample of the tables of 10-second samples, each alone in a file; and of the whole file, roll-ups included."""
    with duckdb.connect(path) as connection:
        tables = [str(name) for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        sizes = {name: _alone(connection, name, path.with_name(f"{name}.duckdb")) for name in tables}
    samples = {name: rows * len(METRICS) for name, (rows, _bytes) in sizes.items()}
    compacted = [name for name in tables if name.startswith("node_samples")]
    as_it_came = [name for name in tables if name.startswith("node_open")]
    all_samples = sum(samples[name] for name in compacted + as_it_came)
    return {
        "bytes_per_sample_compacted": sum(sizes[n][1] for n in compacted) / sum(samples[n] for n in compacted),
        "bytes_per_sample_as_it_came": sum(sizes[n][1] for n in as_it_came) / sum(samples[n] for n in as_it_came),
        "bytes_per_sample_of_the_file": path.stat().st_size / all_samples,
    }


def _alone(connection: duckdb.DuckDBPyConnection, table: str, path: Path) -> tuple[int, int]:
    """Rows of a table, and the bytes of a file that holds only it."""
    connection.execute(f"ATTACH '{path}' AS alone (STORAGE_VERSION 'latest')")
    connection.execute(f"CREATE TABLE alone.{table} AS FROM {table}")
    (rows,) = connection.execute(f"SELECT count(*) FROM alone.{table}").fetchone() or (0,)
    connection.execute("DETACH alone")
    return int(rows), path.stat().st_size


async def _cost(call: Callable[P, Awaitable[object]], *given: P.args, **named: P.kwargs) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    await call(*given, **named)
    return Cost(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))


def _frames_of(fleet: int, hour: int) -> Iterator[list[Frame]]:
    """The frames of each tick of an hour."""
    random = np.random.default_rng(hour)
    shape = (TICKS_AN_HOUR, fleet, KINDS)
    rates = np.round(random.poisson(50 * np.arange(1, KINDS + 1), size=shape) / 10, 1)
    moves = random.normal(size=shape) * 4096 * (random.random(shape) < 0.1)
    sizes = np.round(1e9 + np.cumsum(moves, axis=0))
    percents = np.clip(random.normal(40, 8, size=shape), 0, 100)
    nodes = _nodes(fleet)
    for tick in range(TICKS_AN_HOUR):
        at = START + timedelta(hours=hour) + tick * TICK
        rows = np.concatenate([rates[tick], sizes[tick], percents[tick]], axis=1).tolist()
        yield [
            Frame(node, "cl-bench", "", at, dict(zip(METRICS, row, strict=True)))
            for node, row in zip(nodes, rows, strict=True)
        ]


def _nodes(count: int) -> list[str]:
    return [f"nd-{index:020}" for index in range(count)]


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:40} {value:10.3f}")
