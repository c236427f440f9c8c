"""The call that is being answered: who asks, under which id, from where. The gate sets it, servicers read it."""

import contextvars
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.access import Caller
from controlplane.store import audit

REQUEST_ID_KEY = "x-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOBODY = Caller("anonymous", "", "", (), "", False, datetime.fromtimestamp(0, UTC))


@dataclass
class Call:
    """One call. `caller` is read again while a watch is open; `project_id` is what the call is about, "" for no one."""

    method: str
    request_id: str
    peer: str
    caller: Caller = NOBODY
    project_id: str = ""

    @property
    def name(self) -> str:
        """The RPC without its service, as audit events name it: "CreateCluster"."""
        return self.method.rpartition("/")[2]

    @property
    def address(self) -> str:
        """The peer without its port, which changes with every connection."""
        return self.peer.rpartition(":")[0]

    def projects(self) -> Collection[str] | None:
        """Projects whose things the answer may hold; None for all."""
        return frozenset({self.project_id}) if self.project_id else self.caller.projects()

    def record(
        self,
        tx: Session,
        now: datetime,
        resource: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        project_id: str | None = None,
        actor: str = "",
        outcome: str = "ok",
    ) -> None:
        """Add this call's audit event to the transaction that it tells of."""
        audit.record(
            tx,
            now=now,
            actor=actor or self.caller.actor,
            action=self.name,
            resource=resource,
            project_id=self.project_id if project_id is None else project_id,
            before=before,
            after=after,
            request_id=self.request_id,
            peer=self.peer,
            outcome=outcome,
        )


_current: contextvars.ContextVar[Call] = contextvars.ContextVar("call")


def current() -> Call:
    """The call that is being answered."""
    return _current.get()


def enter(method: str, context: Any) -> Call:
    """Begin a call: from now on it is the current one. An id that the caller brought is kept if it is well formed."""
    brought = metadata(context, REQUEST_ID_KEY)
    request_id = brought if REQUEST_ID.fullmatch(brought) else ids.request_id()
    call = Call(method, request_id, str(context.peer()))
    _current.set(call)
    return call


def metadata(context: Any, key: str) -> str:
    """The first value of a metadata key, or ""."""
    return next((str(value) for name, value in context.invocation_metadata() or () if name == key), "")
