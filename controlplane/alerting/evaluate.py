"""The task that holds rules against what was measured, every ten seconds, apart from operations.

Each control plane looks at the samples of the nodes whose agents it hears. What stands in the database (silent agents,
missing primaries, certificates) is looked at by the one that holds the lease. What is decided is written in one
transaction that all control planes take in turns, with the messages to be sent; at most one alert of a rule and a node
is open. A round that fails changes nothing, and the next one looks again.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.orm import Session

from controlplane.alerting import snapshot, wording
from controlplane.alerting.conditions import Conditions
from controlplane.alerting.decide import Decisions, Measurements, Round
from controlplane.alerting.snapshot import Snapshot
from controlplane.domain.alert import AlertState, Place, RuleBook, Sending, Silence, is_due, is_silenced
from controlplane.domain.clock import Clock
from controlplane.store import alert_channels, alerts, leases
from controlplane.store.alert_tables import Alert, AlertChannel
from controlplane.store.alerts import Firing
from controlplane.store.database import Database, take_turns
from controlplane.store.vault import Vault

LEASE = "alerts"
LEASE_LIFE = timedelta(seconds=30)
EVERY_SECONDS = 10.0
HISTORY = timedelta(days=365)
# What has been open for longer when it is first sent (after a silence, say) is told as still firing.
NEW = timedelta(minutes=1)
# Alerts opened in one transaction.
AT_ONCE = 200
# Old things are looked for every so many rounds.
UPKEEP_ROUNDS = 360
log = structlog.get_logger(__name__)
ROUNDS = Counter("wap_alert_rounds", "Rounds of looking at all alert rules", ["outcome"])
OPEN = Gauge("wap_alerts_open", "Alerts that are firing or acknowledged")


class Evaluator:
    """Looks at all rules. `holder` names this control plane among several."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        measurements: Measurements,
        *,
        holder: str,
        certificate_life: timedelta,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._database, self._vault, self._clock, self._measurements = database, vault, clock, measurements
        self._holder, self._every = holder, every_seconds
        self._conditions = Conditions(certificate_life)
        self._absent: dict[str, datetime] = {}
        self._rounds = 0

    async def run(self) -> None:
        """Look again and again, whatever happens."""
        while True:
            try:
                await self.round()
                ROUNDS.labels("done").inc()
            except Exception:  # the next round looks again; alerts must not end because one look failed
                ROUNDS.labels("failed").inc()
                log.exception("a round of alerts failed")
            await asyncio.sleep(self._every)

    async def round(self) -> None:
        """Look once."""
        found, leading = await self._database.write(self._look)
        now = self._clock.now()
        if leading:
            self._conditions.begin(now, timedelta(seconds=3 * self._every))
        look = Round(found, self._measurements, self._conditions, self._absent, now, leading=leading)
        decisions = await look.decide()
        OPEN.set(len(found.open))
        for start in range(0, len(decisions.fire), AT_ONCE):
            some = decisions.fire[start : start + AT_ONCE]
            await self._database.write(lambda tx: self._fire(tx, some, leading))  # noqa: B023
        if decisions or found.open:
            await self._database.write(lambda tx: self._apply(tx, found.book, decisions, leading))
        self._rounds += 1
        if leading and self._rounds % UPKEEP_ROUNDS == 1:
            await self._database.write(lambda tx: alerts.forget_resolved(tx, now - HISTORY))
            await self._database.write(lambda tx: alerts.forget_orphans(tx, now - HISTORY))
            await self._database.write(lambda tx: alert_channels.forget_orphans(tx, self._vault))

    async def let_go(self) -> None:
        """Another control plane may look after the rows at once."""
        await self._database.write(lambda tx: leases.release(tx, LEASE, self._holder))

    def _look(self, tx: Session) -> tuple[Snapshot, bool]:
        leading = leases.hold(tx, LEASE, self._holder, LEASE_LIFE)
        return snapshot.read(tx), leading

    def _fire(self, tx: Session, firing: Sequence[Firing], leading: bool) -> None:
        """Before the rest, and some at a time: when a whole fleet fires, nobody waits for one long transaction."""
        take_turns(tx, LEASE)
        if not leading or leases.hold(tx, LEASE, self._holder, LEASE_LIFE):
            alerts.fire(tx, firing, self._clock.now())

    def _apply(self, tx: Session, book: RuleBook, decisions: Decisions, leading: bool) -> None:
        take_turns(tx, LEASE)
        if leading and not leases.hold(tx, LEASE, self._holder, LEASE_LIFE):
            return  # we froze, and what was decided is old: the next round looks again
        _Writer(tx, self._clock, book).write(decisions)


class _Writer:
    """Writes one round's decisions, with the messages to be sent."""

    def __init__(self, tx: Session, clock: Clock, book: RuleBook) -> None:
        self._tx, self._now, self._book = tx, clock.now(), book
        self._channels: Sequence[AlertChannel] = alert_channels.list_channels(tx, None)
        self._silences: list[Silence] = [
            alerts.silence_of(row) for row in alerts.list_silences(tx, None, self._now) if row.starts_at <= self._now
        ]

    def write(self, decisions: Decisions) -> None:
        """Values first, so that a message holds the newest."""
        found = {alert.id: alert for alert in alerts.list_open(self._tx)}
        for alert_id, value in decisions.values.items():
            if alert_id in found:
                found[alert_id].value = value
        for alert_id, rule in decisions.adopt.items():
            if alert_id in found:
                alerts.adopt(found[alert_id], rule)
        for alert_id, why in decisions.resolve.items():
            if alert_id in found:
                self._resolve(found.pop(alert_id), why)
        for alert in found.values():
            self._send_if_due(alert)
        if decisions:
            alerts.wake(self._tx)

    def _resolve(self, alert: Alert, why: str) -> None:
        alerts.resolve(self._tx, alert, why, self._now)
        if alert.last_sent_at is not None and not self._is_silenced(alert):
            self._send(alert, "resolved")

    def _send_if_due(self, alert: Alert) -> None:
        until = alert.acknowledged_until
        if alert.state == AlertState.ACKNOWLEDGED and until is not None and until <= self._now:
            alerts.end_acknowledgement(self._tx, alert, self._now)
        state, silenced, sent = AlertState(alert.state), self._is_silenced(alert), alert.last_sent_at
        repeat = self._repeat(alert) if sent is not None else None
        if is_due(Sending(state, silenced, sent, repeat), self._now):
            is_new = sent is None and self._now - alert.started_at < NEW
            # Without a channel for it, it stays unsent: a channel that is added later is told.
            if self._send(alert, "fired" if is_new else "repeated"):
                alert.last_sent_at = self._now

    def _repeat(self, alert: Alert) -> timedelta | None:
        rule = self._book.at(_place(alert)).get(alert.rule_name)
        return rule.repeat if rule is not None else None

    def _send(self, alert: Alert, kind: str) -> int:
        return alert_channels.enqueue(self._tx, self._channels, alert, kind, wording.notice(alert), self._now)

    def _is_silenced(self, alert: Alert) -> bool:
        return is_silenced(self._silences, _place(alert), alert.rule_name, self._now)


def _place(alert: Alert) -> Place:
    return Place(alert.project_id, alert.cluster_id, alert.node_id)
