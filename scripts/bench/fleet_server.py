"""The servers that are compared, each in a process of its own, told by lines on stdin what to do.

`wap` is the control plane's part for agents as it stands in production: sessions, store, vault, deliveries, and the
telemetry with its hot hour and its embedded stores. `streams` is the same without those: samples are checked,
acknowledged and let go. `bare` is the least that grpc.aio can do with the same TLS and the same messages: it keeps
nothing and checks nothing.
"""

import asyncio
import gc
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
import structlog
from wap.agent.v1 import stream_pb2, stream_pb2_grpc, telemetry_pb2

from controlplane.api.agent_gate import AgentGate
from controlplane.api.agents import AgentService
from controlplane.domain.clock import SystemClock
from controlplane.fleet.agents import AgentFleet
from controlplane.fleet.authority import Authority
from controlplane.fleet.listeners import AGENT_OPTIONS, ListenerCertificate
from controlplane.fleet.sessions import Sessions
from controlplane.monitoring import Telemetry
from controlplane.settings import Settings
from controlplane.store.database import Database
from controlplane.store.vault import Vault, key_from_file
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry_stores import stores
from scripts.bench.fleet_messages import HEARTBEAT_SECONDS, command, raise_file_limit

HOST = "127.0.0.1"
INSTALL = "bench"
Answer = Callable[[], Awaitable[Any]]


class BareService(stream_pb2_grpc.AgentServiceServicer):
    """Reads, answers, forgets."""

    def __init__(self) -> None:
        self.agents: dict[int, Any] = {}
        self._answers, self._all = 0, asyncio.Event()

    async def Connect(  # type: ignore[override]
        self, request_iterator: AsyncIterator[stream_pb2.ConnectRequest], context: Any
    ) -> None:
        """Welcome, then whatever comes."""
        await anext(request_iterator)
        welcome = stream_pb2.Welcome(session_epoch=1, heartbeat_seconds=HEARTBEAT_SECONDS)
        await context.write(stream_pb2.ConnectResponse(welcome=welcome))
        self.agents[id(context)] = context
        try:
            async for request in request_iterator:
                if request.WhichOneof("body") == "command_result":
                    self._answers += 1
                    if self._answers == len(self.agents):
                        self._all.set()
        finally:
            del self.agents[id(context)]

    async def Report(  # type: ignore[override]
        self, request_iterator: AsyncIterator[telemetry_pb2.ReportRequest], context: Any
    ) -> None:
        """Acknowledge."""
        async for request in request_iterator:
            await context.write(telemetry_pb2.ReportResponse(frame_sequence=request.frames[-1].sequence))

    async def RenewCertificate(self, request: stream_pb2.RenewCertificateRequest, context: Any) -> NoReturn:
        """Nobody asks for it here; the generated types demand that it is there."""
        raise NotImplementedError

    async def fan_out(self) -> float:
        """Seconds from the first command out to the last result in."""
        self._answers = 0
        self._all.clear()
        began = time.monotonic()
        orders = [stream_pb2.ConnectResponse(command=command(f"bare/{number}")) for number in range(len(self.agents))]
        await asyncio.gather(
            *(context.write(order) for context, order in zip(self.agents.values(), orders, strict=True))
        )
        await self._all.wait()
        return time.monotonic() - began


async def bare(directory: Path, port: int) -> None:
    """Serve with plain grpc.aio."""
    service = BareService()
    server = grpc.aio.server(options=AGENT_OPTIONS)
    pair = ((directory / "server.key").read_bytes(), (directory / "server.pem").read_bytes())
    roots = (directory / "ca.pem").read_bytes()
    server.add_secure_port(f"{HOST}:{port}", grpc.ssl_server_credentials([pair], roots, require_client_auth=True))
    stream_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    await server.start()
    await obey({"connected": lambda: _value(len(service.agents)), "fan_out": service.fan_out})


async def streams(directory: Path, port: int) -> None:
    """Serve as the control plane does, and keep no telemetry."""
    await serve(directory, port, keeps_telemetry=False)


async def wap(directory: Path, port: int) -> None:
    """Serve as the control plane does."""
    await serve(directory, port, keeps_telemetry=True)


async def serve(directory: Path, port: int, *, keeps_telemetry: bool) -> None:
    """The control plane's part for agents."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    database, clock = Database(f"sqlite:///{directory / 'wap.db'}"), SystemClock()
    vault = Vault(key_from_file(directory / "master.key"))
    authority = await Authority.load(database, vault, clock, INSTALL, 24)
    sessions = Sessions(database, vault, clock, "embedded")
    server = grpc.aio.server(options=AGENT_OPTIONS, interceptors=[AgentGate()])
    certificate = ListenerCertificate(authority, [HOST], clock)
    server.add_secure_port(f"{HOST}:{port}", certificate.credentials(clients=True))
    fleet = AgentFleet(database, vault, clock)
    ingest = Ingest(clock, _let_go, _let_go)
    if keeps_telemetry:
        telemetry = Telemetry(stores(Settings(state_dir=directory)), database, clock, fleet)
        await telemetry.start()
        ingest = telemetry.ingest
    service = AgentService(database, clock, authority, sessions, ingest)
    stream_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    sessions.start()
    await server.start()
    node_ids = [agent["node_id"] for agent in json.loads((directory / "agents.json").read_text())]

    async def fan_out() -> float:
        run = secrets.token_hex(4)
        began = time.monotonic()
        calls = [
            fleet.call(node_id, command(f"{run}/{node_id}"), operation_id=run, on_waiting=_nobody)
            for node_id in node_ids
        ]
        await asyncio.gather(*calls)
        return time.monotonic() - began

    await obey({"connected": lambda: _value(len(sessions)), "fan_out": fan_out})


async def obey(orders: dict[str, Answer]) -> None:
    """Answer each line on stdin with one line of JSON, until there are no more."""
    gc.collect()
    print(json.dumps({"pid": os.getpid()}), flush=True)
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        print(json.dumps(await orders[order]()), flush=True)


async def _value(value: Any) -> Any:
    return value


def _let_go(_: Sequence[object]) -> None:
    """Samples and lines that nobody keeps."""


async def _nobody(text: str) -> None:
    """Nobody looks at what a call waits for."""


if __name__ == "__main__":
    raise_file_limit()
    kind, state, listen = sys.argv[1:]
    asyncio.run({"wap": wap, "streams": streams, "bare": bare}[kind](Path(state), int(listen)))
