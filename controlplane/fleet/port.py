"""What operations need of the fleet: two calls. `agents.AgentFleet` talks to real agents, `fake.SimulatedFleet` to none."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from wap.agent.v1 import command_pb2

OnWaiting = Callable[[str], Awaitable[None]]


class Fleet(Protocol):
    """Agents by node id, whichever control plane holds their streams."""

    async def await_agent(self, node_id: str, *, within: float, on_waiting: OnWaiting) -> None:
        """Return when the node's agent is connected; AgentFailure AGENT_SILENT after `within` seconds."""

    async def call(
        self, node_id: str, command: command_pb2.Command, *, operation_id: str, on_waiting: OnWaiting
    ) -> command_pb2.CommandResult:
        """The command's result. `command.id` is the idempotency key: the same id is carried out once.

        Raises AgentFailure with the agent's own code, or OUTCOME_UNKNOWN when the deadline passes without an answer.
        """
