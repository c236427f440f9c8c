"""Stopping mongod in order: guard the majority, hand over the primary's place, end it, and only then kill it."""

import asyncio
import signal
from collections.abc import Callable

from agent.failure import FailureCode, NodeFailure
from agent.logs import Log
from agent.mongod.client import MongodClient
from agent.mongod.process import MongodProcess
from agent.mongod.quorum import check_leaving

STEP_DOWN_SECONDS = 60
NEW_PRIMARY_SECONDS = 30.0
TERM_SECONDS = 60.0
POLL_SECONDS = 0.1
KILLED = -9
Progress = Callable[[str], None]
log = Log(__name__)


async def leave_in_order(client: MongodClient, progress: Progress, *, ignore_quorum: bool) -> None:
    """Make sure that the set can do without this member. Raises QUORUM_AT_RISK, or MONGOD_UNREACHABLE when unknown.

    With `ignore_quorum` the set goes as a whole, and there is nobody to hand over to.
    """
    if ignore_quorum:
        return
    view = await client.view()
    if view is None or view.itself is None:
        return
    itself = view.itself
    check_leaving(view.voters, itself.host)
    if itself.state != "PRIMARY":
        return
    progress("a secondary to catch up, then step down")
    await client.step_down(STEP_DOWN_SECONDS)
    try:
        async with asyncio.timeout(NEW_PRIMARY_SECONDS):
            await _another_primary(client, itself.host, progress)
    except TimeoutError:
        raise NodeFailure(
            FailureCode.QUORUM_AT_RISK,
            f"no other member became primary of {view.name}; mongod keeps running",
            retryable=True,
        ) from None


async def end(process: MongodProcess, progress: Progress) -> int:
    """SIGTERM, up to 60 s for a clean end, then SIGKILL. Returns the exit code; 0 where an adopted one left no word."""
    progress("mongod to end")
    process.signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(TERM_SECONDS):
            await _ended(process)
    except TimeoutError:
        log.warning("mongod did not end in time and is killed", pid=process.pid, after_seconds=TERM_SECONDS)
        process.signal(signal.SIGKILL)
        await _ended(process)
        return KILLED
    return process.exit_code() or 0


async def _ended(process: MongodProcess) -> None:
    while True:
        if not process.alive():
            return
        await asyncio.sleep(POLL_SECONDS)


async def _another_primary(client: MongodClient, host: str, progress: Progress) -> None:
    while True:
        view = await client.view()
        if view is not None and view.primary is not None and view.primary.host != host:
            return
        progress("another member to become primary")
        await asyncio.sleep(POLL_SECONDS)
