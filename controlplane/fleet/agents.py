"""The fleet of real agents: sends commands through the database to whichever control plane holds the stream."""

import asyncio
from datetime import UTC, datetime, timedelta

from wap.agent.v1 import command_pb2
from wap.type.v1 import failure_pb2

from controlplane.domain.clock import Clock
from controlplane.domain.failure import AgentFailure, FailureCode
from controlplane.domain.node import AgentState
from controlplane.fleet.batches import Batch
from controlplane.fleet.port import OnWaiting
from controlplane.fleet.reports import plain
from controlplane.fleet.waits import POLL_SECONDS, Waits
from controlplane.store import commands, nodes
from controlplane.store.commands import Fact, NewCommand
from controlplane.store.database import Database
from controlplane.store.tables import Node
from controlplane.store.vault import Vault

# The agent keeps the deadline too and says what it was waiting for; its answer needs a moment to arrive.
GRACE = timedelta(seconds=5)
# For a command that came without a deadline.
DEFAULT_DEADLINE = timedelta(seconds=300)


class AgentFleet:
    """Implements `fleet.port.Fleet`."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database, self._vault, self._clock = database, vault, clock
        self._puts: Batch[NewCommand, Fact | None] = Batch(database, commands.put)
        self._waits = Waits(database)

    async def await_agent(self, node_id: str, *, within: float, on_waiting: OnWaiting) -> None:
        """Return when the node's agent is connected, on any control plane."""
        with self._database.bus.subscribe(f"node/{node_id}") as changes:
            deadline = asyncio.get_running_loop().time() + within
            while True:
                node = await self._node(node_id)
                if node.agent_state == AgentState.CONNECTED:
                    return
                if node.agent_state == AgentState.BANNED:
                    raise AgentFailure(FailureCode.AGENT_BANNED, f"the agent of {node.name} is banned")
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    raise AgentFailure(
                        FailureCode.AGENT_SILENT,
                        f"the agent of {node.name} on {node.instance_id or 'no instance'} did not connect within "
                        f"{within:.0f} s; the instance's console output tells more",
                    )
                await on_waiting(f"agent of {node.name} to {_next_step(node)}")
                await changes.wait(min(POLL_SECONDS, left))

    async def call(
        self, node_id: str, command: command_pb2.Command, *, operation_id: str, on_waiting: OnWaiting
    ) -> command_pb2.CommandResult:
        """Store the command, wait for its result, return it or raise it."""
        wish = self._wish(node_id, command, operation_id)
        with self._waits.of(command.id) as wait:
            fact = await self._puts.submit(wish)
            while True:
                if fact is None:
                    raise AgentFailure(FailureCode.AGENT_SILENT, f"node {node_id} does not exist, or was retired")
                if fact.result is not None:
                    return _result(fact.result)
                left = (wish.deadline + GRACE - self._clock.now()).total_seconds()
                if left <= 0:
                    raise _no_answer(fact, wish.kind, self._clock.now())
                if text := _waits_for(fact):
                    await on_waiting(text)
                wait.expect(fact)
                fact = await wait.look(min(POLL_SECONDS * 2, left))

    def _wish(self, node_id: str, command: command_pb2.Command, operation_id: str) -> NewCommand:
        now = self._clock.now()
        return NewCommand(
            id=command.id,
            node_id=node_id,
            operation_id=operation_id,
            kind=command.WhichOneof("body") or "",
            epoch=command.epoch,
            deadline=command.deadline.ToDatetime(UTC) if command.HasField("deadline") else now + DEFAULT_DEADLINE,
            body=self._vault.seal(command.SerializeToString(), f"command/{command.id}"),
            now=now,
        )

    async def _node(self, node_id: str) -> Node:
        node = await self._database.read(lambda tx: nodes.get(tx, node_id))
        if node is None:
            raise AgentFailure(FailureCode.NOT_FOUND, f"node {node_id} does not exist")
        return node


def _next_step(node: Node) -> str:
    return "enrol" if not node.certificate_serial else "connect"


def _waits_for(fact: Fact) -> str:
    if fact.agent_state != AgentState.CONNECTED:
        return f"agent of {fact.node_name} to connect again"
    return fact.waiting_for


def _result(stored: bytes) -> command_pb2.CommandResult:
    result = command_pb2.CommandResult.FromString(stored)
    result.detail = plain(result.detail)
    if result.HasField("failure"):
        raise _agent_failure(result.failure)
    return result


def _no_answer(fact: Fact, kind: str, now: datetime) -> AgentFailure:
    seen = f"; it was last heard {(now - fact.last_seen_at).total_seconds():.0f} s ago" if fact.last_seen_at else ""
    if fact.state == commands.QUEUED:
        return AgentFailure(
            FailureCode.AGENT_SILENT, f"the agent of {fact.node_name} never took {kind}{seen}", retryable=True
        )
    waits = f"; it waited for {fact.waiting_for}" if fact.waiting_for else ""
    return AgentFailure(
        FailureCode.OUTCOME_UNKNOWN, f"the agent of {fact.node_name} took {kind} and has not answered{waits}{seen}"
    )


def _agent_failure(failure: failure_pb2.Failure) -> AgentFailure:
    known = failure_pb2.FailureCode.DESCRIPTOR.values_by_number.get(failure.code)
    name = known.name.removeprefix("FAILURE_CODE_") if known else ""
    code = FailureCode(name) if name in FailureCode.__members__ else FailureCode.INTERNAL
    return AgentFailure(
        code,
        plain(failure.message) or f"the agent gave no reason ({name or failure.code})",
        field=plain(failure.field),
        given=plain(failure.given),
        allowed=plain(failure.allowed),
        retryable=failure.retryable,
    )
