"""What every MetricStore does, whatever it stands on. Each test has nodes of its own: servers are shared."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from controlplane.telemetry.duckdb_file import DuckDBFile
from controlplane.telemetry.duckdb_metrics import DuckDBMetricStore
from controlplane.telemetry.fake_metrics import FakeMetricStore
from controlplane.telemetry.port import Frame, Grid, MetricQuery, MetricStore, Series
from controlplane.telemetry.remote_write import RemoteWriteStore
from tests.telemetry.metric_servers import MetricServer, prometheus, victoria_metrics
from tests.waiting import eventually

CPU, MEMORY, SIZE = "host.cpu.user_percent", "host.memory.used_bytes", "storage.size_bytes"
TEN = timedelta(seconds=10)
# Servers take samples of about now only. On the hour, so that grids of any step begin there.
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


class ShownAtOnce(RemoteWriteStore):
    """VictoriaMetrics shows what is new after up to ten seconds, or when told to."""

    def __init__(self, server: MetricServer) -> None:
        super().__init__(server.write_url, server.read_url)
        self._flush_url = f"{server.read_url}/internal/force_flush"

    async def write(self, frames: Sequence[Frame]) -> None:
        await super().write(frames)
        async with httpx.AsyncClient() as client:
            (await client.get(self._flush_url)).raise_for_status()


@pytest.fixture(scope="module")
def prometheus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricServer]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def victoria_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricServer]:
    with victoria_metrics(tmp_path_factory.mktemp("victoria")) as server:
        yield server


@pytest.fixture(params=["fake", "duckdb", "prometheus", "victoria"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MetricStore]:
    found: MetricStore
    match request.param:
        case "fake":
            found = FakeMetricStore()
        case "prometheus":
            server: MetricServer = request.getfixturevalue("prometheus_server")
            found = RemoteWriteStore(server.write_url, server.read_url)
        case "victoria":
            server = request.getfixturevalue("victoria_server")
            found = ShownAtOnce(server)
        case _:
            found = DuckDBMetricStore(DuckDBFile(tmp_path / "metrics.duckdb", reserve_bytes=0))
    yield found
    await found.close()


@pytest.fixture
def node() -> str:
    return f"nd-{uuid.uuid4().hex[:12]}"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def frame(node: str, time: datetime, values: Mapping[str, float], object_: str = "") -> Frame:
    return Frame(node, "cl-1", object_, time, values)


def ask(
    node: str, *metrics: str, seconds: float = 60, step: timedelta = TEN, object_: str | None = None
) -> MetricQuery:
    return MetricQuery([node], metrics, Grid(ago(seconds), step, round(seconds / step.total_seconds())), object_)


async def answer(store: MetricStore, query: MetricQuery, series: int = 1) -> list[Series]:
    """The answer when it has as many series: servers show what they took in after a moment."""

    async def found() -> list[Series]:
        answered = await store.query(query)
        assert len(answered) == series
        return answered

    return await eventually(found, within=10) if series else await store.query(query)


async def test_samples_come_back_on_the_grid_and_gaps_are_none(store: MetricStore, node: str) -> None:
    await store.write([frame(node, ago(60), {CPU: 1.5}), frame(node, ago(20), {CPU: 2.5})])
    (series,) = await answer(store, ask(node, CPU))
    assert (series.node_id, series.metric, series.object) == (node, CPU, "")
    assert list(series.averages) == [1.5, None, None, None, 2.5, None]
    assert series.averages == series.minima == series.maxima


async def test_each_step_has_average_minimum_and_maximum(store: MetricStore, node: str) -> None:
    await store.write([frame(node, ago(60 - 10 * i), {CPU: value}) for i, value in enumerate([1, 2, 6, 10, 20, 30])])
    (series,) = await answer(store, ask(node, CPU, step=timedelta(seconds=30)))
    assert list(series.averages) == pytest.approx([3, 20])
    assert (list(series.minima), list(series.maxima)) == ([1, 10], [6, 30])


async def test_a_step_begins_with_its_first_moment_and_ends_before_the_next(store: MetricStore, node: str) -> None:
    half = timedelta(seconds=30)
    await store.write(
        [frame(node, ago(60), {CPU: 1}), frame(node, ago(60) + half, {CPU: 2}), frame(node, NOW, {CPU: 9})]
    )
    (series,) = await answer(store, ask(node, CPU, step=half))
    assert list(series.averages) == [1, 2]


async def test_a_frame_counts_once_however_often_it_is_written(store: MetricStore, node: str) -> None:
    first, second = frame(node, ago(60), {CPU: 1}), frame(node, ago(50), {CPU: 4})
    await store.write([first, first, second])
    await store.write([second, first])
    await store.write([first, frame(node, ago(40), {CPU: 4})])
    (series,) = await answer(store, ask(node, CPU, step=timedelta(seconds=60)))
    assert list(series.averages) == pytest.approx([3])


async def test_a_frame_that_comes_late_is_not_lost(store: MetricStore, node: str) -> None:
    await store.write([frame(node, ago(10), {CPU: 4})])
    await store.write([frame(node, ago(50), {CPU: 2})])

    async def both() -> bool:
        found = await store.query(ask(node, CPU))
        return bool(found) and list(found[0].averages) == [None, 2, None, None, None, 4]

    await eventually(both, within=10)


async def test_only_what_is_asked_for(store: MetricStore, node: str) -> None:
    other = node + "-b"
    await store.write([frame(name, ago(30), {CPU: 1, MEMORY: 2}) for name in (node, other)])
    await store.write([frame(node, ago(30), {SIZE: 3}, "shop.orders"), frame(node, ago(30), {SIZE: 4}, "shop.users")])
    found = await answer(store, MetricQuery([other, node], [MEMORY, CPU, SIZE], ask(node).grid), 6)
    assert [(series.node_id, series.metric, series.object) for series in found] == [
        (node, CPU, ""),
        (node, MEMORY, ""),
        (node, SIZE, "shop.orders"),
        (node, SIZE, "shop.users"),
        (other, CPU, ""),
        (other, MEMORY, ""),
    ]
    assert [series.object for series in await answer(store, ask(node, CPU, SIZE, object_=""))] == [""]
    (users,) = await answer(store, ask(node, CPU, SIZE, object_="shop.users"))
    assert [value for value in users.averages if value is not None] == [4]


@pytest.mark.parametrize("strange", ['a"b\\c\nd', "naïve.größe", "a|b.*", "x'; DROP TABLE hours; --"])
async def test_names_of_objects_are_names_and_nothing_else(store: MetricStore, node: str, strange: str) -> None:
    await store.write([frame(node, ago(30), {SIZE: 1}, strange), frame(node, ago(30), {SIZE: 2}, "axb.")])
    (series,) = await answer(store, ask(node, SIZE, object_=strange))
    assert series.object == strange
    assert [value for value in series.averages if value is not None] == [1]


async def test_nothing_known_is_an_empty_answer(store: MetricStore, node: str) -> None:
    await store.write([])
    assert await store.query(ask(node, CPU)) == []
    assert await store.query(MetricQuery([], [CPU], ask(node).grid)) == []
    assert await store.summarise(CPU, [node], ago(60), NOW, 0.5) == {}
    assert await store.summarise(CPU, [], ago(60), NOW, 0.5) == {}


async def test_the_quantile_of_each_node(store: MetricStore, node: str) -> None:
    values = np.random.default_rng(1).permutation(101)
    frames = [frame(node, ago(2000 - 10 * i), {CPU: float(value)}) for i, value in enumerate(values)]
    outside = [frame(node, ago(2010), {CPU: 5000}), frame(node, ago(900), {CPU: 5000})]
    await store.write([*frames, *outside, frame(node + "-b", ago(1000), {CPU: 7})])
    nodes = [node, node + "-b", node + "-c"]

    async def summarised() -> bool:
        found = [await store.summarise(CPU, nodes, ago(2000), ago(900), quantile) for quantile in (0, 0.5, 0.95, 1)]
        return [pytest.approx(low) for low in ({node: value, node + "-b": 7.0} for value in (0, 50, 95, 100))] == found

    await eventually(summarised, within=10)


@pytest.mark.parametrize("values", [(0.0, -1.5, 2.000001, 1e-6), (4096.0, 123456.7, 8.796093e12, 3e15)])
async def test_values_keep_six_digits(store: MetricStore, node: str, values: Sequence[float]) -> None:
    await store.write([frame(node, ago(40 - 10 * i), {MEMORY: value}) for i, value in enumerate(values)])
    (series,) = await answer(store, ask(node, MEMORY, seconds=40))
    assert list(series.averages) == pytest.approx(values, rel=1e-6)


async def test_upkeep_changes_nothing_that_is_kept(store: MetricStore, node: str) -> None:
    await store.write([frame(node, ago(7200 - 10 * i), {CPU: float(i)}) for i in range(360)])
    query = ask(node, CPU, seconds=7200, step=timedelta(minutes=1))
    before = await answer(store, query)
    await store.upkeep(NOW)
    await store.upkeep(NOW)
    assert await store.query(query) == before
