"""Alerts: rules, which of them hold where, and the arithmetic by which one fires, stays and resolves. Pure.

A rule compares a measured value with a threshold. It fires when at least `hits` samples of its window are beyond the
threshold, and resolves only when fewer than `hits`, and not the newest, are still beyond the *clear line*, which lies on
the good side of the threshold by the hysteresis: a value that swings around the threshold makes one alert, not twenty.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from controlplane.domain.failure import FailureCode, Refused, invalid

# The hot hour is what rules look at.
MAX_WINDOW = timedelta(hours=1)
MAX_HITS = 3600
MAX_REPEAT = timedelta(days=30)
MIN_REPEAT = timedelta(minutes=1)
MAX_ACKNOWLEDGE = timedelta(days=30)
MAX_SILENCE = timedelta(days=365)
# Callers' clocks may be a little ahead of ours.
SLACK = timedelta(minutes=1)


class AlertState(StrEnum):
    """Where an alert stands."""

    FIRING = "FIRING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"


# A resolved alert stays so: when the rule is met again, that is a new alert.
TRANSITIONS: dict[AlertState, frozenset[AlertState]] = {
    AlertState.FIRING: frozenset({AlertState.ACKNOWLEDGED, AlertState.RESOLVED}),
    AlertState.ACKNOWLEDGED: frozenset({AlertState.FIRING, AlertState.RESOLVED}),
    AlertState.RESOLVED: frozenset(),
}
OPEN = frozenset({AlertState.FIRING, AlertState.ACKNOWLEDGED})


class Severity(StrEnum):
    """How much an alert matters."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


SEVERITY_RANK = {Severity.INFO: 1, Severity.WARNING: 2, Severity.CRITICAL: 3}


