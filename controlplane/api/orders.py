"""What a person asks of a node's agent at this moment: look, kill, sample faster. Not part of any operation."""

import secrets
from datetime import timedelta

from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2

from controlplane.domain.clock import Clock
from controlplane.domain.failure import AgentFailure, FailureCode, not_found
from controlplane.domain.node import AgentState
from controlplane.fleet.port import Fleet
from controlplane.store import clusters, nodes
from controlplane.store.database import Database

# Under this name their commands stand in the store, and are dropped after a while.
OPERATION = "monitoring"
WITHIN = timedelta(seconds=10)


class Orders:
    """Sends commands for people who look at a node."""

    def __init__(self, database: Database, fleet: Fleet, clock: Clock) -> None:
        self._database, self._fleet, self._clock = database, fleet, clock

    async def give(self, node_id: str, command: command_pb2.Command) -> command_pb2.CommandResult:
        """The result of a command, of which only the body is set. AGENT_SILENT at once where no agent listens."""
        command.epoch = await self._database.read(lambda tx: _epoch(tx, node_id))
        command.id = f"{OPERATION}/{node_id}/{secrets.token_hex(8)}"
        command.deadline.FromDatetime(self._clock.now() + WITHIN)
        return await self._fleet.call(node_id, command, operation_id=OPERATION, on_waiting=_nobody)


def _epoch(tx: Session, node_id: str) -> int:
    node = nodes.get(tx, node_id)
    cluster = clusters.get(tx, node.cluster_id) if node is not None else None
    if node is None or cluster is None:
        raise not_found("node", node_id)
    if node.agent_state != AgentState.CONNECTED:
        raise AgentFailure(
            FailureCode.AGENT_SILENT,
            f"the agent of {node.name} is not connected",
            field="node_id",
            given=node_id,
            allowed="a node whose agent is connected",
        )
    return cluster.epoch


async def _nobody(_: str) -> None:
    """Nobody is told what is waited for."""
