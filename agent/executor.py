"""Orders taken one by one: known ones answered from the journal, wrong ones refused, the others carried out once.

What is told follows what is on disk: a command is accepted when it stands in the journal, and its result goes out after
it stands there. So whatever dies in between, the same command sent again gets the same answer or is carried out again,
and every command may be.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import assert_never

from wap.agent.v1 import command_pb2, stream_pb2
from wap.type.v1 import failure_pb2

from agent.clock import ServerClock
from agent.failure import FailureCode, NodeFailure, refused
from agent.handlers import current_operations, process, replica_set, sampling, users, volume
from agent.journal import Epoch, Journal, digest_of
from agent.logs import Log
from agent.node import Node, Progress

MAX_ID = 255
MAX_WAITING = 240
# For a command that came without a deadline.
DEFAULT_SECONDS = 300.0
# A person looks at the node. What is asked again is answered anew, so the journal need not know; no operation of the
# cluster is concerned, so its fence does not hold either.
LOOKS = frozenset({"set_sampling", "list_current_operations"})
# These change nothing that another command could be about, so they need not wait for one.
AT_ONCE = LOOKS | {"await_replica_set", "kill_operation"}
log = Log(__name__)


class Executor:
    """Carries commands out. `send` takes messages for the control plane, or drops them while there is no session."""

    def __init__(
        self,
        node: Node,
        journal: Journal,
        epoch: Epoch,
        clock: ServerClock,
        send: Callable[[stream_pb2.ConnectRequest], None],
    ) -> None:
        self._node, self._journal, self._epoch, self._clock, self._send = node, journal, epoch, clock, send
        self._running: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a command is being carried out."""
        return bool(self._running)

    def take(self, command: command_pb2.Command) -> None:
        """Begin with a command; its answers go to `send`."""
        task = asyncio.get_running_loop().create_task(self._take(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Break off what runs; it is carried out when it is sent again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, command: command_pb2.Command) -> None:
        try:
            answer = await self._answer(command)
        except NodeFailure as failure:
            log.warning("command refused", command=command.id[:MAX_ID], code=failure.code, why=failure.message)
            answer = _failed(command.id, failure)
        except Exception:
            log.exception("a command could not be taken", command=command.id[:MAX_ID])
            answer = _failed(command.id, NodeFailure(FailureCode.INTERNAL, "internal error of the agent"))
        if answer is not None:
            self._send(stream_pb2.ConnectRequest(command_result=answer))

    async def _answer(self, command: command_pb2.Command) -> command_pb2.CommandResult | None:
        """The result: known, or new. None when the command runs already and answers later."""
        if not 1 <= len(command.id) <= MAX_ID or not command.id.isprintable():
            raise refused("id", command.id, f"1 to {MAX_ID} printable characters")
        digest = digest_of(command)
        if (running := self._running.get(command.id)) is not None:
            _check_same(command, running, digest)
            self._accept(command)
            return None
        self._running[command.id] = digest
        try:
            if command.WhichOneof("body") in LOOKS:
                self._check_deadline(command)
                return await self._carry_out(command)
            entry = await self._journal.find(command.id)
            if entry is not None:
                _check_same(command, entry.digest, digest)
                if entry.result is not None:
                    return _replayed(entry.result)
            self._check(command)
            await self._journal.started(command.id, digest)
            self._accept(command)
            result = await self._carry_out(command)
            await self._journal.done(command.id, result.SerializeToString())
            return result
        finally:
            del self._running[command.id]

    def _check(self, command: command_pb2.Command) -> None:
        """Refuse an order of a leader that was replaced, one that comes too late, and one of a newer protocol."""
        if command.epoch < self._epoch.highest:
            raise NodeFailure(
                FailureCode.STALE_EPOCH,
                "the order comes from an operation that was replaced",
                field="epoch",
                given=command.epoch,
                allowed=f"{self._epoch.highest} or higher",
            )
        self._check_deadline(command)
        if command.WhichOneof("body") is None:
            raise NodeFailure(FailureCode.UNSUPPORTED_COMMAND, "this agent does not know the command", field="body")
        self._epoch.raise_to(command.epoch)

    def _check_deadline(self, command: command_pb2.Command) -> None:
        if self._seconds_left(command) <= 0:
            raise NodeFailure(
                FailureCode.DEADLINE_PASSED,
                "the order came after its deadline",
                field="deadline",
                given=f"{_deadline(command):%FT%TZ}",
                allowed=f"after {self._clock.now():%FT%TZ}",
            )

    def _accept(self, command: command_pb2.Command) -> None:
        accepted = command_pb2.CommandAccepted(command_id=command.id)
        self._send(stream_pb2.ConnectRequest(command_accepted=accepted))

    async def _carry_out(self, command: command_pb2.Command) -> command_pb2.CommandResult:
        """Do it within the deadline; every way to fail becomes a result."""
        body, waits = command.WhichOneof("body"), _Waits(command.id, self._send)
        result = command_pb2.CommandResult(command_id=command.id)
        if body not in LOOKS:  # which come every second while somebody looks
            log.info("command begins", command=command.id, body=body)
        try:
            async with asyncio.timeout(self._seconds_left(command)), self._turn(body, waits):
                await carry_out(self._node, command, result, waits.waiting_for)
        except NodeFailure as failure:
            result = _failed(command.id, failure)
        except TimeoutError:
            result = _failed(command.id, _too_late(body, waits.last))
        except OSError as error:
            log.exception("the node's files cannot be used", command=command.id)
            text = f"the node's files cannot be used: {error.strerror}"
            result = _failed(command.id, NodeFailure(FailureCode.INTERNAL, text, retryable=True))
        except Exception:
            log.exception("a command failed", command=command.id)
            result = _failed(command.id, NodeFailure(FailureCode.INTERNAL, "internal error of the agent"))
        if body in LOOKS and not result.HasField("failure"):
            return result
        failed = {"code": failure_pb2.FailureCode.Name(result.failure.code)} if result.HasField("failure") else {}
        log.info("command ends", command=command.id, detail=result.detail or result.failure.message, **failed)
        return result

    @contextlib.asynccontextmanager
    async def _turn(self, body: str | None, waits: "_Waits") -> AsyncIterator[None]:
        if body in AT_ONCE:
            yield
            return
        if self._one_at_a_time.locked():
            waits.waiting_for("another command of this node to end")
        async with self._one_at_a_time:
            yield

    def _seconds_left(self, command: command_pb2.Command) -> float:
        if not command.HasField("deadline"):
            return DEFAULT_SECONDS
        return (_deadline(command) - self._clock.now()).total_seconds()


async def carry_out(
    node: Node, command: command_pb2.Command, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """Give the command to its handler, which fills the result. Raises NodeFailure."""
    body = command.WhichOneof("body")
    match body:
        case "prepare_volume":
            await volume.prepare(node, command.prepare_volume, result, progress)
        case "create_member_key":
            await process.create_member_key(node, result)
        case "start_mongod":
            await process.start_mongod(node, command.start_mongod, result, progress)
        case "stop_mongod":
            await process.stop_mongod(node, command.stop_mongod, result, progress)
        case "initiate_replica_set":
            await replica_set.initiate(node, command.initiate_replica_set, result, progress)
        case "configure_replica_set":
            await replica_set.configure(node, command.configure_replica_set, result, progress)
        case "await_replica_set":
            await replica_set.await_healthy(node, command.await_replica_set, result, progress)
        case "ensure_user":
            await users.ensure(node, command.ensure_user, result, progress)
        case "set_sampling":
            sampling.set_sampling(node, command.set_sampling, result)
        case "list_current_operations":
            await current_operations.list_longest(node, command.list_current_operations, result)
        case "kill_operation":
            await current_operations.kill(node, command.kill_operation, result)
        case None:
            raise NodeFailure(FailureCode.UNSUPPORTED_COMMAND, "this agent does not know the command", field="body")
        case _:
            assert_never(body)


class _Waits:
    """Tells what a command waits for, when it changes."""

    def __init__(self, command_id: str, send: Callable[[stream_pb2.ConnectRequest], None]) -> None:
        self._command_id, self._send = command_id, send
        self.last = ""

    def waiting_for(self, text: str) -> None:
        text = text[:MAX_WAITING]
        if text != self.last:
            self.last = text
            progress = command_pb2.CommandProgress(command_id=self._command_id, waiting_for=text)
            self._send(stream_pb2.ConnectRequest(command_progress=progress))


def _check_same(command: command_pb2.Command, known: bytes, digest: bytes) -> None:
    if known != digest:
        raise NodeFailure(
            FailureCode.COMMAND_ID_REUSED,
            "another command came with this id before",
            field="id",
            given=command.id,
            allowed="a new id for a new command",
        )


def _deadline(command: command_pb2.Command) -> datetime:
    try:
        return command.deadline.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise refused("deadline", f"{command.deadline.seconds} s", "a time between the years 1 and 9999") from None


def _replayed(stored: bytes) -> command_pb2.CommandResult:
    result = command_pb2.CommandResult.FromString(stored)
    result.replayed = True
    return result


def _too_late(body: str | None, waited_for: str) -> NodeFailure:
    code = FailureCode.NOT_HEALTHY_IN_TIME if body == "await_replica_set" else FailureCode.DEADLINE_PASSED
    waited = f"; it waited for {waited_for}" if waited_for else ""
    return NodeFailure(code, f"{body} was not done before its deadline{waited}", field="deadline", retryable=True)


def _failed(command_id: str, failure: NodeFailure) -> command_pb2.CommandResult:
    return command_pb2.CommandResult(
        command_id=command_id,
        failure=failure_pb2.Failure(
            code=failure_pb2.FailureCode.Value(f"FAILURE_CODE_{failure.code}"),
            message=failure.message,
            field=failure.field,
            given=failure.given,
            allowed=failure.allowed,
            retryable=failure.retryable,
        ),
    )
