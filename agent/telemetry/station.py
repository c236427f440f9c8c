"""All of the node's telemetry: what gathers it, what keeps it, what sends it."""

import asyncio
from collections import Counter
from pathlib import Path

from wap.agent.v1 import stream_pb2_grpc, telemetry_pb2

from agent.logs import Log
from agent.mongod.supervisor import Supervisor
from agent.settings import NodePaths
from agent.telemetry.buffer import Buffer
from agent.telemetry.follow import LogSource, agent_record, mongod_record
from agent.telemetry.pace import Pace
from agent.telemetry.sampling import Sampler
from agent.telemetry.stream import Reports

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = Log(__name__)


class Telemetry:
    """Gathers from the start of the agent to its end, and sends while there is a session."""

    def __init__(self, paths: NodePaths, mongod: Supervisor, pace: Pace) -> None:
        self._buffer = Buffer(paths.telemetry, _boot_id())
        self._sources = (
            LogSource("mongod.log", paths.mongod_log, self._buffer, mongod_record),
            LogSource("agent.log", paths.agent_log, self._buffer, agent_record),
        )
        self._sampler = Sampler(paths, mongod, self._buffer, pace, self._own)
        self._reports = Reports(self._buffer, self._dropped)
        self._losses = 0

    async def gather(self) -> None:
        """Sample and follow the logs. Never returns."""
        await asyncio.gather(self._sampler.run(), *(source.run() for source in self._sources))

    async def send(self, stub: "stream_pb2_grpc.AgentServiceAsyncStub") -> None:
        """Send what waits over this connection until cancelled."""
        await self._reports.run(stub)

    def connection_lost(self) -> None:
        """A session ended that should have gone on."""
        self._losses += 1

    async def close(self) -> None:
        """Let go of the buffer's file."""
        await self._buffer.close()

    def _own(self) -> dict[str, float]:
        return {
            "agent.buffer_bytes": self._buffer.bytes,
            "agent.dropped_frames": self._buffer.frames_dropped.total(),
            "agent.dropped_logs": self._lines_dropped().total(),
            "agent.connection_losses": self._losses,
        }

    def _dropped(self) -> list[telemetry_pb2.Dropped]:
        frames, lines = self._buffer.frames_dropped, self._lines_dropped()
        return [
            telemetry_pb2.Dropped(reason=reason, frames=frames[reason], logs=lines[reason])
            for reason in sorted(frames.keys() | lines.keys())
            if frames[reason] or lines[reason]
        ]

    def _lines_dropped(self) -> Counter[str]:
        return sum((source.dropped for source in self._sources), self._buffer.lines_dropped)


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
