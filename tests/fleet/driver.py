"""A control plane for agents in the tests' own process, and the agents' side as bare gRPC calls.

The ports, sessions, authority and store are the real ones; the agents are not: a test says each message itself.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.protobuf import timestamp_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sqlalchemy import select
from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2, report_pb2, stream_pb2, stream_pb2_grpc

from controlplane.api.agent_gate import AgentGate
from controlplane.api.agents import AgentService
from controlplane.api.enrollment import EnrollmentService
from controlplane.domain import ids
from controlplane.domain.clock import Clock, SystemClock
from controlplane.domain.node import AgentState
from controlplane.fleet.agents import AgentFleet
from controlplane.fleet.authority import Authority
from controlplane.fleet.certificates import Leaf
from controlplane.fleet.listeners import AGENT_OPTIONS, API_OPTIONS, ListenerCertificate
from controlplane.fleet.sessions import Pace, Sessions
from controlplane.store import nodes
from controlplane.store.database import Database
from controlplane.store.tables import AuditEvent, Cluster, Node
from controlplane.store.vault import Vault
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.port import Frame, LogLine

HOST = "127.0.0.1"
INSTALL = "test"
CLUSTER = "cl-1"
EPOCH = 5
SECONDS = 10.0
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
FRESH = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
SERVICE = "/wap.agent.v1.AgentService/"


@dataclass(frozen=True)
class Ended:
    """How a call ended: status, and of the reason what ErrorInfo carries."""

    status: grpc.StatusCode
    text: str
    reason: str = ""
    field: str = ""
    given: str = ""
    allowed: str = ""


class ControlPlane:
    """One control plane on a database that it may share with others."""

    def __init__(self, database: Database, vault: Vault, *, clock: Clock, owner: str, pace: Pace) -> None:
        self.database, self.vault, self.clock, self._owner, self._pace = database, vault, clock, owner, pace
        self.api_port = self.agent_port = 0
        self.frames: list[Frame] = []
        self.lines: list[LogLine] = []

    async def up(self, certificate: ListenerCertificate | None = None) -> None:
        """Listen, on the ports of the last time if there was one."""
        self.authority = await Authority.load(self.database, self.vault, self.clock, INSTALL, 24)
        self.sessions = Sessions(self.database, self.vault, self.clock, self._owner, self._pace)
        self.ingest = Ingest(self.clock, self.frames.extend, self.lines.extend)
        self.fleet = AgentFleet(self.database, self.vault, self.clock)
        certificate = certificate or ListenerCertificate(self.authority, [HOST], self.clock)
        api = grpc.aio.server(options=API_OPTIONS)
        agents = grpc.aio.server(options=AGENT_OPTIONS, interceptors=[AgentGate()])
        self.agent_port = agents.add_secure_port(f"{HOST}:{self.agent_port}", certificate.credentials(clients=True))
        self.api_port = api.add_secure_port(f"{HOST}:{self.api_port}", certificate.credentials(clients=False))
        service = AgentService(self.database, self.clock, self.authority, self.sessions, self.ingest)
        stream_pb2_grpc.add_AgentServiceServicer_to_server(service, agents)
        self.enrollment = EnrollmentService(self.database, self.clock, self.authority, f"{HOST}:{self.agent_port}")
        stream_pb2_grpc.add_EnrollmentServiceServicer_to_server(self.enrollment, api)
        self.sessions.start()
        self._servers = [agents, api]
        for server in self._servers:
            await server.start()

    async def down(self) -> None:
        """Stop in order."""
        servers, self._servers = self._servers, []
        if servers:
            await self.sessions.close()
        for server in servers:
            await server.stop(0)

    async def add_node(self, *, token: str = "", cluster_id: str = CLUSTER) -> str:
        """A node that waits for its agent, to join with this token if one is given; its id."""
        node_id = ids.node_id()

        def work(tx: Session) -> None:
            if tx.get(Cluster, cluster_id) is None:
                tx.add(_cluster(cluster_id, self.clock.now()))
            tx.add(_node(node_id, cluster_id, self.clock.now()))
            tx.flush()
            if token:
                nodes.expect_join(tx, node_id, token, self.clock.now())

        await self.database.write(work)
        return node_id

    async def add_agent(self, *, life: timedelta | None = None) -> "Agent":
        """A node whose agent has an identity already, good for `life`."""
        node_id = await self.add_node()
        agent = Agent(self, node_id)
        leaf = self.issue(node_id, agent.request, life)
        await self.accept(node_id, leaf)
        agent.certificate_pem = leaf.pem
        return agent

    def issue(self, node_id: str, request: str, life: timedelta | None = None) -> Leaf:
        """A certificate of this authority."""
        pair, clock = self.authority.pair, self.clock
        hours = life or timedelta(hours=24)
        return Authority(pair, INSTALL, hours, self.vault, clock).issue_agent(node_id, request)

    async def accept(self, node_id: str, leaf: Leaf) -> None:
        """Make it a certificate in use."""
        await self.database.write(lambda tx: nodes.set_certificate(tx, node_id, leaf.serial, leaf.expires))

    async def node(self, node_id: str) -> Node:
        """The row."""
        return await self.database.read(lambda tx: tx.get_one(Node, node_id))

    async def state(self, node_id: str) -> str:
        """The agent's state in the store."""
        return (await self.node(node_id)).agent_state

    async def audit(self, action: str) -> list[AuditEvent]:
        """Events of this action, oldest first."""
        query = select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.seq)
        return await self.database.read(lambda tx: list(tx.scalars(query)))

    async def enroll(self, node_id: str, token: str, request: str, **more: str) -> "Leaf | Ended":
        """Enroll as an agent would; the certificate's PEM stands in the leaf."""
        credentials = grpc.ssl_channel_credentials(self.authority.ca_pem.encode())
        async with grpc.aio.secure_channel(f"{HOST}:{self.api_port}", credentials, options=FRESH) as channel:
            stub: Any = stream_pb2_grpc.EnrollmentServiceStub(channel)
            wish = stream_pb2.EnrollRequest(join_token=token, node_id=node_id, csr_pem=request, **more)
            try:
                reply = await stub.Enroll(wish, timeout=SECONDS)
            except grpc.aio.AioRpcError as error:
                return ended(error)
        certificate = x509.load_pem_x509_certificate(reply.certificate_pem.encode())
        return Leaf(reply.certificate_pem, f"{certificate.serial_number:x}", certificate.not_valid_after_utc)

    async def order(
        self, node_id: str, command_id: str, *, epoch: int = EPOCH, within: float = 30.0
    ) -> command_pb2.CommandResult:
        """Send a command as an operation would."""
        return await self.fleet.call(
            node_id, command(command_id, epoch=epoch, within=within), operation_id="op-1", on_waiting=_nobody
        )


