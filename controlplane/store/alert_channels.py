"""Channels, and the messages that wait for them: a queue in the database, so that no restart loses one.

A channel is tried by one control plane at a time: who takes its messages holds it until `next_attempt_at`. Messages of a
channel go out in order, since "resolved" must not come before "fired". What fails waits with back-off, for a day.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.alert import SEVERITY_RANK, Severity
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import alerts
from controlplane.store.alert_tables import Alert, AlertChannel, AlertDelivery
from controlplane.store.bus import publish
from controlplane.store.database import take_turns
from controlplane.store.tables import Project
from controlplane.store.vault import Vault

TOPIC = "alert-delivery"
# Longer than a channel may take for one message.
HOLD = timedelta(seconds=60)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=10)
MESSAGE_LIFE = timedelta(days=1)
MOST_WAITING = 1000
# Alerts of one storm go out together.
MOST_TOGETHER = 50
MOST_CHANNELS = 100
SECRET = "secret"


def scope(channel_id: str) -> str:
    """Where the secret of a channel is kept."""
    return f"alert-channel/{channel_id}"


@dataclass(frozen=True, slots=True)
class NewChannel:
    """A channel as it is to be stored; `settings` holds nothing secret."""

    name: str
    project_id: str
    minimum_severity: Severity
    kind: str
    settings: Mapping[str, Any]
    secret: str


def insert(tx: Session, vault: Vault, new: NewChannel, now: datetime) -> AlertChannel:
    """A new channel; ALREADY_EXISTS for a name that the project has."""
    take_turns(tx, "alert-channels")
    named = (AlertChannel.project_id == new.project_id, AlertChannel.name == new.name)
    if tx.scalar(select(AlertChannel.id).where(*named)) is not None:
        raise Refused(
            FailureCode.ALREADY_EXISTS,
            f"there is already a channel {new.name}",
            field="channel.name",
            given=new.name,
            allowed="a name that no channel of the project has",
        )
    count = tx.scalar(select(func.count()).select_from(AlertChannel).where(AlertChannel.project_id == new.project_id))
    if (count or 0) >= MOST_CHANNELS:
        raise Refused(
            FailureCode.QUOTA_EXCEEDED,
            f"there are {count} channels",
            field="channel",
            given=count,
            allowed=f"at most {MOST_CHANNELS} channels in a project",
        )
    row = AlertChannel(
        id=ids.channel_id(),
        name=new.name,
        project_id=new.project_id,
        minimum_severity=new.minimum_severity,
        kind=new.kind,
        settings=dict(new.settings),
        created_at=now,
        last_success_at=None,
        last_failure_at=None,
        last_failure="",
        failures=0,
        next_attempt_at=None,
    )
    tx.add(row)
    if new.secret:
        vault.put(tx, scope(row.id), SECRET, new.secret.encode(), now)
    tx.flush()
    return row


def get(tx: Session, channel_id: str) -> AlertChannel | None:
    """The channel."""
    return tx.get(AlertChannel, channel_id)


def list_channels(tx: Session, project_ids: Collection[str] | None) -> Sequence[AlertChannel]:
    """Channels by name; with `project_ids` those of these projects and, where "" is among them, of all."""
    query = select(AlertChannel).order_by(AlertChannel.name, AlertChannel.id)
    return tx.scalars(query if project_ids is None else query.where(AlertChannel.project_id.in_(project_ids))).all()


def waiting(tx: Session) -> dict[str, int]:
    """Messages that wait, by channel."""
    query = select(AlertDelivery.channel_id, func.count()).group_by(AlertDelivery.channel_id)
    return {channel_id: count for channel_id, count in tx.execute(query).all()}


def secret(tx: Session, vault: Vault, channel_id: str) -> str:
    """The secret of a channel, "" where it has none."""
    return (vault.get(tx, scope(channel_id), SECRET) or b"").decode()


def remove(tx: Session, vault: Vault, row: AlertChannel) -> None:
    """The channel, its secret and what waits for it."""
    tx.execute(delete(AlertDelivery).where(AlertDelivery.channel_id == row.id))
    vault.remove(tx, scope(row.id))
    tx.delete(row)


def enqueue(
    tx: Session, channels: Sequence[AlertChannel], alert: Alert, kind: str, notice: Mapping[str, Any], now: datetime
) -> int:
    """A message for each channel that takes alerts of this project and severity; how many."""
    count = 0
    for channel in channels:
        enough = SEVERITY_RANK[Severity(alert.severity)] >= SEVERITY_RANK[Severity(channel.minimum_severity)]
        if channel.project_id in ("", alert.project_id) and enough:
            tx.add(
                AlertDelivery(
                    channel_id=channel.id,
                    alert_id=alert.id,
                    kind=kind,
                    notice=dict(notice),
                    created_at=now,
                    failed=False,
                )
            )
            count += 1
    if count:
        publish(tx, TOPIC)
    return count


@dataclass(frozen=True, slots=True)
class Taken:
    """What is to be sent now through one channel. `secret` is shown to nobody."""

    channel_id: str
    name: str
    kind: str
    settings: Mapping[str, Any]
    secret: str
    delivery_ids: tuple[int, ...]
    notices: tuple[Mapping[str, Any], ...]


def has_due(tx: Session, now: datetime) -> bool:
    """Whether there is something to take or to drop."""
    return tx.scalar(_due(now).limit(1)) is not None


def _due(now: datetime) -> Select[AlertChannel]:
    return (
        select(AlertChannel)
        .where(AlertChannel.id.in_(select(AlertDelivery.channel_id).distinct()))
        .where(or_(AlertChannel.next_attempt_at.is_(None), AlertChannel.next_attempt_at <= now))
        .order_by(AlertChannel.id)
    )


def take(tx: Session, vault: Vault, now: datetime, *, most_waiting: int = MOST_WAITING) -> list[Taken]:
    """The oldest messages of every channel that is not held and not in a pause; each is then held for a minute.

    After a failure a channel is tried with one message: a large one may have been what it did not take. What is older
    than a day is dropped first, and of a channel with more than `most_waiting` messages the oldest.
    """
    take_turns(tx, TOPIC)
    _forget_late(tx, now, most_waiting)
    found = []
    for channel in tx.scalars(_due(now)).all():
        most = 1 if channel.failures else MOST_TOGETHER
        rows = _oldest(tx, channel.id, most)
        channel.next_attempt_at = now + HOLD
        found.append(
            Taken(
                channel.id,
                channel.name,
                channel.kind,
                channel.settings,
                secret(tx, vault, channel.id),
                tuple(row.id for row in rows),
                tuple({**row.notice, "event": row.kind} for row in rows),
            )
        )
    return found


def _oldest(tx: Session, channel_id: str, most: int) -> Sequence[AlertDelivery]:
    query = select(AlertDelivery).where(AlertDelivery.channel_id == channel_id).order_by(AlertDelivery.id)
    return tx.scalars(query.limit(most)).all()


def _forget_late(tx: Session, now: datetime, most_waiting: int) -> None:
    """What nobody could be told for a day is dropped, and the oldest of what is too much; the history says so."""
    late = list(tx.scalars(select(AlertDelivery).where(AlertDelivery.created_at < now - MESSAGE_LIFE).limit(500)))
    for channel_id, count in waiting(tx).items():
        if count > most_waiting:
            late += _oldest(tx, channel_id, count - most_waiting)
    for row in dict.fromkeys(late):
        _tell(tx, row, "gave up sending to {}", "", now)
        tx.delete(row)
    if late:
        tx.flush()


def delivered(tx: Session, taken: Taken, now: datetime) -> None:
    """The channel took the messages."""
    channel = tx.get(AlertChannel, taken.channel_id, with_for_update=True)
    if channel is None:
        return
    channel.last_success_at, channel.failures, channel.next_attempt_at = now, 0, None
    for row in _rows(tx, taken):
        _tell(tx, row, "sent to {}", row.kind, now)
        tx.delete(row)
    publish(tx, TOPIC)  # there may be more


def failed(tx: Session, taken: Taken, why: str, now: datetime, *, permanent: bool) -> None:
    """The channel did not take them: they wait. A single one that it will never take is dropped."""
    channel = tx.get(AlertChannel, taken.channel_id, with_for_update=True)
    if channel is None:
        return
    channel.last_failure_at, channel.last_failure = now, why[:500]
    channel.next_attempt_at = now + pause(channel.failures)
    channel.failures += 1
    for row in _rows(tx, taken):
        if not row.failed:
            _tell(tx, row, "failed to send to {}", why[:500], now)
        row.failed = True
        if permanent and len(taken.delivery_ids) == 1:
            _tell(tx, row, "gave up sending to {}", "the channel refuses this message", now)
            tx.delete(row)


def tested(tx: Session, row: AlertChannel, failure: str, now: datetime) -> None:
    """A test went well (`failure` empty), so that what waits can go at once, or it did not."""
    if failure:
        row.last_failure_at, row.last_failure = now, failure[:500]
        return
    row.last_success_at, row.failures, row.next_attempt_at = now, 0, None
    publish(tx, TOPIC)


def let_go(tx: Session, channel_ids: Collection[str]) -> None:
    """These channels were held and not tried to the end: any control plane may try them."""
    tx.execute(update(AlertChannel).where(AlertChannel.id.in_(channel_ids)).values(next_attempt_at=None))
    publish(tx, TOPIC)


def forget_orphans(tx: Session, vault: Vault) -> int:
    """Remove channels of projects that are gone, with their secrets; how many."""
    gone = select(AlertChannel).where(AlertChannel.project_id != "", AlertChannel.project_id.not_in(select(Project.id)))
    rows = tx.scalars(gone).all()
    for row in rows:
        remove(tx, vault, row)
    return len(rows)


def pause(failures: int) -> timedelta:
    """How long to wait after so many failures before this one: doubled each time, a little by chance."""
    longest = min(LONGEST_PAUSE.total_seconds(), FIRST_PAUSE.total_seconds() * 2.0 ** min(failures, 20))
    return timedelta(seconds=longest * random.uniform(0.8, 1.0))


def _rows(tx: Session, taken: Taken) -> Sequence[AlertDelivery]:
    query = select(AlertDelivery).where(AlertDelivery.id.in_(taken.delivery_ids)).order_by(AlertDelivery.id)
    return tx.scalars(query).all()


def _tell(tx: Session, row: AlertDelivery, what: str, detail: str, now: datetime) -> None:
    alert, channel = alerts.get(tx, row.alert_id), tx.get(AlertChannel, row.channel_id)
    if alert is not None and channel is not None:
        alerts.note(tx, alert, what.format(channel.name), now, detail=detail)
