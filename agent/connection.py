"""Staying in touch: one session after another, without a storm when the control plane comes back, and across renewals."""

import asyncio
import contextlib
import random

import grpc
from wap.agent.v1 import stream_pb2

from agent import identity as identities
from agent.channel import Refusal, full_jitter, refusal_of
from agent.identity import Identity
from agent.logs import Log
from agent.session import Listener, Session, StuckError
from agent.settings import NodePaths

# After a session that lasted this long, the waiting between attempts begins anew.
STABLE_SECONDS = 10.0
# Refused for good, as far as the control plane can tell. A person may lift a ban, so once in a while is enough.
FINAL_REASONS = frozenset({"AGENT_BANNED", "CERTIFICATE_NOT_ACTIVE", "PROTOCOL_VERSION"})
FINAL_SECONDS = 300.0
# With a certificate that cannot be used, dialling only tells whether the clock was the problem.
BAD_CERTIFICATE_SECONDS = 60.0
log = Log(__name__)


class Connection:
    """The agent's way to the control plane. Messages sent while there is no session are dropped: answers come again
    when their commands do, and reports are made anew.
    """

    def __init__(self, paths: NodePaths) -> None:
        self._paths = paths
        self._session: Session | None = None
        self._identity: Identity | None = None
        self._renewed = asyncio.Event()
        self._closing = False

    def send(self, message: stream_pb2.ConnectRequest) -> None:
        """To the control plane, if there is a session."""
        if self._session is not None and self._session.welcomed.is_set():
            self._session.send(message)

    def renewed(self, identity: Identity) -> None:
        """Keep a renewed identity; the next session, which opens at once, uses it."""
        identities.save(self._paths.identity, identity)
        self._identity = identity
        log.info("certificate renewed", valid_until=identity.certificate.not_valid_after_utc.isoformat())
        self._renewed.set()

    async def run(self, identity: Identity, listener: Listener) -> None:
        """Hold a session at all times. Returns after `say_goodbye` only."""
        self._identity = identity
        loop, attempt = asyncio.get_running_loop(), 0
        while not self._closing:
            problem = self._identity.problem()
            if problem:
                log.error("the certificate cannot be used", why=problem)
            began = loop.time()
            refusal = await self._hold(listener)
            if self._closing:
                return
            attempt = 0 if loop.time() - began >= STABLE_SECONDS else attempt + 1
            pause = _pause(attempt, refusal, bool(problem))
            log.warning(
                "not connected",
                status=refusal.status.name if refusal else "OK",
                reason=refusal.reason if refusal else "",
                message=refusal.message if refusal else "the control plane ended the session",
                next_attempt_seconds=round(pause, 2),
            )
            await asyncio.sleep(pause)

    def say_goodbye(self, reason: str) -> bool:
        """Take leave of the control plane, so that it knows that the agent did not just vanish; False without session."""
        self._closing = True
        session = self._session
        if session is None or not session.welcomed.is_set():
            return False
        session.say_goodbye(reason)
        return True

    async def _hold(self, listener: Listener) -> Refusal | None:
        """One session and its successors by renewal, until it ends without one. Says why, or None for in order."""
        session, running = self._open(listener)
        self._session = session
        renewal: asyncio.Task[bool] | None = None
        try:
            while True:
                renewal = renewal or asyncio.create_task(self._renewed.wait())
                await asyncio.wait({running, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    return _why(running)
                renewal = None
                self._renewed.clear()
                successor = self._open(listener)
                if await _taken(*successor):
                    await _drop(running)
                    self._session, running = session, _ = successor
                else:
                    log.warning("the renewed certificate was not taken; the session before it goes on")
        finally:
            self._session = None
            for task in (running, renewal):
                if task is not None:
                    await _drop(task)

    def _open(self, listener: Listener) -> tuple[Session, "asyncio.Task[None]"]:
        assert self._identity is not None
        session = Session(self._identity, listener)
        return session, asyncio.create_task(session.run())


async def _taken(session: Session, running: "asyncio.Task[None]") -> bool:
    welcome = asyncio.create_task(session.welcomed.wait())
    await asyncio.wait({running, welcome}, return_when=asyncio.FIRST_COMPLETED)
    welcome.cancel()
    if not session.welcomed.is_set():
        _why(running)
    return session.welcomed.is_set()


async def _drop(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _why(running: "asyncio.Task[None]") -> Refusal | None:
    error = running.exception() if not running.cancelled() else None
    match error:
        case None:
            return None
        case grpc.aio.AioRpcError():
            return refusal_of(error)
        case TimeoutError():
            return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "", "no welcome in time")
        case StuckError():
            return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "", str(error))
        case _:
            log.error("a session ended by a defect", error=repr(error))
            return Refusal(grpc.StatusCode.INTERNAL, "", "a defect of the agent; see its log")


def _pause(attempt: int, refusal: Refusal | None, bad_certificate: bool) -> float:
    if refusal is not None and refusal.reason in FINAL_REASONS:
        return FINAL_SECONDS * random.uniform(0.5, 1.0)
    if bad_certificate:
        return BAD_CERTIFICATE_SECONDS * random.uniform(0.5, 1.0)
    return full_jitter(attempt)
