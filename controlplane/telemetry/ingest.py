"""Where agents' reports come in: each sample and line is checked, counted, handed on, and acknowledged.

Whose samples they are is what the agent's certificate says; no message can say it. Everything that was looked at is
acknowledged, also what was refused: it would be refused again. Nothing here waits or does I/O.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from wap.agent.v1 import telemetry_pb2

from collector.catalog import CATALOG, Kind
from controlplane.domain.clock import Clock
from controlplane.telemetry import checks
from controlplane.telemetry.counters import (
    FRAMES,
    FRAMES_RECEIVED,
    LINES,
    LINES_RECEIVED,
    Loss,
    NodeCounts,
    Reason,
)
from controlplane.telemetry.port import Frame, LogLine

MAX_VALUES, MAX_SETS, MAX_OBJECTS = 1000, 600, 500
# A namespace that was not heard of for so long makes room for another.
OBJECT_SECONDS = 3600.0
# How long a node is remembered that says nothing.
MEMORY = timedelta(days=1)
_NAMES = {name: name for name in CATALOG}


@dataclass(frozen=True, slots=True)
class Quota:
    """What a node may send: a second, and at once after a long outage. A healthy one sends 6 frames and at most 1,000
    lines a minute."""

    frames_per_second: float = 50.0
    frames_at_once: float = 60_000.0
    lines_per_second: float = 100.0
    lines_at_once: float = 120_000.0


@dataclass(frozen=True, slots=True)
class _Set:
    """A metric set as a stream declared it: names that the catalogue does not have are None."""

    names: tuple[str | None, ...]
    object: str
    # All names are known, and each stands there once.
    whole: bool
    refused: Reason | None = None


class _Allowance:
    """So many a second, and a supply of so many for a burst."""

    __slots__ = ("_left", "_measured", "_most", "_rate")

    def __init__(self, rate: float, most: float) -> None:
        self._rate, self._most, self._left, self._measured = rate, most, most, time.monotonic()

    def take(self, wanted: int) -> int:
        """How many of these may pass."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._measured) * self._rate)
        self._measured = now
        granted = min(wanted, int(self._left))
        self._left -= granted
        return granted


class _Progress:
    """How far one numbering of a node has come: the last sequence that is acknowledged, and the newest time."""

    __slots__ = ("_newest", "sequence")

    def __init__(self) -> None:
        self.sequence, self._newest = 0, float("-inf")

    def is_repeat(self, sequence: int, at: float) -> bool:
        """Whether this was taken before. A low number with a new time is none: the node lost its disk and counts anew."""
        return sequence <= self.sequence and at <= self._newest

    def passed(self, sequence: int, at: float) -> None:
        """Acknowledge so far."""
        self.sequence = sequence
        self._newest = max(self._newest, at)


@dataclass(slots=True)
class _Node:
    """What outlives the streams of a node, so that a repeat after a reconnect is recognised."""

    heard: datetime
    may_send_frames: _Allowance
    may_send_lines: _Allowance
    frames: _Progress = field(default_factory=_Progress)
    lines: _Progress = field(default_factory=_Progress)
    counts: NodeCounts = field(default_factory=NodeCounts)
    # When each object was last heard of, by a clock that only goes forward.
    objects: dict[str, float] = field(default_factory=dict)

    def has_room_for(self, name: str) -> bool:
        """Remember the object; whether the node may have it."""
        now = time.monotonic()
        if name and name not in self.objects and len(self.objects) >= MAX_OBJECTS:
            self.objects = {one: at for one, at in self.objects.items() if now - at < OBJECT_SECONDS}
            if len(self.objects) >= MAX_OBJECTS:
                return False
        if name:
            self.objects[name] = now
        return True


class Ingest:
    """Takes what streams bring. `take_frames` and `take_lines` get what is good; they must not wait."""

    def __init__(
        self,
        clock: Clock,
        take_frames: Callable[[Sequence[Frame]], None],
        take_lines: Callable[[Sequence[LogLine]], None],
        quota: Quota = Quota(),
    ) -> None:
        self._clock, self.take_frames, self.take_lines, self._quota = clock, take_frames, take_lines, quota
        self._nodes: dict[str, _Node] = {}

    def now(self) -> datetime:
        """The control plane's time."""
        return self._clock.now()

    def open(self, node_id: str, cluster_id: str) -> "Intake":
        """A new stream of this node, whose identity has been proved."""
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = self._new_node()
        return Intake(self, node, node_id, cluster_id)

    def losses(self, node_id: str) -> list[Loss]:
        """What of a node's telemetry was lost, refused or cleaned, as far as this control plane knows."""
        node = self._nodes.get(node_id)
        return node.counts.losses() if node is not None else []

    def forget_silent(self) -> None:
        """Drop the memory of nodes that have said nothing for a day."""
        before = self.now() - MEMORY
        self._nodes = {name: node for name, node in self._nodes.items() if node.heard > before}

    def forget(self, node_ids: Iterable[str]) -> None:
        """These nodes are gone."""
        for node_id in node_ids:
            self._nodes.pop(node_id, None)

    def _new_node(self) -> _Node:
        quota = self._quota
        return _Node(
            self.now(),
            _Allowance(quota.frames_per_second, quota.frames_at_once),
            _Allowance(quota.lines_per_second, quota.lines_at_once),
        )