class Agent:
    """One agent's identity and its ways to the control plane."""

    def __init__(self, plane: ControlPlane, node_id: str) -> None:
        self.plane, self.node_id = plane, node_id
        self.new_key()

    def new_key(self) -> None:
        """Another key, and the request for its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        self.key_pem = key_pem(key)
        self.request = signing_request(key)

    def channel(self, plane: ControlPlane | None = None) -> Any:
        """A new connection with this identity: a grpc.aio.Channel, whose stubs demand what has a default."""
        plane = plane or self.plane
        credentials = grpc.ssl_channel_credentials(
            plane.authority.ca_pem.encode(), self.key_pem, self.certificate_pem.encode()
        )
        return grpc.aio.secure_channel(f"{HOST}:{plane.agent_port}", credentials, options=FRESH)

    @contextlib.asynccontextmanager
    async def line(self, plane: ControlPlane | None = None) -> AsyncIterator["Line"]:
        """A command stream that has said nothing yet."""
        async with self.channel(plane) as channel:
            stub: Any = stream_pb2_grpc.AgentServiceStub(channel)
            yield Line(channel, stub.Connect())

    @contextlib.asynccontextmanager
    async def session(self, plane: ControlPlane | None = None) -> AsyncIterator["Line"]:
        """A command stream that was welcomed."""
        async with self.line(plane) as line:
            await line.hello()
            yield line

    async def attempt(self, plane: ControlPlane | None = None) -> "Ended | stream_pb2.Welcome":
        """Connect and say hello; the welcome, or why not."""
        async with self.line(plane) as line:
            try:
                return await line.hello()
            except grpc.aio.AioRpcError as error:
                return ended(error)

    async def renew(self) -> Leaf:
        """Ask for the next certificate, with a new key; the agent uses it from now on."""
        async with self.channel() as channel:
            stub: Any = stream_pb2_grpc.AgentServiceStub(channel)
            self.new_key()
            wish = stream_pb2.RenewCertificateRequest(csr_pem=self.request)
            reply = await stub.RenewCertificate(wish, timeout=SECONDS)
        self.certificate_pem = reply.certificate_pem
        certificate = x509.load_pem_x509_certificate(reply.certificate_pem.encode())
        return Leaf(reply.certificate_pem, f"{certificate.serial_number:x}", certificate.not_valid_after_utc)

    def copy(self) -> "Agent":
        """The same identity in other hands."""
        other = Agent(self.plane, self.node_id)
        other.key_pem, other.request, other.certificate_pem = self.key_pem, self.request, self.certificate_pem
        return other


class Line:
    """One command stream, message by message."""

    def __init__(self, channel: Any, call: Any) -> None:
        self.channel, self.call = channel, call
        self.epoch = 0

    async def hello(self, protocol: int = 1) -> stream_pb2.Welcome:
        """Hello and the welcome to it."""
        await self.say(hello=stream_pb2.Hello(protocol=protocol, agent_version="1.0", host_name="h", boot_id="b"))
        message = await self.read()
        assert message.WhichOneof("body") == "welcome"
        self.epoch = message.welcome.session_epoch
        return message.welcome  # type: ignore[no-any-return]

    async def say(self, **body: Any) -> None:
        """One message. What the control plane thinks of it is learnt by reading."""
        with contextlib.suppress(asyncio.InvalidStateError):  # the stream has ended: `ended` tells why
            await self.call.write(stream_pb2.ConnectRequest(**body))

    async def beat(self, **report: Any) -> None:
        """A heartbeat with a report."""
        await self.say(heartbeat=stream_pb2.Heartbeat(report=report_pb2.NodeReport(**report)))

    async def answer(self, command_id: str, detail: str = "", **result: Any) -> None:
        """The result of a command."""
        await self.say(command_result=command_pb2.CommandResult(command_id=command_id, detail=detail, **result))

    async def read(self, within: float = SECONDS) -> Any:
        """The next message."""
        async with asyncio.timeout(within):
            return await self.call.read()

    async def command(self, within: float = SECONDS) -> command_pb2.Command:
        """The next command."""
        message = await self.read(within)
        assert message is not EOF, "the stream has ended"
        assert message.WhichOneof("body") == "command"
        return message.command  # type: ignore[no-any-return]

    async def ended(self, within: float = SECONDS) -> Ended:
        """How the stream ends; what comes before is dropped."""
        async with asyncio.timeout(within):
            try:
                while await self.call.read() is not EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return ended(error)
            return Ended(await self.call.code(), "")


def command(command_id: str, *, epoch: int = EPOCH, within: float = 30.0) -> command_pb2.Command:
    """A small command."""
    deadline = timestamp_pb2.Timestamp()
    deadline.FromDatetime(datetime.now(UTC) + timedelta(seconds=within))
    return command_pb2.Command(
        id=command_id, epoch=epoch, deadline=deadline, prepare_volume=command_pb2.PrepareVolume(volume_id="vol-1")
    )


def ended(error: grpc.aio.AioRpcError) -> Ended:
    """Read the status of a call that failed."""
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
    known = {name: info.metadata[name] for name in ("field", "given", "allowed") if name in info.metadata}
    return Ended(error.code(), error.details() or "", info.reason, **known)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *extensions: x509.ExtensionType, name: str = ""
) -> str:
    """A certificate request, PEM."""
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@contextlib.asynccontextmanager
async def control_plane(
    database: Database,
    *,
    vault: Vault | None = None,
    clock: Clock | None = None,
    owner: str = "embedded",
    pace: Pace | None = None,
) -> AsyncIterator[ControlPlane]:
    """A control plane that is up, for the time of the context."""
    plane = ControlPlane(
        database,
        vault or Vault(secrets.token_bytes(32)),
        clock=clock or SystemClock(),
        owner=owner,
        pace=pace or Pace(),
    )
    await plane.up()
    try:
        yield plane
    finally:
        await plane.down()


def _cluster(cluster_id: str, now: datetime) -> Cluster:
    return Cluster(
        id=cluster_id,
        project_id="pr-1",
        name=cluster_id,
        name_key=cluster_id,
        spec={},
        generation=1,
        state="READY",
        network_slot=None,
        usd_per_month=0.0,
        created_at=now,
        epoch=EPOCH,
    )


def _node(node_id: str, cluster_id: str, now: datetime) -> Node:
    return Node(
        id=node_id,
        cluster_id=cluster_id,
        name=f"rs0-{node_id}",
        replica_set="rs0",
        ordinal=0,
        zone_wish="a",
        instance_type="m6i.large",
        disk_gib=20,
        agent_state=AgentState.WAITING,
        created_at=now,
    )


async def _nobody(text: str) -> None:
    """Nobody looks at what a call waits for."""
