"""An agent's open streams: who it is, whether it may still speak, what waits to be sent, and why a stream must end.

A stream outlives its certificate and a ban, as far as gRPC is concerned; so the right to speak is looked at with every
message. The look is at memory; `sessions` keeps memory true.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from wap.agent.v1 import report_pb2, stream_pb2

from controlplane.domain.clock import Clock
from controlplane.domain.failure import AgentFailure, FailureCode, WapFailure
from controlplane.store.nodes import Standing

# Messages an agent may send: far above what a healthy one does, far below what would hurt the others.
MESSAGES_PER_SECOND, MESSAGES_BURST = 200.0, 500.0
# What opening a stream costs of that, and how many bytes cost as much as a message.
OPENING_COST, BYTES_PER_MESSAGE = 5.0, 16 * 1024
OUTGOING_LIMIT = 256
Write = Callable[[stream_pb2.ConnectResponse], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the peer is, from its certificate alone."""

    node_id: str
    serial: str
    expires: datetime


class Peer:
    """One agent: its standing, its open streams, and the allowance that they share."""

    __slots__ = ("_allowance", "_measured", "standing", "streams")

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.streams: set[Stream] = set()
        self._allowance, self._measured = MESSAGES_BURST, time.monotonic()

    def spend(self, cost: float = 1.0) -> None:
        """Take so much from the allowance; TOO_MANY_ATTEMPTS when there is not enough."""
        now = time.monotonic()
        self._allowance = min(MESSAGES_BURST, self._allowance + (now - self._measured) * MESSAGES_PER_SECOND)
        self._measured = now
        if self._allowance < cost:
            raise AgentFailure(
                FailureCode.TOO_MANY_ATTEMPTS,
                "too many messages",
                field="stream",
                allowed=f"{MESSAGES_PER_SECOND:.0f} messages a second",
                retryable=True,
            )
        self._allowance -= cost

    def is_at_rest(self, now: float) -> bool:
        """Whether it may be forgotten: no stream, and nothing spent that a new stream must not get back."""
        return not self.streams and self._allowance + (now - self._measured) * MESSAGES_PER_SECOND >= MESSAGES_BURST


