"""Which steps a series is answered in: few enough to draw and to send, on a tier that still holds the time asked for.

Samples are kept in tiers, each coarser and kept longer than the one before. Every step is a whole multiple of the steps
of all finer tiers it can be made of, and begins at a multiple of itself since 1970, so that no value is ever split.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controlplane.telemetry.port import MOST_POINTS, Grid

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tier:
    """Samples at one resolution; `kept` None: for ever."""

    name: str
    step: timedelta
    kept: timedelta | None


SAMPLES = Tier("samples", timedelta(seconds=10), timedelta(hours=48))
MINUTES = Tier("minutes", timedelta(minutes=1), timedelta(days=14))
HOURS = Tier("hours", timedelta(hours=1), timedelta(days=63))
DAYS = Tier("days", timedelta(days=1), None)
TIERS = (SAMPLES, MINUTES, HOURS, DAYS)

_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400
_STEPS = (
    *(_SECOND * n for n in (1, 2, 5, 10, 20, 30)),
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 28, 91, 182, 364, 3640)),
)


def choose(start: datetime, end: datetime, step: timedelta | None, now: datetime) -> Grid:
    """The grid for [start, end): at least `step` wide, else as fine as fits into 1,000 points and as is still kept.

    Steps below 10 seconds are for asking only: nodes sample so fast while somebody watches. The grid begins at or before
    `start` and ends at or after `end`, by less than a step. Raises ValueError when `end` is not after `start`.
    """
    if end <= start:
        raise ValueError("the end must be after the start")
    tier = tier_for(start, now)
    wished = step if step is not None else tier.step
    least = wished if tier is SAMPLES else max(wished, tier.step)
    for seconds in _STEPS:
        grid = _aligned(start, end, timedelta(seconds=seconds))
        if grid.step >= least and grid.count <= MOST_POINTS:
            return grid
    raise ValueError("the time asked for is too long")


def tier_for(start: datetime, now: datetime) -> Tier:
    """The finest tier that still holds `start`."""
    return next(tier for tier in TIERS if tier.kept is None or start >= now - tier.kept)


def coarsest_for(grid: Grid) -> Tier:
    """The coarsest tier that the grid's steps can be made of: the fewest rows to read."""
    fits = [tier for tier in TIERS if not grid.step % tier.step and not (grid.start - EPOCH) % tier.step]
    return fits[-1] if fits else SAMPLES


def end_of(grid: Grid) -> datetime:
    """When the last step ends."""
    return grid.start + grid.step * grid.count


def step_starts(grid: Grid) -> list[datetime]:
    """When each step begins."""
    return [grid.start + grid.step * index for index in range(grid.count)]


def _aligned(start: datetime, end: datetime, step: timedelta) -> Grid:
    first = start - (start - EPOCH) % step
    return Grid(first, step, -(-(end - first) // step))
