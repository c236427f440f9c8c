"""Simulated agents, some hundreds to a process: mutual TLS, two streams each, and full jitter after a loss.

They answer commands at once and do nothing else; what they cost is not counted.
"""

import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from wap.agent.v1 import stream_pb2_grpc

from agent.channel import EOF, FRESH, KEEPALIVE, full_jitter
from agent.connection import STABLE_SECONDS
from scripts.bench.fleet_messages import (
    HEARTBEAT_SECONDS,
    SAMPLE_SECONDS,
    accepted,
    heartbeat,
    hello,
    raise_file_limit,
    result,
    sample,
)

HOST = "127.0.0.1"
# Handshakes of one process that are under way at the very first start, which is not what is measured.
START_AT_ONCE = 20
OPTIONS = [*KEEPALIVE, *FRESH]


class Fleet:
    """All agents of this process, and what is counted about them."""

    def __init__(self, ca_pem: bytes, port: int) -> None:
        self._ca_pem, self._endpoint = ca_pem, f"{HOST}:{port}"
        self._starting = asyncio.Semaphore(START_AT_ONCE)
        self.connected = 0
        # Attempts to connect after a loss, by the second in which they were made.
        self.attempts: Counter[int] = Counter()

    async def run(self, agent: dict[str, str]) -> None:
        """One agent for ever."""
        credentials = grpc.ssl_channel_credentials(self._ca_pem, agent["key"].encode(), agent["certificate"].encode())
        attempt = 0
        for number in itertools.count():
            began = time.monotonic()
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with grpc.aio.secure_channel(self._endpoint, credentials, options=OPTIONS) as channel:
                    stub: Any = stream_pb2_grpc.AgentServiceStub(channel)
                    if number:
                        self.attempts[int(time.time())] += 1
                        call = await _open(stub, agent)
                    else:
                        async with self._starting:
                            call = await _open(stub, agent)
                    await self._hold(stub, call)
            # As the real agent counts.
            attempt = 0 if time.monotonic() - began >= STABLE_SECONDS else attempt + 1
            await asyncio.sleep(full_jitter(attempt))

    async def _hold(self, stub: Any, call: Any) -> None:
        self.connected += 1
        writing = asyncio.Lock()  # one writer at a time: two at once are an error in gRPC
        beside = [asyncio.create_task(_beat(call, writing)), asyncio.create_task(_report(stub))]
        try:
            while (message := await call.read()) is not EOF:
                if message.WhichOneof("body") == "command":
                    async with writing:
                        await call.write(accepted(message.command.id))
                        await call.write(result(message.command.id))
        finally:
            self.connected -= 1
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)


async def _open(stub: Any, agent: dict[str, str]) -> Any:
    call = stub.Connect()
    await call.write(hello(agent["node_id"]))
    await call.read()
    return call


async def _beat(call: Any, writing: asyncio.Lock) -> None:
    await asyncio.sleep(random.uniform(0, HEARTBEAT_SECONDS))
    for number in itertools.count():
        async with writing:
            await call.write(heartbeat(number))
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _report(stub: Any) -> None:
    await asyncio.sleep(random.uniform(0, SAMPLE_SECONDS))
    call = stub.Report()
    began = int(time.time())
    for sequence in itertools.count(began):
        await call.write(sample(sequence, first=sequence == began))
        await call.read()
        await asyncio.sleep(SAMPLE_SECONDS)


async def main(directory: Path, port: int, first: int, last: int) -> None:
    """Run agents `first` to `last` and tell what was counted, once for each line on stdin."""
    agents = json.loads((directory / "agents.json").read_text())[first:last]
    fleet = Fleet((directory / "ca.pem").read_bytes(), port)
    running = [asyncio.create_task(fleet.run(agent)) for agent in agents]
    print(json.dumps({"agents": len(running)}), flush=True)
    loop = asyncio.get_running_loop()
    while (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        print(json.dumps({"connected": fleet.connected, "attempts": fleet.attempts}), flush=True)
    for task in running:
        task.cancel()


if __name__ == "__main__":
    raise_file_limit()
    state, listen, begin, end = sys.argv[1:]
    asyncio.run(main(Path(state), int(listen), int(begin), int(end)))