class Stream:
    """One open stream of an agent. Make it in the task that serves the stream."""

    __slots__ = ("_task", "clock", "cut", "failure", "identity", "over", "peer")

    def __init__(self, identity: Identity, peer: Peer, clock: Clock) -> None:
        self.identity, self.peer, self.clock = identity, peer, clock
        # Cut: we end it. Over: it has ended, whoever did it.
        self.cut = self.over = False
        self.failure: WapFailure | None = None
        self._task = asyncio.current_task()

    @property
    def node_id(self) -> str:
        """The node."""
        return self.identity.node_id

    def check_message(self, size: int = 0) -> None:
        """Raise when this message may not be taken: stream ended, certificate expired or retired, ban, or flood."""
        failure = self.failure or self.standing_failure(self.clock.now())
        if failure is not None:
            raise failure
        self.peer.spend(1.0 + size // BYTES_PER_MESSAGE)

    def standing_failure(self, now: datetime) -> WapFailure | None:
        """Why the agent may not go on, or None."""
        return expiry(self.identity, now) or refusal(self.identity, self.peer.standing)

    def end(self, failure: WapFailure | None) -> None:
        """End the stream with this failure, or in order: its task is cancelled, whatever it waits for."""
        if self.cut or self.over or self._task is None:
            return
        self.cut, self.failure = True, failure
        self._task.cancel()

    def close(self) -> None:
        """The stream is over; its task has other things to do now."""
        self.over = True


class Session(Stream):
    """The command stream: the newest one of a node is its session."""

    __slots__ = (
        "_outgoing",
        "_wake",
        "_write",
        "_writer",
        "cluster_id",
        "epoch",
        "essence",
        "heard_at",
        "heard_time",
        "report",
        "sent",
        "settled",
        "silent",
        "starved",
        "unanswered",
        "written_at",
    )

    def __init__(self, identity: Identity, peer: Peer, clock: Clock, write: Write, wake: Callable[[str], None]) -> None:
        super().__init__(identity, peer, clock)
        self.epoch, self.cluster_id = peer.standing.epoch, peer.standing.cluster_id
        self._write, self._wake = write, wake
        self._outgoing: deque[stream_pb2.ConnectResponse] = deque()
        self._writer: asyncio.Task[None] | None = None
        # Commands wait for room here.
        self.starved = False
        self.heard_at, self.heard_time = time.monotonic(), clock.now()
        self.silent = False
        # The last report; its lasting part and when it was last written to the database.
        self.report: report_pb2.NodeReport | None = None
        self.essence = b""
        self.written_at = 0.0
        # Commands sent in this session, with the epoch they were sent under.
        self.sent: dict[str, int] = {}
        # Those of them whose result is stored, while a look for commands may still find them.
        self.settled: list[str] = []
        # Answers that are on their way into the database.
        self.unanswered = 0

    def standing_failure(self, now: datetime) -> WapFailure | None:
        """Why the agent may not go on, or None."""
        newest = self.peer.standing.epoch
        return super().standing_failure(now) or (superseded(newest) if newest > self.epoch else None)

    def forget_settled(self, count: int) -> None:
        """The oldest so many of what is settled can no longer be found among what is to be sent."""
        for command_id in self.settled[:count]:
            self.sent.pop(command_id, None)
        del self.settled[:count]

    def heard(self) -> None:
        """The agent lives."""
        self.heard_at, self.heard_time = time.monotonic(), self.clock.now()

    @property
    def has_room(self) -> bool:
        """Whether more commands should be queued: the agent reads what it was sent."""
        return len(self._outgoing) < OUTGOING_LIMIT // 2

    def send(self, message: stream_pb2.ConnectResponse) -> None:
        """Queue a message; a peer that does not read ends its session.

        One task writes, and only while there is something to write: two writes at once are an error in gRPC.
        """
        if len(self._outgoing) >= OUTGOING_LIMIT:
            self.end(AgentFailure(FailureCode.AGENT_SILENT, f"the agent left {OUTGOING_LIMIT} messages unread"))
            return
        self._outgoing.append(message)
        if self._writer is None and not self.over:
            self._writer = asyncio.get_running_loop().create_task(self._write_out())

    async def _write_out(self) -> None:
        try:
            while self._outgoing:
                await self._write(self._outgoing.popleft())
                if self.starved and self.has_room:
                    self.starved = False
                    self._wake(self.node_id)
        except Exception:  # noqa: BLE001 - whatever gRPC says: this stream is broken
            self.end(AgentFailure(FailureCode.AGENT_SILENT, "nothing can be sent to the agent any more"))
        self._writer = None

    def close(self) -> None:
        """The stream is over: nothing new is written to it any more."""
        super().close()
        self._outgoing.clear()

    async def quiet(self) -> None:
        """Return when the message that is being written is out: gRPC takes no status before. Cancelled, it is dropped."""
        if self._writer is not None:
            await self._writer


def expiry(identity: Identity, now: datetime) -> WapFailure | None:
    """The failure of a certificate that has expired, or None."""
    if now < identity.expires:
        return None
    return AgentFailure(
        FailureCode.CERTIFICATE_EXPIRED, f"the agent's certificate expired at {identity.expires:%FT%TZ}"
    )


def refusal(identity: Identity, standing: Standing | None) -> WapFailure | None:
    """Why the identity may not be used, or None."""
    code = standing.refusal(identity.serial) if standing else FailureCode.CERTIFICATE_NOT_ACTIVE
    return refused(identity, code) if code else None


def refused(identity: Identity, code: FailureCode) -> WapFailure:
    """The failure for a refused identity."""
    if code is FailureCode.AGENT_BANNED:
        return AgentFailure(code, "the agent is banned")
    return AgentFailure(code, f"certificate {identity.serial} is not in use any more")


def superseded(epoch: int) -> WapFailure:
    """The failure of a session that a newer one has replaced."""
    return AgentFailure(FailureCode.SESSION_SUPERSEDED, f"superseded by session epoch {epoch} of the same node")
