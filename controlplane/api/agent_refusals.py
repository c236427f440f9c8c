"""Refused agents are audited: the first refusal of a kind at once, its repeats as a number in the next event.

Without that an agent that is refused and comes again and again would fill the database.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass

import structlog

from controlplane.domain.clock import Clock
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.store import audit
from controlplane.store.database import Database, is_connection_loss

QUIET_SECONDS = 60.0
KINDS_KEPT = 10_000
# What says something about who speaks. A wrong message or a newer session does not.
AUDITED = frozenset(
    {
        FailureCode.PERMISSION_DENIED,
        FailureCode.AGENT_BANNED,
        FailureCode.CERTIFICATE_NOT_ACTIVE,
        FailureCode.CERTIFICATE_EXPIRED,
        FailureCode.TOO_MANY_ATTEMPTS,
    }
)
log = structlog.get_logger(__name__)


@dataclass
class _Kind:
    noted_at: float
    since: int = 0


class AgentRefusals:
    """Writes the audit events of refused agents."""

    def __init__(self, database: Database, clock: Clock, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._database, self._clock, self._quiet = database, clock, quiet_seconds
        self._kinds: OrderedDict[tuple[str, str, str], _Kind] = OrderedDict()

    async def note(self, subject: str, failure: WapFailure, *, peer: str, request_id: str) -> None:
        """Write the refusal down if it is one of rights. `subject` is the node's id, or what else the peer showed."""
        if failure.code not in AUDITED:
            return
        repeats = self._repeats((subject, failure.code, failure.details.field))
        if repeats is None:
            return
        after = {"reason": str(failure), "given": failure.details.given, "repeats": repeats}
        now = self._clock.now()
        try:
            await self._database.write(
                lambda tx: audit.record(
                    tx,
                    now=now,
                    actor=f"agent:{subject}",
                    action="agent.refused",
                    resource=f"node/{subject}",
                    after={name: value for name, value in after.items() if value},
                    request_id=request_id,
                    peer=peer,
                    outcome=failure.code,
                )
            )
        except Exception as error:
            # The refusal stands whether or not it could be written down.
            if not is_connection_loss(error):
                raise
            log.warning("a refusal could not be audited", subject=subject, reason=str(failure))

    def _repeats(self, key: tuple[str, str, str]) -> int | None:
        """Refusals of this kind since the last event, or None when the next is not due."""
        now = time.monotonic()
        kind = self._kinds.pop(key, None)
        due = kind is None or now - kind.noted_at >= self._quiet
        since = 0 if kind is None else kind.since
        self._kinds[key] = _Kind(now) if due or kind is None else _Kind(kind.noted_at, since + 1)
        if len(self._kinds) > KINDS_KEPT:
            self._kinds.popitem(last=False)
        return since if due else None