class Intake:
    """One telemetry stream. Metric sets hold for this stream alone."""

    def __init__(self, ingest: Ingest, node: _Node, node_id: str, cluster_id: str) -> None:
        self._ingest, self._node = ingest, node
        self._node_id, self._cluster_id = node_id, cluster_id
        self._sets: dict[int, _Set] = {}

    def take(self, request: telemetry_pb2.ReportRequest) -> telemetry_pb2.ReportResponse:
        """Take one message; the answer acknowledges all that was in it."""
        now, node = self._ingest.now(), self._node
        node.heard = now
        for metric_set in request.metric_sets:
            self._declare(metric_set)
        if request.frames:
            self._frames(request.frames, now)
        if request.logs:
            self._lines(request.logs, now)
        for dropped in request.dropped:
            node.counts.agent_dropped(dropped.reason, dropped.frames, dropped.logs)
        return telemetry_pb2.ReportResponse(frame_sequence=node.frames.sequence, log_sequence=node.lines.sequence)

    def _declare(self, declared: telemetry_pb2.MetricSet) -> None:
        if declared.id not in self._sets and len(self._sets) >= MAX_SETS:
            return
        name, _ = checks.clean(declared.object, checks.MAX_OBJECT)
        refused = None if self._node.has_room_for(name) else Reason.TOO_MANY_OBJECTS
        # The catalogue's own texts, so that no agent fills our memory with its.
        names = tuple(_NAMES.get(one) for one in declared.names) if len(declared.names) <= MAX_VALUES else ()
        whole = None not in names and len(set(names)) == len(names)
        self._sets[declared.id] = _Set(names, name, whole, refused)

    def _frames(self, frames: Sequence[telemetry_pb2.SampleFrame], now: datetime) -> None:
        FRAMES_RECEIVED.inc(len(frames))
        node, good = self._node, []
        granted = node.may_send_frames.take(len(frames))
        for index, frame in enumerate(frames):
            if frame.sequence > checks.LARGEST_INT:
                node.counts.refuse(FRAMES, Reason.BAD_SEQUENCE)
                continue
            at = checks.moment(frame.time)
            refused = checks.time_refusal(at, now)
            # A time that is not taken must not make a later frame a repeat.
            seconds = frame.time.seconds + frame.time.nanos / 1e9 if refused is None else float("-inf")
            if node.frames.is_repeat(frame.sequence, seconds):
                node.counts.refuse(FRAMES, Reason.REPEAT)
                continue
            node.frames.passed(frame.sequence, seconds)
            if index >= granted:
                refused = Reason.TOO_MANY
            if refused is not None or at is None:
                node.counts.refuse(FRAMES, refused or Reason.FUTURE)
                continue
            made = self._frame(frame, at)
            if made is not None:
                good.append(made)
        if good:
            self._ingest.take_frames(good)

    def _frame(self, frame: telemetry_pb2.SampleFrame, at: datetime) -> Frame | None:
        """The good values of a frame, if there are any."""
        counts, declared = self._node.counts, self._sets.get(frame.metric_set_id)
        if declared is None or declared.refused is not None or len(frame.values) != len(declared.names):
            reason = Reason.UNKNOWN_SET if declared is None else declared.refused or Reason.WRONG_LENGTH
            counts.refuse(FRAMES, reason)
            return None
        given = frame.values
        values: dict[str, float]
        if declared.whole and checks.all_good(given):
            values = dict(zip(declared.names, given, strict=True))  # type: ignore[arg-type] # whole: none is None
            for index in frame.absent:
                if index < len(given):
                    values.pop(declared.names[index], None)  # type: ignore[arg-type]
        else:
            values = self._one_by_one(declared, frame)
        if not values:
            return None
        return Frame(self._node_id, self._cluster_id, declared.object, at, values)

    def _one_by_one(self, declared: _Set, frame: telemetry_pb2.SampleFrame) -> dict[str, float]:
        absent, good = set(frame.absent), {}
        for index, (name, value) in enumerate(zip(declared.names, frame.values, strict=True)):
            if index in absent:
                continue
            if name is None:
                self._node.counts.refuse(FRAMES, Reason.UNKNOWN_METRIC)
                continue
            refused = checks.value_refusal(value, is_rate=CATALOG[name].kind is Kind.RATE)
            if refused is None:
                good[name] = value
            else:
                self._node.counts.refuse(FRAMES, refused)
        return good

    def _lines(self, records: Sequence[telemetry_pb2.LogRecord], now: datetime) -> None:
        LINES_RECEIVED.inc(len(records))
        node, good = self._node, []
        granted = node.may_send_lines.take(len(records))
        for index, record in enumerate(records):
            if record.sequence > checks.LARGEST_INT:
                node.counts.refuse(LINES, Reason.BAD_SEQUENCE)
                continue
            line, done = checks.line_of(record, self._node_id, self._cluster_id, now)
            seconds = line.time.timestamp() if Reason.LINE_TIME not in done else float("-inf")
            if node.lines.is_repeat(record.sequence, seconds):
                node.counts.refuse(LINES, Reason.REPEAT)
                continue
            node.lines.passed(record.sequence, seconds)
            if index >= granted:
                node.counts.refuse(LINES, Reason.TOO_MANY)
                continue
            for reason in done:
                node.counts.refuse(LINES, reason)
            good.append(line)
        if good:
            self._ingest.take_lines(good)