class Comparison(StrEnum):
    """On which side of the threshold the bad values lie."""

    ABOVE = "ABOVE"
    BELOW = "BELOW"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is known of nodes and clusters without a metric: what its value is, and in which unit."""

    name: str
    unit: str
    # Of a whole cluster, or of each node.
    of_cluster: bool
    help: str


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition("agent_silent", "seconds", False, "Time since the node's agent was last heard"),
        Condition("no_primary", "seconds", True, "Time since a member last said that it is primary"),
        Condition("mongod_down", "seconds", False, "Time for which the agent has said that mongod does not run"),
        Condition("certificate_expiry", "percent", False, "What is left of the life of the agent's certificate"),
    )
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule or silence counts, or what an alert is about. All empty: the whole installation.

    A cluster's project and a node's cluster are always filled in.
    """

    project_id: str = ""
    cluster_id: str = ""
    node_id: str = ""

    @property
    def level(self) -> int:
        """0 installation, 1 project, 2 cluster, 3 node."""
        return sum(map(bool, (self.project_id, self.cluster_id, self.node_id)))

    def covers(self, other: "Place") -> bool:
        """Whether the other is this place or lies in it."""
        return (
            self.project_id in ("", other.project_id)
            and self.cluster_id in ("", other.cluster_id)
            and self.node_id in ("", other.node_id)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """When to alert. `metric` is a name of the catalogue or of CONDITIONS; `repeat` None: sent once."""

    id: str
    name: str
    place: Place
    metric: str
    comparison: Comparison
    threshold: float
    window: timedelta
    hits: int
    severity: Severity
    hysteresis: float = 0.05
    repeat: timedelta | None = None
    disabled: bool = False
    advice: str = ""
    built_in: bool = False
    created_at: datetime | None = None

    @property
    def of_cluster(self) -> bool:
        """Whether it is about whole clusters and not about each node."""
        return self.metric in CONDITIONS and CONDITIONS[self.metric].of_cluster


class RuleBook:
    """All rules by place: what holds somewhere is what came with WAP, overridden level by level by rules of one's own."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._at: dict[Place, dict[str, Rule]] = {}
        self._built_in: dict[str, Rule] = {}
        for rule in rules:
            level = self._built_in if rule.built_in else self._at.setdefault(rule.place, {})
            level[rule.name] = rule

    def at(self, place: Place) -> dict[str, Rule]:
        """The rules that hold at a place, by name; disabled ones too: they switch off what they override."""
        found = dict(self._built_in)
        for level in (
            Place(),
            Place(place.project_id),
            Place(place.project_id, place.cluster_id),
            place,
        ):
            found.update(self._at.get(level, {}))
        return found


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the samples of a window say. `value` is the newest one."""

    firing: bool
    clear: bool
    value: float


def judge(rule: Rule, values: Sequence[float]) -> Judgement | None:
    """Whether the rule is met, and whether an open alert of it would resolve; None without values: nothing is known."""
    if not values:
        return None
    line = clear_line(rule)
    worst = max(values) if rule.comparison is Comparison.ABOVE else min(values)
    if not _is_beyond(rule.comparison, worst, line):  # nearly always: thousands of windows are looked at each round
        return Judgement(firing=False, clear=True, value=values[-1])
    needed = 1 if rule.metric in CONDITIONS else rule.hits
    beyond = sum(_is_beyond(rule.comparison, value, rule.threshold) for value in values)
    not_clear = [_is_beyond(rule.comparison, value, line) for value in values]
    # Bad samples that leave the window with none behind them are no good news: the node has only fallen silent.
    is_clear = sum(not_clear) < needed and not not_clear[-1]
    return Judgement(firing=beyond >= needed, clear=is_clear, value=values[-1])


def clear_line(rule: Rule) -> float:
    """The threshold, moved to the good side by the hysteresis."""
    margin = abs(rule.threshold) * rule.hysteresis
    return rule.threshold - margin if rule.comparison is Comparison.ABOVE else rule.threshold + margin


def _is_beyond(comparison: Comparison, value: float, line: float) -> bool:
    return value > line if comparison is Comparison.ABOVE else value < line


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts of a place (and of one rule, unless `rule_name` is empty) that are not sent for a while."""

    place: Place
    rule_name: str
    starts_at: datetime
    ends_at: datetime


def is_silenced(silences: Collection[Silence], place: Place, rule_name: str, now: datetime) -> bool:
    """Whether one of the silences keeps alerts of this rule and place from being sent now."""
    return any(
        one.starts_at <= now < one.ends_at and one.rule_name in ("", rule_name) and one.place.covers(place)
        for one in silences
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """What decides whether an open alert is to be sent now."""

    state: AlertState
    silenced: bool
    last_sent_at: datetime | None
    repeat: timedelta | None


def is_due(sending: Sending, now: datetime) -> bool:
    """Once at the beginning, or as soon as a silence ends; then after every repeat interval; not while acknowledged."""
    if sending.state is not AlertState.FIRING or sending.silenced:
        return False
    if sending.last_sent_at is None:
        return True
    return sending.repeat is not None and now - sending.last_sent_at >= sending.repeat


def check_rule(rule: Rule, metrics: Collection[str]) -> Rule:
    """The rule, or a refusal of the first field that is not acceptable."""
    _printable("rule.name", rule.name, 64)
    if rule.metric not in metrics and rule.metric not in CONDITIONS:
        raise invalid("rule.metric", rule.metric, f"a metric of the catalogue, or one of {', '.join(CONDITIONS)}")
    if rule.of_cluster and rule.place.node_id:
        raise invalid("rule.metric", rule.metric, "a rule of a node needs a metric or condition of nodes")
    if not math.isfinite(rule.threshold):
        raise invalid("rule.threshold", rule.threshold, "a finite number")
    if not timedelta() <= rule.window <= MAX_WINDOW:
        raise invalid("rule.window", rule.window, "0 s to 1 h")
    if not 1 <= rule.hits <= MAX_HITS:
        raise invalid("rule.hits", rule.hits, f"1 to {MAX_HITS}")
    if not 0 <= rule.hysteresis <= 1:
        raise invalid("rule.hysteresis", rule.hysteresis, "0 to 1, a share of the threshold")
    if rule.repeat is not None and not MIN_REPEAT <= rule.repeat <= MAX_REPEAT:
        raise invalid("rule.repeat_interval", rule.repeat, "1 min to 30 d, or none")
    if len(rule.advice) > 500:
        raise invalid("rule.advice", f"{len(rule.advice)} characters", "at most 500 characters")
    return rule


def _printable(field: str, text: str, most: int) -> None:
    if not 1 <= len(text) <= most or not text.isprintable() or text != text.strip():
        raise invalid(field, text, f"1 to {most} printable characters, no space at the ends")


def check_acknowledgement(state: AlertState, until: datetime, now: datetime) -> None:
    """Refuse what is over, and times that are past or too far away."""
    if state not in OPEN:
        raise Refused(
            FailureCode.OPERATION_FINISHED,
            "the alert has resolved",
            field="alert_id",
            given=state,
            allowed="an alert that is firing or acknowledged",
        )
    if not now < until <= now + MAX_ACKNOWLEDGE + SLACK:
        raise invalid("until_time", until.isoformat(timespec="seconds"), "a time within the next 30 days")


def check_silence(silence: Silence, now: datetime) -> Silence:
    """The silence, or a refusal of times that make no sense."""
    if silence.ends_at <= max(silence.starts_at, now):
        given = silence.ends_at.isoformat(timespec="seconds")
        raise invalid("silence.end_time", given, "a time in the future, after the start")
    if silence.ends_at > now + MAX_SILENCE + SLACK:
        raise invalid("silence.end_time", silence.ends_at.isoformat(timespec="seconds"), "a time within a year")
    return silence
