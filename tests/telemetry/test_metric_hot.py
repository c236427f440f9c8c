"""The hot hour: what is in memory of the last hour."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from controlplane.domain.clock import FakeClock
from controlplane.telemetry.fake_metrics import FakeMetricStore
from controlplane.telemetry.hot import SLOTS, HotHour
from controlplane.telemetry.port import Frame, Grid, MetricQuery

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
CPU, LAG = "host.cpu.user_percent", "replica_set.lag_seconds"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def frame(time: datetime, values: Mapping[str, float], node: str = "n1", object_: str = "") -> Frame:
    return Frame(node, "c1", object_, time, values)


@pytest.fixture
def hot() -> HotHour:
    return HotHour(FakeClock(NOW))


def test_the_window_holds_what_came_in_oldest_first(hot: HotHour) -> None:
    hot.take([frame(ago(30), {CPU: 1}), frame(ago(10), {CPU: 3}), frame(ago(20), {CPU: 2})])
    assert hot.window("n1", CPU, 25) == [(ago(20), 2), (ago(10), 3)]
    assert hot.window("n1", LAG, 25) == hot.window("other", CPU, 25) == []


def test_the_latest_of_each_metric_has_its_own_time(hot: HotHour) -> None:
    hot.take([frame(ago(20), {CPU: 1, LAG: 7}), frame(ago(10), {CPU: 2})])
    latest = hot.latest("n1")
    assert {metric: (reading.time, reading.value) for metric, reading in latest.items()} == {
        CPU: (ago(10), 2),
        LAG: (ago(20), 7),
    }
    assert hot.latest("other") == {}


def test_an_hour_later_a_slot_begins_anew(hot: HotHour) -> None:
    hot.take([frame(ago(3600), {CPU: 1, LAG: 1}), frame(NOW, {CPU: 2})])
    assert hot.window("n1", CPU, 3700) == [(NOW, 2)]
    assert hot.window("n1", LAG, 3700) == []
    hot.take([frame(ago(3600), {CPU: 9})])
    assert hot.window("n1", CPU, 3700) == [(NOW, 2)], "a late frame does not take the place of a newer one"


def test_samples_of_every_second_leave_the_newest_of_each_slot(hot: HotHour) -> None:
    hot.take([frame(ago(second), {CPU: float(second)}) for second in range(3599, -1, -1)])
    window = hot.window("n1", CPU, 3600)
    assert len(window) == SLOTS
    assert window[-1] == (NOW, 0)
    assert window[-2] == (ago(1), 1)


def test_series_are_on_the_grid_and_gaps_are_none(hot: HotHour) -> None:
    hot.take([frame(ago(60), {CPU: 1}), frame(ago(50), {CPU: 3}), frame(ago(10), {CPU: 5})])
    grid = Grid(ago(60), timedelta(seconds=20), 3)
    (series,) = hot.series(MetricQuery(["n1", "other"], [CPU, LAG], grid))
    assert (series.averages, series.minima, series.maxima) == ([2, None, 5], [1, None, 5], [3, None, 5])


def test_the_quantile_is_that_of_numpy(hot: HotHour) -> None:
    values = {f"n{index}": np.random.default_rng(index).normal(size=200) for index in range(5)}
    for node, samples in values.items():
        hot.take([frame(ago(10 * i), {CPU: float(value)}, node) for i, value in enumerate(samples)])
    hot.take([frame(NOW, {LAG: 1}, "silent")])
    found = hot.summarise(CPU, [*values, "silent", "unknown"], ago(990), NOW, 0.95)
    expected = {node: float(np.quantile(samples[1:100], 0.95)) for node, samples in values.items()}
    assert found == pytest.approx(expected, rel=1e-6)


def test_memory_is_bounded_and_the_longest_silent_goes() -> None:
    hot = HotHour(FakeClock(NOW), most_values=3 * 32 * SLOTS)
    for index in range(5):
        hot.take([frame(ago(100 - index), {CPU: 1}, f"n{index}")])
    assert hot.node_ids() == ["n2", "n3", "n4"]
    hot.forget("n3")
    hot.take([frame(NOW, {CPU: 1}, "n5")])
    assert hot.node_ids() == ["n2", "n4", "n5"]


def test_objects_within_a_node_are_left_to_the_store(hot: HotHour) -> None:
    hot.take([frame(NOW, {"storage.size_bytes": 1}, object_="db.things")])
    assert hot.node_ids() == []


async def test_after_a_start_it_is_filled_from_the_store_and_what_came_in_stays(hot: HotHour) -> None:
    store = FakeMetricStore()
    await store.write([frame(ago(10 * i), {CPU: float(i)}) for i in range(1000)])
    hot.take([frame(ago(15), {CPU: 100})])
    assert not hot.covers(ago(600))
    await hot.refill(store, ["n1", "n2"], [CPU, LAG])
    assert hot.covers(ago(600))
    window = hot.window("n1", CPU, 3590)
    assert len(window) == SLOTS
    assert window[-4:] == [(ago(30), 3), (ago(15), 100), (ago(10), 1), (NOW, 0)]
    assert hot.latest("n1")[CPU].value == 0


async def test_without_a_refill_it_says_that_it_does_not_cover_the_hour(hot: HotHour) -> None:
    hot.take([frame(ago(5), {CPU: 100})])
    assert not hot.covers(ago(600))
    assert hot.covers(NOW)
