"""Rules, alerts with their history, and silences. What waits to be sent stands in `alert_channels`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, case, delete, or_, select
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.alert import (
    TRANSITIONS,
    AlertState,
    Comparison,
    Place,
    Rule,
    Severity,
    Silence,
)
from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, Refused
from controlplane.domain.operation import advance
from controlplane.store.alert_tables import Alert, AlertDelivery, AlertEvent, AlertRule, AlertSilence
from controlplane.store.bus import publish
from controlplane.store.database import take_turns
from controlplane.store.tables import Cluster, Node, Project

MOST_RULES = 2000


def list_rules(tx: Session) -> list[Rule]:
    """All stored rules of all levels."""
    return [rule_of(row) for row in tx.scalars(select(AlertRule))]


def get_rule(tx: Session, rule_id: str) -> AlertRule | None:
    """The stored rule."""
    return tx.get(AlertRule, rule_id)


def rule_of(row: AlertRule) -> Rule:
    """The rule that a row holds."""
    return Rule(
        id=row.id,
        name=row.name,
        place=Place(row.project_id, row.cluster_id, row.node_id),
        metric=row.metric,
        comparison=Comparison(row.comparison),
        threshold=row.threshold,
        window=timedelta(seconds=row.window_seconds),
        hits=row.hits,
        severity=Severity(row.severity),
        hysteresis=row.hysteresis,
        repeat=None if row.repeat_seconds is None else timedelta(seconds=row.repeat_seconds),
        disabled=row.disabled,
        advice=row.advice,
        created_at=row.created_at,
    )


def insert_rule(tx: Session, rule: Rule, now: datetime) -> AlertRule:
    """A new rule; ALREADY_EXISTS when its level has one of that name."""
    take_turns(tx, "alert-rules")
    place = rule.place
    if _named(tx, place, rule.name) is not None:
        raise Refused(
            FailureCode.ALREADY_EXISTS,
            f"this level already has a rule {rule.name}",
            field="rule.name",
            given=rule.name,
            allowed="a name that no rule of the same level has",
        )
    if len(tx.scalars(select(AlertRule.id)).all()) >= MOST_RULES:
        raise Refused(
            FailureCode.QUOTA_EXCEEDED,
            f"there are {MOST_RULES} alert rules",
            field="rule",
            given=MOST_RULES,
            allowed=f"at most {MOST_RULES} rules",
        )
    row = AlertRule(
        id=ids.alert_rule_id(),
        project_id=place.project_id,
        cluster_id=place.cluster_id,
        node_id=place.node_id,
        created_at=now,
    )
    _fill(row, rule)
    tx.add(row)
    tx.flush()
    return row


def change_rule(tx: Session, row: AlertRule, rule: Rule) -> None:
    """Replace the settings of a rule; ALREADY_EXISTS when another one of its level has the new name."""
    take_turns(tx, "alert-rules")
    other = _named(tx, Place(row.project_id, row.cluster_id, row.node_id), rule.name)
    if other is not None and other.id != row.id:
        raise Refused(
            FailureCode.ALREADY_EXISTS,
            f"this level already has a rule {rule.name}",
            field="rule.name",
            given=rule.name,
            allowed="a name that no other rule of the same level has",
        )
    _fill(row, rule)
    tx.flush()


def _named(tx: Session, place: Place, name: str) -> AlertRule | None:
    return tx.scalar(
        select(AlertRule).where(
            AlertRule.project_id == place.project_id,
            AlertRule.cluster_id == place.cluster_id,
            AlertRule.node_id == place.node_id,
            AlertRule.name == name,
        )
    )


def _fill(row: AlertRule, rule: Rule) -> None:
    row.name, row.metric, row.comparison = rule.name, rule.metric, rule.comparison
    row.threshold, row.hits, row.severity = rule.threshold, rule.hits, rule.severity
    row.window_seconds, row.hysteresis = rule.window.total_seconds(), rule.hysteresis
    row.repeat_seconds = None if rule.repeat is None else rule.repeat.total_seconds()
    row.disabled, row.advice = rule.disabled, rule.advice


@dataclass(frozen=True, slots=True)
class Subject:
    """A cluster or node that an alert is about, with the names it has now. No node: the whole cluster."""

    place: Place
    cluster_name: str
    node_name: str = ""


def open_key(rule_name: str, place: Place) -> str:
    """What at most one open alert may have: by the rule's name, so that an override goes on with the same alert."""
    return f"{place.cluster_id}/{place.node_id}/{rule_name}"


