"""A control plane for agents in the tests' own process: the real sessions, authority and store behind real TLS ports."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2, stream_pb2_grpc

from controlplane.api.agents import AgentService
from controlplane.api.enrollment import EnrollmentService
from controlplane.domain.clock import SystemClock
from controlplane.domain.node import AgentState
from controlplane.fleet.agents import AgentFleet
from controlplane.fleet.authority import Authority
from controlplane.fleet.listeners import AGENT_OPTIONS, ListenerCertificate
from controlplane.fleet.sessions import Sessions
from controlplane.store import nodes
from controlplane.store.database import Database
from controlplane.store.schema import migrate
from controlplane.store.tables import Cluster, Node
from controlplane.store.vault import Vault
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.port import Frame, LogLine
from tests.waiting import eventually

HOST = "127.0.0.1"
CLUSTER = "c1"
EPOCH = 5


class ControlPlane:
    """Ports, sessions and the fleet; can be taken down and brought up again on the same ports and database."""

    def __init__(self, state: Path, agent_life: timedelta = timedelta(hours=24)) -> None:
        self._state, self._life = state, agent_life
        self.clock = SystemClock()
        self.vault = Vault(secrets.token_bytes(32))
        self.database = Database(f"sqlite:///{state / 'wap.db'}")
        self.api_port = self.agent_port = 0
        self._servers: list[grpc.aio.Server] = []
        # What agents have reported, of all lives of this control plane.
        self.frames: list[Frame] = []
        self.lines: list[LogLine] = []

    async def prepare(self) -> None:
        """The store, the authority and the cluster that the nodes belong to."""
        await asyncio.to_thread(migrate, self.database.engine)
        await self.database.bus.start()
        hours = self._life.total_seconds() / 3600
        self.authority = await Authority.load(self.database, self.vault, self.clock, "test", hours)
        self.fleet = AgentFleet(self.database, self.vault, self.clock)
        await self.database.write(self._add_cluster)

    def _add_cluster(self, tx: Session) -> None:
        tx.add(
            Cluster(
                id=CLUSTER,
                project_id="p1",
                name="demo",
                name_key="demo",
                spec={},
                generation=1,
                state="ready",
                network_slot=None,
                usd_per_month=0.0,
                created_at=self.clock.now(),
                epoch=EPOCH,
            )
        )

    async def up(self) -> None:
        """Listen; the first time on ports that the system gives."""
        self.sessions = Sessions(self.database, self.vault, self.clock, "embedded")
        self.ingest = Ingest(self.clock, self.frames.extend, self.lines.extend)
        certificate = ListenerCertificate(self.authority, [HOST], self.clock)
        agents, api = grpc.aio.server(options=AGENT_OPTIONS), grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.agent_port = agents.add_secure_port(f"{HOST}:{self.agent_port}", certificate.credentials(clients=True))
        self.api_port = api.add_secure_port(f"{HOST}:{self.api_port}", certificate.credentials(clients=False))
        service = AgentService(self.database, self.clock, self.authority, self.sessions, self.ingest)
        stream_pb2_grpc.add_AgentServiceServicer_to_server(service, agents)
        enrollment = EnrollmentService(self.database, self.clock, self.authority, f"{HOST}:{self.agent_port}")
        stream_pb2_grpc.add_EnrollmentServiceServicer_to_server(enrollment, api)
        self.sessions.start()
        self._servers = [agents, api]
        for server in self._servers:
            await server.start()

    async def down(self) -> None:
        """Vanish without a word: streams are cut."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop(0)
        if servers:
            await self.sessions.close()

    async def close(self) -> None:
        """Down for good."""
        await self.down()
        await self.database.close()

    async def join(self, node_id: str, *, ip: str, volume_id: str, ordinal: int = 0) -> dict[str, str]:
        """A row for a node that may join: what its agent.json holds."""
        token = secrets.token_urlsafe(32)

        def work(tx: Session) -> None:
            tx.add(
                Node(
                    id=node_id,
                    cluster_id=CLUSTER,
                    name=f"rs0-{ordinal}",
                    replica_set="rs0",
                    ordinal=ordinal,
                    zone_wish="a",
                    instance_type="t3.small",
                    disk_gib=1,
                    private_ip=ip,
                    volume_id=volume_id,
                    agent_state=AgentState.WAITING,
                    created_at=self.clock.now(),
                )
            )
            tx.flush()
            nodes.expect_join(tx, node_id, token, self.clock.now())

        await self.database.write(work)
        return {
            "node_id": node_id,
            "enroll_endpoint": f"{HOST}:{self.api_port}",
            "ca_pem": self.authority.ca_pem,
            "join_token": token,
        }

    async def node(self, node_id: str) -> Node:
        """The node's row as it is now."""
        return await self.database.read(lambda tx: tx.get_one(Node, node_id))

    async def connected(self, node_id: str) -> None:
        """The agent's session is open and the store knows how its node is."""

        async def seen() -> bool:
            node = await self.node(node_id)
            return node.agent_state == AgentState.CONNECTED and node.report is not None

        await eventually(seen, within=20)

    async def order(self, node_id: str, command: command_pb2.Command) -> command_pb2.CommandResult:
        """Send a command as an operation would, and return its result or raise its failure."""
        return await self.fleet.call(node_id, command, operation_id="op", on_waiting=_nobody)


@asynccontextmanager
async def control_plane(state: Path, agent_life: timedelta = timedelta(hours=24)) -> AsyncIterator[ControlPlane]:
    """A control plane that is up, for the time of the context."""
    control = ControlPlane(state, agent_life)
    await control.prepare()
    await control.up()
    try:
        yield control
    finally:
        await control.close()


async def _nobody(_: str) -> None:
    """Nobody reads what is waited for."""
