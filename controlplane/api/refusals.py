"""Refused callers that somebody should see: written to the audit, but no faster than a person could read.

A caller who is known and asks for too much is always noted. A stranger is noted once a minute per address: otherwise
anyone who reaches the port could fill the database.
"""

import time
from collections import OrderedDict

from controlplane.api.calls import Call
from controlplane.domain.clock import Clock
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.store.database import Database, is_connection_loss

QUIET_SECONDS = 60.0
ADDRESSES_KEPT = 10_000
# These audit their own failures, in the transaction that counts them.
SELF_AUDITED = frozenset({"Login", "ChangePassword", "Enroll"})


class Refusals:
    """Writes the audit events of refused calls."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._noted: OrderedDict[str, float] = OrderedDict()

    async def note(self, call: Call, failure: WapFailure) -> None:
        """Write the refusal down if it is one of rights."""
        if call.name in SELF_AUDITED:
            return
        stranger = failure.code is FailureCode.UNAUTHENTICATED
        if not stranger and failure.code is not FailureCode.PERMISSION_DENIED:
            return
        if stranger and self._is_quiet(call.address):
            return
        now = self._clock.now()
        try:
            await self._database.write(
                lambda tx: call.record(tx, now, "", after={"reason": str(failure)}, outcome=failure.code)
            )
        except Exception as error:
            # The refusal stands whether or not it could be written down.
            if not is_connection_loss(error):
                raise

    def _is_quiet(self, address: str) -> bool:
        now = time.monotonic()
        last = self._noted.pop(address, None)
        quiet = last is not None and now - last < QUIET_SECONDS
        self._noted[address] = last if quiet and last is not None else now
        while len(self._noted) > ADDRESSES_KEPT:
            self._noted.popitem(last=False)
        return quiet
