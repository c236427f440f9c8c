"""What becomes of samples and lines, counted: for the installation in Prometheus' words, and for each node by reason."""

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from controlplane.telemetry.outbox import Outbox

# How many reasons of its own an agent may name; the rest is counted together.
MOST_AGENT_REASONS, MAX_REASON = 20, 64
OTHER = "other"


class Reason(StrEnum):
    """Why a sample or line was refused, or what had to be done to it."""

    REPEAT = "repeat"
    UNKNOWN_SET = "unknown metric set"
    UNKNOWN_METRIC = "unknown metric"
    WRONG_LENGTH = "as many values as the set has names"
    NOT_FINITE = "not finite"
    NEGATIVE_RATE = "negative rate"
    FUTURE = "time in the future"
    TOO_OLD = "too old"
    TOO_MANY_OBJECTS = "too many objects"
    TOO_MANY = "more than a node may send"
    BAD_SEQUENCE = "sequence out of range"
    LINE_CUT = "line cut"
    LINE_CLEANED = "control characters removed"
    LINE_TIME = "time of the line replaced"


RECEIVED = prometheus_client.Counter(
    "wap_telemetry_received", "Sample frames and log lines received from agents", ["kind"]
)
REFUSED = prometheus_client.Counter(
    "wap_telemetry_refused", "Samples and log lines refused or cleaned, by reason", ["kind", "reason"]
)
AGENT_LOST = prometheus_client.Counter(
    "wap_telemetry_agent_lost", "Sample frames and log lines that agents dropped before they could send them", ["kind"]
)
FRAMES, LINES = "frame", "line"
# Looking a label up costs more than counting.
FRAMES_RECEIVED, LINES_RECEIVED = RECEIVED.labels(FRAMES), RECEIVED.labels(LINES)


@dataclass(frozen=True, slots=True)
class Loss:
    """So many samples or lines of a node, by what became of them; `on_node`: they never left it."""

    reason: str
    count: int
    on_node: bool


@dataclass(slots=True)
class NodeCounts:
    """The counts of one node since this control plane started, and its agent's own since the agent started."""

    refused: Tally[Reason] = field(default_factory=Tally)
    _agent: dict[str, tuple[int, int]] = field(default_factory=dict)

    def refuse(self, kind: str, reason: Reason, count: int = 1) -> None:
        """Count so many, of the kind FRAMES or LINES."""
        self.refused[reason] += count
        REFUSED.labels(kind, reason).inc(count)

    def agent_dropped(self, reason: str, frames: int, lines: int) -> None:
        """Take over what the agent counts since its start."""
        name = reason[:MAX_REASON] if reason.isprintable() and reason else OTHER
        if name not in self._agent and len(self._agent) >= MOST_AGENT_REASONS:
            name = OTHER
        before_frames, before_lines = self._agent.get(name, (0, 0))
        AGENT_LOST.labels(FRAMES).inc(_increase(before_frames, frames))
        AGENT_LOST.labels(LINES).inc(_increase(before_lines, lines))
        self._agent[name] = (frames, lines)

    def losses(self) -> list[Loss]:
        """Everything that is not zero, repeats left out: they are no loss."""
        return [*self._refused(), *self._dropped()]

    def _refused(self) -> Iterator[Loss]:
        for reason, count in sorted(self.refused.items()):
            if count and reason is not Reason.REPEAT:
                yield Loss(reason, count, False)

    def _dropped(self) -> Iterator[Loss]:
        for reason, counts in sorted(self._agent.items()):
            if sum(counts):
                yield Loss(reason, sum(counts), True)


def _increase(before: int, now: int) -> int:
    """A count that went back began anew with a new agent."""
    return now - before if now >= before else now


class StoreFigures(Collector):
    """What waits for the stores, was written and was lost, read when somebody asks for it."""

    def __init__(
        self, outboxes: Mapping[str, Outbox[Any]], lost: Mapping[str, Callable[[], Mapping[str, int]]]
    ) -> None:
        self._outboxes, self._lost = outboxes, lost

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """The figures of this moment."""
        waiting = GaugeMetricFamily(
            "wap_telemetry_store_waiting", "Items not yet written to the store", labels=["store"]
        )
        written = CounterMetricFamily("wap_telemetry_store_written", "Items that the store has taken", labels=["store"])
        labels = ["store", "reason"]
        lost = CounterMetricFamily("wap_telemetry_store_lost", "Items lost before the store, or in it", labels=labels)
        for name, outbox in self._outboxes.items():
            waiting.add_metric([name], outbox.waiting)
            written.add_metric([name], outbox.written)
            counts = Tally(outbox.lost)
            counts.update(self._lost[name]() if name in self._lost else {})
            for reason, count in counts.items():
                lost.add_metric([name, reason], count)
        yield from (waiting, written, lost)
