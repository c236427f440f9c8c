"""The telemetry stream: what waits in the buffer goes out in order, and is forgotten when the control plane has it.

It begins with an empty message, whose answer says where to go on: so what was sent before the last stream broke and
was not answered is not sent twice. After that one message is under way at a time. A backlog goes out at a pace that
leaves the connection to heartbeats and commands, and the control plane's allowance for each agent to them too.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from wap.agent.v1 import stream_pb2_grpc, telemetry_pb2

from agent.channel import EOF, refusal_of
from agent.logs import Log
from agent.telemetry.buffer import Buffer, Pending

# What was counted as dropped is told this soon, if nothing else is to be told.
TELL_SECONDS = 10.0
Dropped = Callable[[], Sequence[telemetry_pb2.Dropped]]
log = Log(__name__)


@dataclass(frozen=True)
class Limits:
    """How fast, and how patient."""

    # A control plane counts a message of so many bytes as nine of the 200 a second that it allows an agent.
    message_bytes: int = 128 * 1024
    bytes_per_second: float = 1024 * 1024
    messages_per_second: float = 20.0
    # An answer that takes longer is none.
    answer_seconds: float = 30.0
    # Between two attempts, and where the control plane has no room.
    first_retry_seconds: float = 1.0
    most_retry_seconds: float = 30.0
    # A control plane takes 600 on one stream. Namespaces come and go.
    most_sets: int = 500


class NoAnswerError(Exception):
    """The control plane reads and says nothing, or ended the stream in order."""


class Reports:
    """Empties the buffer over whichever connection there is. `dropped` counts what never reached the buffer or left it."""

    def __init__(self, buffer: Buffer, dropped: Dropped, limits: Limits = Limits()) -> None:
        self._buffer, self._dropped, self._limits = buffer, dropped, limits
        # While a certificate is renewed there are two connections for a moment.
        self._one_stream = asyncio.Lock()

    async def run(self, stub: "stream_pb2_grpc.AgentServiceAsyncStub") -> None:
        """Report over this connection until cancelled; a stream that ends is opened again, later and later."""
        retry = self._limits.first_retry_seconds
        async with self._one_stream:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._report(stub)
                    continue
                except grpc.aio.AioRpcError as error:
                    refusal = refusal_of(error)
                    log.info("telemetry has to wait", status=refusal.status.name, reason=refusal.reason)
                except NoAnswerError as problem:
                    log.info("telemetry has to wait", reason=str(problem))
                except Exception:  # which must not end the session, whose commands matter more
                    log.exception("a defect in the telemetry stream")
                if asyncio.get_running_loop().time() - began > self._limits.most_retry_seconds:
                    retry = self._limits.first_retry_seconds
                await asyncio.sleep(random.uniform(0.5, 1.0) * retry)
                retry = min(2 * retry, self._limits.most_retry_seconds)

    async def _report(self, stub: "stream_pb2_grpc.AgentServiceAsyncStub") -> None:
        call: Any = stub.Report()  # type: ignore[call-arg]
        try:
            await self._converse(_Stream(call, self._limits.answer_seconds))
        finally:
            call.cancel()

    async def _converse(self, stream: "_Stream") -> None:
        """Report until the stream has declared as many sets as it may; another one begins with none."""
        loop = asyncio.get_running_loop()
        await self._buffer.acknowledge(*await stream.exchange(telemetry_pb2.ReportRequest()))
        told, stalled = b"", self._limits.first_retry_seconds
        while True:
            news, began = self._buffer.news(), loop.time()
            pending, dropped = await self._buffer.pending(self._limits.message_bytes), self._dropped()
            counts = b"".join(row.SerializeToString() for row in dropped)
            if not pending and counts == told:
                await _within(news, TELL_SECONDS)
                continue
            if stream.sets_with(pending) > self._limits.most_sets and stream.has_declared:
                return
            request = stream.request(pending, dropped if counts != told else ())
            answered = await stream.exchange(request)
            await self._buffer.acknowledge(*answered)
            told = counts
            if pending and not _took_some(pending, answered):  # it has no room now
                await asyncio.sleep(random.uniform(0.5, 1.0) * stalled)
                stalled = min(2 * stalled, self._limits.most_retry_seconds)
                continue
            stalled = self._limits.first_retry_seconds
            pause = max(1 / self._limits.messages_per_second, request.ByteSize() / self._limits.bytes_per_second)
            await asyncio.sleep(max(0.0, began + pause - loop.time()))


class _Stream:
    """One call: what was declared on it, one message and its answer at a time."""

    def __init__(self, call: Any, answer_seconds: float) -> None:
        self._call, self._answer_seconds = call, answer_seconds
        self._declared: set[int] = set()

    @property
    def has_declared(self) -> bool:
        """Whether sets were declared on it."""
        return bool(self._declared)

    def sets_with(self, pending: Pending) -> int:
        """How many sets are declared on it after a message with these."""
        return len(self._declared | pending.sets.keys())

    def request(self, pending: Pending, dropped: Sequence[telemetry_pb2.Dropped]) -> telemetry_pb2.ReportRequest:
        """The message; sets are declared in the first one that uses them."""
        sets = [declared for number, declared in pending.sets.items() if number not in self._declared]
        self._declared |= pending.sets.keys()
        return telemetry_pb2.ReportRequest(metric_sets=sets, frames=pending.frames, logs=pending.lines, dropped=dropped)

    async def exchange(self, request: telemetry_pb2.ReportRequest) -> tuple[int, int]:
        """Send it: the numbers of the newest sample and the newest line that the control plane has."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._call.write(request)
                answer = await self._call.read()
        except TimeoutError:
            raise NoAnswerError(f"no answer in {self._answer_seconds:.0f} s") from None
        except asyncio.InvalidStateError:  # the call ended before: its status says why
            answer = EOF
        if answer is EOF:
            await self._end()
        return answer.frame_sequence, answer.log_sequence

    async def _end(self) -> None:
        status = await self._call.code()
        if status is grpc.StatusCode.OK:
            raise NoAnswerError("the control plane ended the stream")
        raise NoAnswerError(f"the stream ended: {status.name} {await self._call.details()}")


def _took_some(pending: Pending, answered: tuple[int, int]) -> bool:
    frames, lines = answered
    return bool(
        (pending.frames and pending.frames[0].sequence <= frames)
        or (pending.lines and pending.lines[0].sequence <= lines)
    )


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
