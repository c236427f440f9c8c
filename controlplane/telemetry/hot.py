"""The hot hour: the last hour of every node in memory, for live charts, fleet overviews and alerts.

A ring of 360 slots of ten seconds for each node, one float32 for each metric: 144 KB for a node of 100 metrics. It holds
what nodes say of themselves (object ""); namespaces and disks are answered from the store. Of several samples within one
slot (a node that somebody watches samples every second) the newest counts. Everything here runs on the event loop.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.clock import Clock
from controlplane.telemetry.grid import end_of
from controlplane.telemetry.port import Frame, Grid, MetricQuery, MetricStore, Series

HOUR = timedelta(hours=1)
SLOT_SECONDS = 10
SLOTS = 360
MOST_METRICS = 512
# 256 MiB of float32. Beyond it the node that was silent longest goes: the store still has it.
MOST_VALUES = 64 * 2**20
_COLUMNS_AT_ONCE = 32
_NODES_AT_ONCE = 10

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Indexes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest value of a metric, and when it was measured (aware UTC)."""

    time: datetime
    value: float


class HotHour:
    """The last hour of each node."""

    def __init__(self, clock: Clock, most_values: int = MOST_VALUES) -> None:
        self._clock = clock
        self._most_values = most_values
        self._columns: dict[str, int] = {}
        self._indexes: dict[tuple[str, ...], Indexes] = {}
        self._nodes: dict[str, _Node] = {}
        self._held = 0
        self._complete_since = clock.now()

    def take(self, frames: Iterable[Frame]) -> None:
        """Put frames in; those older than an hour change nothing."""
        for frame in frames:
            if not frame.object:
                indexes, values = self._row(frame)
                self._node(frame.node_id).put(frame.time.timestamp(), indexes, values)
        self._make_room()

    def node_ids(self) -> list[str]:
        """The nodes that are in it."""
        return list(self._nodes)

    def latest(self, node_id: str) -> dict[str, Reading]:
        """The newest value of each metric of a node by name, as old as its time says; empty for an unknown node."""
        node = self._nodes.get(node_id)
        if node is None:
            return {}
        times, values = node.latest_times, node.latest
        return {
            metric: Reading(_moment(times[column]), float(values[column]))
            for metric, column in self._columns.items()
            if column < len(values) and times[column] > 0
        }

    def window(self, node_id: str, metric: str, seconds: float) -> list[tuple[datetime, float]]:
        """Times and values of the last `seconds` before now, oldest first."""
        times, values = self._samples(node_id, metric, self._clock.now() - timedelta(seconds=seconds))
        return [(_moment(time), float(value)) for time, value in zip(times, values, strict=True)]

    def covers(self, start: datetime) -> bool:
        """Whether everything from `start` on is in it, as far as nodes reported it."""
        return start >= max(self._complete_since, self._clock.now() - HOUR)

    def series(self, query: MetricQuery) -> list[Series]:
        """What a MetricStore would answer, for objects None and ""."""
        found = []
        for node_id in query.node_ids if not query.object else ():
            for metric in query.metrics:
                times, values = self._samples(node_id, metric, query.grid.start)
                series = _on_grid(node_id, metric, times, values, query.grid)
                if series is not None:
                    found.append(series)
        return sorted(found, key=lambda series: (series.node_id, series.metric))

    def summarise(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        """The quantile (0 to 1) of each node's samples in [start, end); nodes without samples are left out."""
        column = self._columns.get(metric)
        known = [node_id for node_id in node_ids if node_id in self._nodes]
        if column is None or not known:
            return {}
        nodes = [self._nodes[node_id] for node_id in known]
        values = np.stack([node.column(column) for node in nodes])
        times = np.stack([node.times for node in nodes])
        values[(times < start.timestamp()) | (times >= end.timestamp())] = np.nan
        return {
            node_id: float(value)
            for node_id, value in zip(known, _quantiles(values, quantile), strict=True)
            if np.isfinite(value)
        }

    def forget(self, node_id: str) -> None:
        """Drop a node that is gone."""
        node = self._nodes.pop(node_id, None)
        self._held -= node.values.size if node else 0

    async def refill(self, store: MetricStore, node_ids: Sequence[str], metrics: Sequence[str]) -> None:
        """Read the last hour back after a start. What came in meanwhile stays as it is."""
        now = self._clock.now()
        step = timedelta(seconds=SLOT_SECONDS)
        first = int((now - HOUR).timestamp()) // SLOT_SECONDS + 1
        grid = Grid(datetime.fromtimestamp(first * SLOT_SECONDS, UTC), step, SLOTS)
        times: Times = np.arange(grid.count, dtype=np.float64) * SLOT_SECONDS + grid.start.timestamp()
        for begin in range(0, len(node_ids), _NODES_AT_ONCE):
            some = node_ids[begin : begin + _NODES_AT_ONCE]
            for series in await store.query(MetricQuery(some, metrics, grid, object="")):
                column, values = self._column(series.metric), np.array(series.averages, dtype=np.float32)
                self._node(series.node_id).fill(times, column, values)
        self._complete_since = min(self._complete_since, grid.start)
        self._make_room()

    def _row(self, frame: Frame) -> tuple[Indexes, Floats]:
        names = tuple(frame.values)
        indexes = self._indexes.get(names)
        if indexes is None:
            if len(self._indexes) > 4 * MOST_METRICS:  # what is absent differs from tick to tick
                self._indexes.clear()
            indexes = self._indexes[names] = np.array([self._column(name) for name in names], dtype=np.intp)
        return indexes, np.fromiter(frame.values.values(), dtype=np.float32, count=len(names))

    def _column(self, metric: str) -> int:
        column = self._columns.get(metric)
        if column is None:
            if len(self._columns) >= MOST_METRICS:
                raise ValueError(f"more than {MOST_METRICS} metrics")  # the catalogue is far from it
            column = self._columns[metric] = len(self._columns)
        return column

    def _node(self, node_id: str) -> "_Node":
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node()
        self._held += node.widen(len(self._columns))
        return node

    def _samples(self, node_id: str, metric: str, since: datetime) -> tuple[Times, Floats]:
        node, column = self._nodes.get(node_id), self._columns.get(metric)
        if node is None or column is None:
            return np.empty(0), np.empty(0, dtype=np.float32)
        return node.samples(column, max(since, self._clock.now() - HOUR).timestamp())

    def _make_room(self) -> None:
        while len(self._nodes) > 1 and self._held > self._most_values:
            self.forget(min(self._nodes, key=lambda node_id: self._nodes[node_id].times.max()))


class _Node:
    """The ring of one node. A slot that holds nothing has the time 0."""

    def __init__(self) -> None:
        self.times: Times = np.zeros(SLOTS)
        self.values: Floats = np.full((SLOTS, 0), np.nan, dtype=np.float32)
        self.latest_times: Times = np.zeros(0)
        self.latest: Times = np.zeros(0)

    def widen(self, columns: int) -> int:
        """Make room for `columns` metrics; returns by how many values it grew."""
        more = 0
        missing = columns - self.values.shape[1]
        if missing > 0:
            more = -(-missing // _COLUMNS_AT_ONCE) * _COLUMNS_AT_ONCE
            self.values = np.pad(self.values, ((0, 0), (0, more)), constant_values=np.nan)
            self.latest_times = np.pad(self.latest_times, (0, more))
            self.latest = np.pad(self.latest, (0, more))
        return more * SLOTS

    def put(self, time: float, indexes: Indexes, values: Floats) -> None:
        slot = int(time) // SLOT_SECONDS % SLOTS
        if time < self.times[slot]:
            return
        if int(time) // SLOT_SECONDS != int(self.times[slot]) // SLOT_SECONDS:
            self.values[slot] = np.nan
        self.times[slot] = time
        self.values[slot, indexes] = values
        newer = time >= self.latest_times[indexes]
        self.latest_times[indexes[newer]] = time
        self.latest[indexes[newer]] = values[newer]

    def fill(self, times: Times, column: int, values: Floats) -> None:
        """Put in older values where there is nothing yet."""
        slots = times.astype(np.int64) // SLOT_SECONDS % SLOTS
        same = times.astype(np.int64) // SLOT_SECONDS == self.times[slots].astype(np.int64) // SLOT_SECONDS
        usable = np.isfinite(values) & (same | (times > self.times[slots]))
        stale = slots[usable & ~same]
        self.values[stale] = np.nan
        self.times[stale] = times[usable & ~same]
        empty = usable & np.isnan(self.values[slots, column])
        self.values[slots[empty], column] = values[empty]
        if empty.any() and times[empty].max() > self.latest_times[column]:
            self.latest_times[column] = times[empty].max()
            self.latest[column] = values[empty][times[empty].argmax()]

    def column(self, column: int) -> Floats:
        if column >= self.values.shape[1]:
            return np.full(SLOTS, np.nan, dtype=np.float32)
        return self.values[:, column]

    def samples(self, column: int, since: float) -> tuple[Times, Floats]:
        values = self.column(column)
        held = np.flatnonzero((self.times >= since) & ~np.isnan(values))
        held = held[np.argsort(self.times[held])]
        return self.times[held], values[held]


def _on_grid(node_id: str, metric: str, times: Times, values: Floats, grid: Grid) -> Series | None:
    inside = times < end_of(grid).timestamp()
    if not inside.any():
        return None
    kept = values[inside].astype(np.float64)
    steps = ((times[inside] - grid.start.timestamp()) // grid.step.total_seconds()).astype(np.intp)
    counts = np.bincount(steps, minlength=grid.count)
    minima, maxima = np.full(grid.count, np.inf), np.full(grid.count, -np.inf)
    np.minimum.at(minima, steps, kept)
    np.maximum.at(maxima, steps, kept)
    averages = np.bincount(steps, weights=kept, minlength=grid.count) / np.maximum(counts, 1)
    return Series(node_id, metric, "", *(_with_gaps(column, counts) for column in (averages, minima, maxima)))


def _with_gaps(values: Times, counts: NDArray[Any]) -> list[float | None]:
    return [value if count else None for value, count in zip(values.tolist(), counts.tolist(), strict=True)]


def _quantiles(rows: Floats, quantile: float) -> Times:
    """The quantile of each row without its NaNs, between the two nearest values; NaN for a row of nothing but NaN."""
    ordered = np.sort(rows, axis=1).astype(np.float64)  # NaN comes last
    last = np.maximum((~np.isnan(ordered)).sum(axis=1) - 1, 0)
    place = quantile * last
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, last)
    each = np.arange(len(ordered))
    lower, upper = ordered[each, low], ordered[each, high]
    found: Times = lower + (upper - lower) * (place - low)
    return found


def _moment(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)