def list_open(tx: Session) -> Sequence[Alert]:
    """Open alerts, oldest first."""
    return tx.scalars(select(Alert).where(Alert.open_key.is_not(None)).order_by(Alert.started_at, Alert.id)).all()


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule that is met, what meets it, and with which value."""

    rule: Rule
    subject: Subject
    value: float

    @property
    def key(self) -> str:
        """Of what at most one is open."""
        return open_key(self.rule.name, self.subject.place)


def fire(tx: Session, firing: Sequence[Firing], now: datetime) -> list[Alert]:
    """Open alerts for those that have none open yet. Call with the turn of "alerts" taken."""
    taken = set(tx.scalars(select(Alert.open_key).where(Alert.open_key.is_not(None))))
    made = [_alert(one, now) for one in firing if one.key not in taken]
    tx.add_all(made)
    for alert in made:
        note(tx, alert, "fired", now)
    tx.flush()
    return made


def _alert(one: Firing, now: datetime) -> Alert:
    rule, place = one.rule, one.subject.place
    return Alert(
        id=ids.alert_id(),
        open_key=one.key,
        rule_id=rule.id,
        rule_name=rule.name,
        project_id=place.project_id,
        cluster_id=place.cluster_id,
        cluster_name=one.subject.cluster_name,
        node_id=place.node_id,
        node_name=one.subject.node_name,
        metric=rule.metric,
        comparison=rule.comparison,
        threshold=rule.threshold,
        value=one.value,
        severity=rule.severity,
        advice=rule.advice,
        state=AlertState.FIRING,
        started_at=now,
        resolved_at=None,
        acknowledged_until=None,
        acknowledged_by="",
        last_sent_at=None,
    )


def resolve(tx: Session, alert: Alert, why: str, now: datetime) -> None:
    """The alert is over; `why` in a few words."""
    alert.state = advance(TRANSITIONS, AlertState(alert.state), AlertState.RESOLVED)
    alert.open_key, alert.resolved_at, alert.acknowledged_until = None, now, None
    note(tx, alert, "resolved", now, detail=why)


def acknowledge(tx: Session, alert: Alert, until: datetime, actor: str, comment: str, now: datetime) -> None:
    """Someone takes care until then; a second acknowledgement replaces the first."""
    alert.state = advance(TRANSITIONS, AlertState(alert.state), AlertState.ACKNOWLEDGED)
    alert.acknowledged_until, alert.acknowledged_by = until, actor
    text = f"until {until:%Y-%m-%d %H:%M:%S} UTC"
    note(tx, alert, "acknowledged", now, detail=f"{text}: {comment}" if comment else text, actor=actor)


def end_acknowledgement(tx: Session, alert: Alert, now: datetime) -> None:
    """The time is over and nothing has become better: it fires again, and is sent again."""
    alert.state = advance(TRANSITIONS, AlertState(alert.state), AlertState.FIRING)
    alert.acknowledged_until = alert.last_sent_at = None
    note(tx, alert, "acknowledgement ended", now)


def note(tx: Session, alert: Alert, what: str, now: datetime, *, detail: str = "", actor: str = "") -> None:
    """Add to the history, and wake those who watch alerts."""
    tx.add(AlertEvent(alert_id=alert.id, time=now, what=what[:255], detail=detail, actor=actor))
    publish(tx, f"alert/{alert.cluster_id}/{alert.id}")


def adopt(alert: Alert, rule: Rule) -> None:
    """The rule was changed or overridden while the alert was open: from now on it says what holds."""
    alert.rule_id, alert.comparison, alert.threshold = rule.id, rule.comparison, rule.threshold
    alert.metric, alert.severity, alert.advice = rule.metric, rule.severity, rule.advice


def wake(tx: Session) -> None:
    """Wake those who watch alerts: values have changed."""
    publish(tx, "alert/values")


def get(tx: Session, alert_id: str) -> Alert | None:
    """The alert."""
    return tx.get(Alert, alert_id)


def lock(tx: Session, alert_id: str) -> Alert | None:
    """The alert, which nobody else moves before this transaction ends."""
    return tx.get(Alert, alert_id, with_for_update=True)


def history(tx: Session, alert_id: str) -> Sequence[AlertEvent]:
    """What has happened to it, oldest first."""
    return tx.scalars(select(AlertEvent).where(AlertEvent.alert_id == alert_id).order_by(AlertEvent.id)).all()


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts; empty fields do not filter, `project_ids` None means all projects."""

    project_ids: Collection[str] | None
    cluster_id: str = ""
    node_id: str = ""
    include_resolved: bool = False


