"""Audit events: written in the transaction of the change they tell of."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.store.tables import AuditEvent

MASKED = frozenset({"password", "secret", "token", "keyfile", "old_password", "new_password", "session_token"})


def record(
    tx: Session,
    *,
    now: datetime,
    actor: str,
    action: str,
    resource: str = "",
    project_id: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    request_id: str = "",
    peer: str = "",
    outcome: str = "ok",
) -> None:
    """Add one event; values of secret fields are masked."""
    tx.add(
        AuditEvent(
            id=ids.event_id(),
            time=now,
            actor=actor[:255],
            action=action,
            project_id=project_id,
            resource=resource[:255],
            before=mask(before),
            after=mask(after),
            request_id=request_id[:255],
            peer=peer[:255],
            outcome=outcome,
        )
    )


def mask(value: Any) -> Any:
    """The value with what stands under a secret's name replaced."""
    if isinstance(value, dict):
        return {key: "***" if key in MASKED and item else mask(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item) for item in value]
    return value


def list_page(
    tx: Session,
    *,
    project_ids: Collection[str] | None,
    resource: str,
    actor: str,
    before: int | None,
    limit: int,
) -> Sequence[AuditEvent]:
    """Events, newest first, older than sequence number `before`; `project_ids` None means all."""
    query = select(AuditEvent).order_by(AuditEvent.seq.desc()).limit(limit)
    if project_ids is not None:
        query = query.where(AuditEvent.project_id.in_(project_ids))
    if resource:
        query = query.where(AuditEvent.resource == resource)
    if actor:
        query = query.where(AuditEvent.actor == actor)
    if before is not None:
        query = query.where(AuditEvent.seq < before)
    return tx.scalars(query).all()
