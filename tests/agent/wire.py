"""The other end of an agent's streams, in the hand of a test: it says what it is told to, and keeps all that it hears.

Certificates, ports and TLS are the control plane's own; sessions, journal of commands and store are left out, so that a
test can send what a sound control plane never would, and cut a stream in the middle of anything.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import timestamp_pb2
from wap.agent.v1 import command_pb2, report_pb2, stream_pb2, stream_pb2_grpc, telemetry_pb2
from wap.type.v1 import cluster_pb2

from controlplane.api.errors import abort
from controlplane.domain.clock import SystemClock
from controlplane.domain.failure import WapFailure
from controlplane.fleet.authority import Authority, ClusterAuthority
from controlplane.fleet.certificates import new_authority
from controlplane.fleet.listeners import AGENT_OPTIONS, ListenerCertificate
from controlplane.store.vault import Vault
from tests.waiting import eventually

HOST = "127.0.0.1"
MONGODB_PORT = 27017
HEARTBEAT_SECONDS = 0.5


@dataclass
class Peer:
    """One agent: its open stream, and everything it said on all of them, with the time."""

    outgoing: "asyncio.Queue[stream_pb2.ConnectResponse | None] | None" = None
    sessions: int = 0
    heard: list[tuple[float, stream_pb2.ConnectRequest]] = field(default_factory=list)
    serials: list[str] = field(default_factory=list)
    telemetry: "Telemetry" = field(default_factory=lambda: Telemetry())

    @property
    def connected(self) -> bool:
        """Whether a stream is open."""
        return self.outgoing is not None

    def said(self, body: str) -> list[Any]:
        """Everything of one kind that it said, oldest first."""
        return [getattr(message, body) for _, message in self.heard if message.WhichOneof("body") == body]

    def results(self, command_id: str) -> list[command_pb2.CommandResult]:
        """Results of one command."""
        return [result for result in self.said("command_result") if result.command_id == command_id]

    def send(self, message: stream_pb2.ConnectResponse) -> None:
        """Say something to the agent."""
        assert self.outgoing is not None
        self.outgoing.put_nowait(message)

    @property
    def report(self) -> report_pb2.NodeReport:
        """The newest report."""
        beats: list[stream_pb2.Heartbeat] = self.said("heartbeat")
        return beats[-1].report if beats else report_pb2.NodeReport()


@dataclass
class Telemetry:
    """What one agent has reported on all its streams; `deaf` answers nothing, `full` takes nothing."""

    streams: int = 0
    frames: list[tuple[telemetry_pb2.SampleFrame, telemetry_pb2.MetricSet]] = field(default_factory=list)
    lines: list[telemetry_pb2.LogRecord] = field(default_factory=list)
    dropped: dict[str, telemetry_pb2.Dropped] = field(default_factory=dict)
    requests: list[tuple[float, int]] = field(default_factory=list)
    frame_sequence: int = 0
    line_sequence: int = 0
    deaf: bool = False
    full: bool = False

    def take(
        self, request: telemetry_pb2.ReportRequest, sets: dict[int, telemetry_pb2.MetricSet]
    ) -> telemetry_pb2.ReportResponse | None:
        """Keep it, repeats too, and answer. `sets` are those that the stream has declared."""
        self.requests.append((time.monotonic(), request.ByteSize()))
        sets.update((declared.id, declared) for declared in request.metric_sets)
        self.dropped.update((row.reason, row) for row in request.dropped)
        if not self.full:
            self.frames.extend((frame, sets[frame.metric_set_id]) for frame in request.frames)
            self.lines.extend(request.logs)
            self.frame_sequence = max([self.frame_sequence, *(frame.sequence for frame in request.frames)])
            self.line_sequence = max([self.line_sequence, *(line.sequence for line in request.logs)])
        if self.deaf:
            return None
        return telemetry_pb2.ReportResponse(frame_sequence=self.frame_sequence, log_sequence=self.line_sequence)

    def samples(self, thing: str = "") -> list[dict[str, float]]:
        """What was measured about the node or a thing within it, oldest first."""
        return [values_of(frame, names) for frame, names in self.frames if names.object == thing]


def values_of(frame: telemetry_pb2.SampleFrame, names: telemetry_pb2.MetricSet) -> dict[str, float]:
    """A frame's values by name, without those that are absent."""
    absent = set(frame.absent)
    pairs = zip(names.names, frame.values, strict=True)
    return {name: value for index, (name, value) in enumerate(pairs) if index not in absent}