def list_page(
    tx: Session, wanted: AlertFilter, after: tuple[int, datetime, str] | None, limit: int | None
) -> Sequence[Alert]:
    """Open ones first, then newest first, behind the given (0 for open or 1, start, id)."""
    rank = case((Alert.open_key.is_not(None), 0), else_=1)
    query = select(Alert).order_by(rank, Alert.started_at.desc(), Alert.id).limit(limit)
    if wanted.project_ids is not None:
        query = query.where(Alert.project_id.in_(wanted.project_ids))
    if wanted.cluster_id:
        query = query.where(Alert.cluster_id == wanted.cluster_id)
    if wanted.node_id:
        query = query.where(Alert.node_id == wanted.node_id)
    if not wanted.include_resolved:
        query = query.where(Alert.open_key.is_not(None))
    if after is not None:
        last_rank, start, alert_id = after
        older = or_(Alert.started_at < start, and_(Alert.started_at == start, Alert.id > alert_id))
        query = query.where(or_(rank > last_rank, and_(rank == last_rank, older)))
    return tx.scalars(query).all()


def forget_resolved(tx: Session, before: datetime) -> int:
    """Drop alerts that resolved before then, with their history; how many."""
    old = tx.scalars(select(Alert.id).where(Alert.resolved_at < before).limit(500)).all()
    if old:
        for table, column in ((AlertEvent, AlertEvent.alert_id), (AlertDelivery, AlertDelivery.alert_id)):
            tx.execute(delete(table).where(column.in_(old)))
        tx.execute(delete(Alert).where(Alert.id.in_(old)))
    return len(old)


def forget_orphans(tx: Session, before: datetime) -> int:
    """Drop rules of projects, clusters and nodes that are gone, and silences that ended before then; how many rules."""
    tx.execute(delete(AlertSilence).where(AlertSilence.ends_at < before))
    living = select(Cluster.id).where(Cluster.state != ClusterState.DELETED)
    present = select(Node.id).where(Node.removed_at.is_(None))
    gone = or_(
        and_(AlertRule.project_id != "", AlertRule.project_id.not_in(select(Project.id))),
        and_(AlertRule.cluster_id != "", AlertRule.cluster_id.not_in(living)),
        and_(AlertRule.node_id != "", AlertRule.node_id.not_in(present)),
    )
    return len(tx.scalars(delete(AlertRule).where(gone).returning(AlertRule.id)).all())


def insert_silence(tx: Session, silence: Silence, comment: str, actor: str) -> AlertSilence:
    """A new silence."""
    row = AlertSilence(
        id=ids.silence_id(),
        project_id=silence.place.project_id,
        cluster_id=silence.place.cluster_id,
        node_id=silence.place.node_id,
        rule_name=silence.rule_name,
        starts_at=silence.starts_at,
        ends_at=silence.ends_at,
        comment=comment,
        created_by=actor,
    )
    tx.add(row)
    publish(tx, "alert/silences")
    return row


def list_silences(tx: Session, project_ids: Collection[str] | None, now: datetime) -> Sequence[AlertSilence]:
    """Silences that have not ended, by end; those of the whole installation concern every project."""
    query = select(AlertSilence).where(AlertSilence.ends_at > now).order_by(AlertSilence.ends_at, AlertSilence.id)
    if project_ids is not None:
        query = query.where(AlertSilence.project_id.in_([*project_ids, ""]))
    return tx.scalars(query).all()


def silence_of(row: AlertSilence) -> Silence:
    """The silence that a row holds."""
    return Silence(Place(row.project_id, row.cluster_id, row.node_id), row.rule_name, row.starts_at, row.ends_at)


def end_silence(tx: Session, row: AlertSilence, now: datetime) -> None:
    """Alerts are sent again from now on. One that has not begun never will."""
    row.ends_at = min(row.ends_at, now)
    publish(tx, "alert/silences")
