"""One round of looking: the snapshot and the measurements against the rules. Writes nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from controlplane.alerting.conditions import Conditions, Known
from controlplane.alerting.snapshot import ClusterFacts, NodeFacts, Snapshot
from controlplane.domain.alert import CONDITIONS, Rule, judge
from controlplane.store.alert_tables import Alert
from controlplane.store.alerts import Firing, Subject, open_key

# A rule without a window looks at the newest sample, if it is not older than this.
NEWEST = timedelta(seconds=60)
# A metric that was not there for so long, while others were, is no longer measured: rates are absent after a restart.
ABSENT = timedelta(minutes=2)
# Nodes between two breaths of the event loop: some milliseconds.
BREATH = 10


class Timed(Protocol):
    """A measured value."""

    @property
    def time(self) -> datetime:
        """When it was measured, aware UTC."""


class Measurements(Protocol):
    """The last hour of the nodes whose agents this control plane hears (see telemetry's HotHour)."""

    def window(self, node_id: str, metric: str, seconds: float) -> Sequence[tuple[datetime, float]]:
        """Times and values of the last `seconds` before now, oldest first; empty for what is not known."""

    def latest(self, node_id: str) -> Mapping[str, Timed]:
        """The newest value of each metric of a node; empty for an unknown node."""


@dataclass
class Decisions:
    """What is to be written: new alerts, values and settings of open ones, and which resolve and why; by alert id."""

    fire: list[Firing] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    adopt: dict[str, Rule] = field(default_factory=dict)
    resolve: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fire or self.values or self.adopt or self.resolve)


class Round:
    """One look at everything. `leading`: this control plane looks after what the database says; all look at samples.

    `absent` goes from round to round: since when the metric of an open alert is missing, by alert id.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        measurements: Measurements,
        conditions: Conditions,
        absent: dict[str, datetime],
        now: datetime,
        *,
        leading: bool,
    ) -> None:
        self._snapshot, self._measurements, self._conditions = snapshot, measurements, conditions
        self._absent, self._now, self._leading = absent, now, leading
        self._decisions = Decisions()
        # Keys of alerts that make sense now: a rule that holds for something that is there.
        self._sensible: set[str] = set()

    async def decide(self) -> Decisions:
        """Look at every cluster and node, with breaths in between for everybody else on the event loop."""
        looked_at = 0
        for cluster in self._snapshot.clusters:
            self._look_at_cluster(cluster)
            for node in cluster.nodes:
                self._look_at_node(node)
                looked_at += 1
                if looked_at % BREATH == 0:
                    await asyncio.sleep(0)
        if self._leading:
            self._end_the_senseless()
        for alert_id in self._decisions.resolve:
            self._absent.pop(alert_id, None)
        return self._decisions

    def _look_at_cluster(self, cluster: ClusterFacts) -> None:
        for rule, alert in self._rules(cluster.subject, of_cluster=True):
            if self._leading:
                known = self._conditions.of_cluster(rule.metric, cluster, self._now, alert)
                self._judge_condition(rule, cluster.subject, alert, known)

    def _look_at_node(self, node: NodeFacts) -> None:
        seen: dict[tuple[str, float], Sequence[tuple[datetime, float]]] = {}
        for rule, alert in self._rules(node.subject, of_cluster=False):
            if rule.metric in CONDITIONS:
                if self._leading:
                    known = self._conditions.of_node(rule.metric, node, self._now, alert)
                    self._judge_condition(rule, node.subject, alert, known)
                continue
            key = rule.metric, (rule.window or NEWEST).total_seconds()
            if key not in seen:
                seen[key] = self._measurements.window(node.subject.place.node_id, *key)
            self._judge_samples(rule, node.subject, alert, seen[key])

    def _rules(self, subject: Subject, *, of_cluster: bool) -> list[tuple[Rule, Alert | None]]:
        found = []
        for rule in self._snapshot.book.at(subject.place).values():
            if not rule.disabled and rule.of_cluster is of_cluster:
                found.append((rule, self._snapshot.open.get(open_key(rule.name, subject.place))))
        return found

    def _judge_condition(self, rule: Rule, subject: Subject, alert: Alert | None, known: Known | None) -> None:
        if known is None:
            return  # makes no sense here and now: an open alert of it ends
        self._sensible.add(open_key(rule.name, subject.place))
        judged = judge(rule, [known.value])
        witnessed = judge(rule, [known.witnessed])
        assert judged is not None
        assert witnessed is not None
        self._note(rule, subject, alert, known.value, firing=judged.firing and witnessed.firing, clear=judged.clear)

    def _judge_samples(
        self, rule: Rule, subject: Subject, alert: Alert | None, samples: Sequence[tuple[datetime, float]]
    ) -> None:
        self._sensible.add(open_key(rule.name, subject.place))
        values = [value for _, value in samples]
        judged = judge(rule, values if rule.window else values[-1:])
        if judged is not None:
            if alert is not None:
                self._absent.pop(alert.id, None)
            self._note(rule, subject, alert, judged.value, firing=judged.firing, clear=judged.clear)
        elif alert is not None and self._is_no_longer_measured(subject, alert):
            self._decisions.resolve[alert.id] = "it is no longer measured"

    def _is_no_longer_measured(self, subject: Subject, alert: Alert) -> bool:
        """As the lag of a member that has become primary. A node that is silent keeps its alert."""
        since = self._now - NEWEST
        if not any(one.time > since for one in self._measurements.latest(subject.place.node_id).values()):
            self._absent.pop(alert.id, None)
            return False
        return self._now - self._absent.setdefault(alert.id, self._now) >= ABSENT

    def _note(
        self, rule: Rule, subject: Subject, alert: Alert | None, value: float, *, firing: bool, clear: bool
    ) -> None:
        if alert is None:
            if firing:
                self._decisions.fire.append(Firing(rule, subject, value))
            return
        if value != alert.value:
            self._decisions.values[alert.id] = value
        if clear:
            self._decisions.resolve[alert.id] = "the value is good again"
        elif (alert.rule_id, alert.threshold, alert.severity) != (rule.id, rule.threshold, rule.severity):
            self._decisions.adopt[alert.id] = rule

    def _end_the_senseless(self) -> None:
        for key, alert in self._snapshot.open.items():
            if key not in self._sensible and alert.id not in self._decisions.resolve:
                self._decisions.resolve[alert.id] = "the rule, the node or the cluster is not there any more"
