"""Callers, users, tokens, grants and audit events <-> proto."""

import json
from collections.abc import Sequence
from typing import Any

from wap.control.v1 import access_pb2
from wap.type.v1 import cluster_pb2

from controlplane.api.wire import enum_from_wire, enum_to_wire, time_to_wire
from controlplane.domain.access import Caller, Grant, Role
from controlplane.domain.failure import invalid
from controlplane.store import tables

MAX_GRANTS = 100


def grants_from_wire(grants: Sequence[access_pb2.Grant]) -> tuple[Grant, ...]:
    """The grants; each project once and each with a role."""
    if len(grants) > MAX_GRANTS:
        raise invalid("grants", f"{len(grants)} grants", f"at most {MAX_GRANTS}")
    found: dict[str, Grant] = {}
    for index, grant in enumerate(grants):
        path = f"grants[{index}]"
        if grant.project_id in found:
            raise invalid(f"{path}.project_id", grant.project_id, "each project once")
        role = enum_from_wire(cluster_pb2.AccessRole, "ACCESS_ROLE", grant.role, Role, f"{path}.role")
        found[grant.project_id] = Grant(grant.project_id, role)
    return tuple(found.values())


def grants_to_wire(grants: Sequence[Grant]) -> list[access_pb2.Grant]:
    """The grants."""
    return [
        access_pb2.Grant(
            project_id=grant.project_id, role=enum_to_wire(cluster_pb2.AccessRole, "ACCESS_ROLE", grant.role)
        )
        for grant in grants
    ]


def grants_to_json(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """The grants as an audit event holds them."""
    return [{"project_id": grant.project_id, "role": str(grant.role)} for grant in grants]


def caller_to_wire(caller: Caller) -> access_pb2.Caller:
    """Who calls and what they may."""
    return access_pb2.Caller(
        actor=caller.actor,
        user_id=caller.user_id,
        display_name=caller.display_name,
        grants=grants_to_wire(caller.grants),
        expire_time=time_to_wire(caller.expires_at),
    )


def user_to_wire(user: tables.User, grants: Sequence[Grant]) -> access_pb2.User:
    """A user without the password's hash."""
    return access_pb2.User(
        id=user.id,
        username=user.username,
        grants=grants_to_wire(grants),
        disabled=user.disabled,
        create_time=time_to_wire(user.created_at),
        last_login_time=time_to_wire(user.last_login_at),
    )


def token_to_wire(token: tables.Token, grants: Sequence[Grant]) -> access_pb2.Token:
    """A token without its text."""
    return access_pb2.Token(
        id=token.id,
        name=token.name,
        grants=grants_to_wire(grants),
        create_time=time_to_wire(token.created_at),
        expire_time=time_to_wire(token.expires_at),
        last_used_time=time_to_wire(token.last_used_at),
        revoked=token.revoked_at is not None,
        created_by=token.created_by,
    )


def event_to_wire(event: tables.AuditEvent) -> access_pb2.AuditEvent:
    """An audit event."""
    return access_pb2.AuditEvent(
        id=event.id,
        time=time_to_wire(event.time),
        actor=event.actor,
        action=event.action,
        project_id=event.project_id,
        resource=event.resource,
        before_json=_json(event.before),
        after_json=_json(event.after),
        request_id=event.request_id,
        peer=event.peer,
        outcome=event.outcome,
    )


def _json(value: dict[str, Any] | None) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
