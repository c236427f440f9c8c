"""The two stores of telemetry as ports: what they take, what they answer. One conformance suite holds every implementation.

Times are aware UTC. A node's object is "" for the node itself, else a namespace or a disk within it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

MOST_POINTS = 1000


class StoreUnavailable(Exception):
    """The store cannot be reached or cannot write now; the same call may succeed later."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Values of one node (and object) of one moment. Every value is finite; what was not measured is not in it."""

    node_id: str
    cluster_id: str
    object: str
    time: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Grid:
    """Evenly spaced steps: the first begins at `start`; `count` of them, each `step` long."""

    start: datetime
    step: timedelta
    count: int


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one node (and object) on a grid. The three lists are as long as the grid; None is a gap in all three."""

    node_id: str
    metric: str
    object: str
    averages: Sequence[float | None]
    minima: Sequence[float | None]
    maxima: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """Which series. `object` None: all objects of each node."""

    node_ids: Sequence[str]
    metrics: Sequence[str]
    grid: Grid
    object: str | None = None


class MetricStore(Protocol):
    """Keeps samples and answers series. Raises StoreUnavailable; a write that raises has stored nothing, or may be repeated."""

    async def write(self, frames: Sequence[Frame]) -> None:
        """Store what is not stored yet: a frame of the same node, object and time counts once."""

    async def query(self, query: MetricQuery) -> list[Series]:
        """Series with at least one value, by node, metric, object."""

    async def summarise(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        """The quantile (0 to 1) of each node's samples in [start, end); nodes without samples are left out."""

    async def upkeep(self, now: datetime) -> None:
        """Roll up what is complete and drop what is too old; safe to call at any time and again."""

    async def close(self) -> None:
        """Write out what is held and let go."""


@dataclass(frozen=True, slots=True)
class SlowQuery:
    """What one log line says of one slow operation, without its literals. Durations in milliseconds."""

    namespace: str
    operation: str
    predicate_shape: str
    sort_shape: str
    plan_summary: str
    duration_millis: int
    keys_examined: int
    docs_examined: int
    docs_returned: int
    collection_scan: bool
    sorted_in_memory: bool


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `sequence` numbers the lines of a node: a line of the same node and sequence counts once."""

    node_id: str
    cluster_id: str
    sequence: int
    time: datetime
    component: str
    severity: str
    message_id: int
    text: str
    context: str = ""
    attributes: str = ""
    slow_query: SlowQuery | None = None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines in [start, end). Empty fields do not filter; `node_ids` is always given: what the caller may see."""

    node_ids: Sequence[str]
    start: datetime
    end: datetime
    text: str = ""
    component: str = ""
    # The severities wanted, e.g. ("F", "E", "W"); empty: all.
    severities: tuple[str, ...] = ()
    message_id: int = 0
    only_slow_queries: bool = False
    limit: int = 200
    # Where the last page ended; "" for the first page.
    after: str = ""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines, newest first, and where the next page begins ("" at the end)."""

    lines: Sequence[LogLine]
    after: str


class LogStore(Protocol):
    """Keeps lines and finds them. Raises StoreUnavailable; ValueError for an `after` that it did not give."""

    async def write(self, lines: Sequence[LogLine]) -> None:
        """Store what is not stored yet."""

    async def search(self, query: LogQuery) -> LogPage:
        """The newest lines that match."""

    async def upkeep(self, now: datetime) -> None:
        """Drop what is too old or too much."""

    async def close(self) -> None:
        """Write out what is held and let go."""
