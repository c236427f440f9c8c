"""Grids: never more than 1,000 steps, on a tier that still holds the time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from controlplane.telemetry import grid as grids
from controlplane.telemetry.port import MOST_POINTS

NOW = datetime(2026, 3, 4, 12, 34, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "step"),
    [
        (timedelta(hours=1), timedelta(seconds=10)),
        (timedelta(hours=6), timedelta(seconds=30)),
        (timedelta(hours=24), timedelta(minutes=2)),
        (timedelta(days=7), timedelta(minutes=15)),
        (timedelta(days=60), timedelta(hours=2)),
        (timedelta(days=365), timedelta(days=1)),
    ],
)
def test_the_ranges_of_the_console(span: timedelta, step: timedelta) -> None:
    assert grids.choose(NOW - span, NOW, None, NOW).step == step


@given(
    age=some.timedeltas(timedelta(0), timedelta(days=3000)),
    span=some.timedeltas(timedelta(milliseconds=1), timedelta(days=3000)),
    step=some.none() | some.timedeltas(timedelta(seconds=1), timedelta(days=30)),
)
def test_a_grid_covers_what_was_asked_in_few_steps_of_a_kept_tier(
    age: timedelta, span: timedelta, step: timedelta | None
) -> None:
    start = NOW - age
    grid = grids.choose(start, start + span, step, NOW)
    assert 1 <= grid.count <= MOST_POINTS
    assert grid.start <= start < grid.start + grid.step
    assert grids.end_of(grid) - grid.step < start + span <= grids.end_of(grid)
    assert step is None or grid.step >= step
    tier = grids.coarsest_for(grid)
    assert tier.kept is None or tier is grids.SAMPLES or start >= NOW - tier.kept
    if tier is grids.SAMPLES:
        assert age <= timedelta(hours=48)


def test_a_step_finer_than_the_tier_is_made_coarser() -> None:
    start = NOW - timedelta(days=3)
    grid = grids.choose(start, start + timedelta(minutes=10), timedelta(seconds=1), NOW)
    assert grid.step == timedelta(minutes=1)


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="after the start"):
        grids.choose(NOW, NOW, None, NOW)