class Wire(stream_pb2_grpc.AgentServiceServicer, stream_pb2_grpc.EnrollmentServiceServicer):
    """Both services for any number of agents. `refusal` answers every new stream, `join_refusal` every enrolment."""

    def __init__(self, life: timedelta = timedelta(hours=24)) -> None:
        clock = SystemClock()
        now = clock.now()
        vault = Vault(secrets.token_bytes(32))
        self.authority = Authority(new_authority("WAP test", now), "test", life, vault, clock)
        self.cluster = ClusterAuthority(new_authority("WAP cluster test", now), "c1", now)
        self.keyfile = base64.b64encode(secrets.token_bytes(96)).decode()
        self.peers: dict[str, Peer] = {}
        self.refusal: WapFailure | None = None
        self.join_refusal: WapFailure | None = None
        self.attempts = 0
        self.api_port = self.agent_port = 0
        self._servers: list[grpc.aio.Server] = []

    async def up(self) -> None:
        """Listen; the first time on ports that the system gives."""
        certificate = ListenerCertificate(self.authority, [HOST], SystemClock())
        agents, api = grpc.aio.server(options=AGENT_OPTIONS), grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.agent_port = agents.add_secure_port(f"{HOST}:{self.agent_port}", certificate.credentials(clients=True))
        self.api_port = api.add_secure_port(f"{HOST}:{self.api_port}", certificate.credentials(clients=False))
        stream_pb2_grpc.add_AgentServiceServicer_to_server(self, agents)
        stream_pb2_grpc.add_EnrollmentServiceServicer_to_server(self, api)
        self._servers = [agents, api]
        for server in self._servers:
            await server.start()

    async def down(self) -> None:
        """Vanish: every stream is cut."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop(0)

    async def join(self, node_id: str, **_: object) -> dict[str, str]:
        """What the node's agent.json holds."""
        self.peers[node_id] = Peer()
        return {
            "node_id": node_id,
            "enroll_endpoint": f"{HOST}:{self.api_port}",
            "ca_pem": self.authority.ca_pem,
            "join_token": secrets.token_urlsafe(32),
        }

    async def Enroll(self, request: stream_pb2.EnrollRequest, context: Any) -> stream_pb2.EnrollResponse:
        if self.join_refusal is not None:
            await abort(context, self.join_refusal, "r1")
        leaf = self.authority.issue_agent(request.node_id, request.csr_pem)
        return stream_pb2.EnrollResponse(
            certificate_pem=leaf.pem, ca_pem=self.authority.ca_pem, agent_endpoint=f"{HOST}:{self.agent_port}"
        )

    async def Connect(
        self, request_iterator: AsyncIterator[stream_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[stream_pb2.ConnectResponse]:
        self.attempts += 1
        if self.refusal is not None:
            await abort(context, self.refusal, "r1")
        peer = self._peer(context)
        hello = await anext(request_iterator)
        peer.heard.append((time.monotonic(), hello))
        peer.sessions += 1
        if peer.outgoing is not None:
            peer.outgoing.put_nowait(None)
        outgoing: asyncio.Queue[stream_pb2.ConnectResponse | None] = asyncio.Queue()
        welcome = stream_pb2.Welcome(session_epoch=peer.sessions, heartbeat_seconds=HEARTBEAT_SECONDS)
        welcome.server_time.GetCurrentTime()
        yield stream_pb2.ConnectResponse(welcome=welcome)
        peer.outgoing = outgoing
        reader = asyncio.create_task(_listen(peer, request_iterator, outgoing))
        try:
            while (message := await outgoing.get()) is not None:
                yield message
        finally:
            reader.cancel()
            if peer.outgoing is outgoing:
                peer.outgoing = None

    async def Report(
        self, request_iterator: AsyncIterator[telemetry_pb2.ReportRequest], context: Any
    ) -> AsyncIterator[telemetry_pb2.ReportResponse]:
        peer = self._peer(context)
        peer.telemetry.streams += 1
        sets: dict[int, telemetry_pb2.MetricSet] = {}
        async for request in request_iterator:
            answer = peer.telemetry.take(request, sets)
            if answer is not None:
                yield answer

    async def RenewCertificate(
        self, request: stream_pb2.RenewCertificateRequest, context: Any
    ) -> stream_pb2.RenewCertificateResponse:
        node_id = context.auth_context()["x509_common_name"][0].decode()
        leaf = self.authority.issue_agent(node_id, request.csr_pem)
        self.peers[node_id].serials.append(leaf.serial)
        return stream_pb2.RenewCertificateResponse(certificate_pem=leaf.pem, ca_pem=self.authority.ca_pem)

    def _peer(self, context: Any) -> Peer:
        return self.peers[context.auth_context()["x509_common_name"][0].decode()]

    async def connected(self, node_id: str) -> None:
        """The agent has a session and has told how its node is."""
        peer = self.peers[node_id]
        await eventually(lambda: peer.connected and peer.said("heartbeat"), within=20)

    def cut(self, node_id: str) -> None:
        """End the agent's stream."""
        outgoing = self.peers[node_id].outgoing
        assert outgoing is not None
        outgoing.put_nowait(None)

    def deliver(self, node_id: str, command: command_pb2.Command) -> None:
        """Send a command as it is."""
        self.peers[node_id].send(stream_pb2.ConnectResponse(command=command))

    async def order(self, node_id: str, command: command_pb2.Command) -> command_pb2.CommandResult:
        """Send a command and wait for its next result."""
        peer = self.peers[node_id]
        before = len(peer.results(command.id))
        self.deliver(node_id, command)
        return (await eventually(lambda: peer.results(command.id)[before:], within=60, every=0.02))[0]

    def start_order(self, csr_pem: str, ip: str, volume_id: str, directory: Path) -> command_pb2.StartMongod:
        """StartMongod with good values."""
        return command_pb2.StartMongod(
            distribution=command_pb2.Distribution(version="6.0.5", directory=str(directory)),
            volume_id=volume_id,
            replica_set="rs0",
            role=cluster_pb2.REPLICA_SET_ROLE_DATA,
            bind_ip=ip,
            port=MONGODB_PORT,
            keyfile=self.keyfile,
            certificate_pem=self.cluster.issue_member(csr_pem, ip, []),
            ca_pem=self.cluster.ca_pem,
            cache_gib=0.25,
            oplog_mib=32,
        )


def command(command_id: str = "", *, epoch: int = 5, within: float = 60.0, **body: Any) -> command_pb2.Command:
    """A command with an id of its own, an epoch and a deadline so many seconds from now."""
    deadline = timestamp_pb2.Timestamp()
    deadline.FromDatetime(datetime.now(UTC) + timedelta(seconds=within))
    return command_pb2.Command(id=command_id or secrets.token_hex(8), epoch=epoch, deadline=deadline, **body)


@asynccontextmanager
async def wire(make: Callable[[], Wire] = Wire) -> AsyncIterator[Wire]:
    """A wire that is up, for the time of the context."""
    other_end = make()
    await other_end.up()
    try:
        yield other_end
    finally:
        await other_end.down()


async def _listen(
    peer: Peer,
    requests: AsyncIterator[stream_pb2.ConnectRequest],
    outgoing: "asyncio.Queue[stream_pb2.ConnectResponse | None]",
) -> None:
    async for request in requests:
        peer.heard.append((time.monotonic(), request))
        if request.HasField("goodbye"):
            break
    outgoing.put_nowait(None)
