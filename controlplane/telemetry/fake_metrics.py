"""FakeMetricStore: a MetricStore in memory, for tests and for the demonstration of the console.

It says of itself what the real ones cannot: `unavailable` makes every call raise StoreUnavailable, as a store that is down.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np

from controlplane.telemetry.grid import end_of
from controlplane.telemetry.port import Frame, Grid, MetricQuery, Series, StoreUnavailable

KEPT = timedelta(hours=48)


class FakeMetricStore:
    """Keeps every sample as it came; answers as a real store does."""

    def __init__(self) -> None:
        self.unavailable = False
        self._frames: dict[tuple[str, str, datetime], Frame] = {}

    async def write(self, frames: Sequence[Frame]) -> None:
        """Keep what is not kept yet."""
        self._check()
        for frame in frames:
            self._frames.setdefault((frame.node_id, frame.object, frame.time), frame)

    async def query(self, query: MetricQuery) -> list[Series]:
        """Series with at least one value, by node, metric, object."""
        self._check()
        samples: dict[tuple[str, str, str], list[tuple[datetime, float]]] = {}
        for frame in self._between(query.node_ids, query.grid.start, end_of(query.grid)):
            if query.object in (None, frame.object):
                for metric in frame.values.keys() & set(query.metrics):
                    key = (frame.node_id, metric, frame.object)
                    samples.setdefault(key, []).append((frame.time, frame.values[metric]))
        return [_series(*key, samples[key], query.grid) for key in sorted(samples)]

    async def summarise(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        """The quantile of each node's samples."""
        self._check()
        samples: dict[str, list[float]] = {}
        for frame in self._between(node_ids, start, end):
            if metric in frame.values and not frame.object:
                samples.setdefault(frame.node_id, []).append(frame.values[metric])
        return {node_id: float(np.quantile(values, quantile)) for node_id, values in samples.items()}

    async def upkeep(self, now: datetime) -> None:
        """Drop what is too old."""
        self._check()
        self._frames = {key: frame for key, frame in self._frames.items() if frame.time >= now - KEPT}

    async def close(self) -> None:
        """Nothing is held back."""

    def _between(self, node_ids: Iterable[str], start: datetime, end: datetime) -> Iterator[Frame]:
        wanted = set(node_ids)
        return (frame for frame in self._frames.values() if frame.node_id in wanted and start <= frame.time < end)

    def _check(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("the fake store was told to be unavailable")


def _series(node_id: str, metric: str, object_: str, samples: list[tuple[datetime, float]], grid: Grid) -> Series:
    steps: list[list[float]] = [[] for _ in range(grid.count)]
    for time, value in samples:
        steps[(time - grid.start) // grid.step].append(value)
    averages = [sum(values) / len(values) if values else None for values in steps]
    minima = [min(values, default=None) for values in steps]
    maxima = [max(values, default=None) for values in steps]
    return Series(node_id, metric, object_, averages, minima, maxima)
