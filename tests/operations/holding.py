"""A simulated fleet whose agents can be made to think for as long as a test likes."""

import asyncio
from pathlib import Path

from wap.agent.v1 import command_pb2

from controlplane.fleet.fake import SimulatedFleet
from controlplane.fleet.port import OnWaiting

AGENT = "await_agent"


class HoldingFleet(SimulatedFleet):
    """Commands of the kind in `held` (or the first call of an agent, AGENT) wait until `go`."""

    def __init__(self, file: Path, held: str) -> None:
        super().__init__(file)
        self.held, self.go = held, asyncio.Event()

    async def await_agent(self, node_id: str, *, within: float, on_waiting: OnWaiting) -> None:
        """Implements fleet.port.Fleet."""
        if self.held == AGENT:
            await on_waiting(f"agent of {node_id} to connect")
            await self.go.wait()
        await super().await_agent(node_id, within=within, on_waiting=on_waiting)

    async def call(
        self, node_id: str, command: command_pb2.Command, *, operation_id: str, on_waiting: OnWaiting
    ) -> command_pb2.CommandResult:
        """Implements fleet.port.Fleet."""
        if self.held == command.WhichOneof("body"):
            await on_waiting(f"{self.held} on {node_id}")
            await self.go.wait()
        return await super().call(node_id, command, operation_id=operation_id, on_waiting=on_waiting)
