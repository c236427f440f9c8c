"""The API as its callers see it: a real gRPC server on loopback over a real store, two projects, and people."""

import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
from argon2 import PasswordHasher
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from sqlalchemy import select
from sqlalchemy.orm import Session
from wap.control.v1 import access_pb2, alert_pb2, cluster_pb2, log_pb2, metric_pb2, node_pb2, operation_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2

from console.client import WapError
from console.client.errors import from_call
from controlplane.api.gate import RECHECK_SECONDS
from controlplane.api.monitoring import Monitoring
from controlplane.api.passwords import Passwords
from controlplane.api.service import build_api
from controlplane.api.services import Services
from controlplane.domain.access import Grant, Role
from controlplane.domain.catalog import estimate
from controlplane.domain.clock import FakeClock
from controlplane.domain.cluster import (
    Choices,
    ClusterSpec,
    ClusterState,
    NodeSize,
    ReplicaSetRole,
    ReplicaSetSpec,
    Topology,
)
from controlplane.domain.node import AgentState
from controlplane.domain.operation import OperationKind, OperationState
from controlplane.fleet.fake import SimulatedFleet
from controlplane.fleet.listeners import API_OPTIONS
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.store import access, clusters, operations, projects
from controlplane.store.database import Database
from controlplane.store.fake_queue import FakeQueue
from controlplane.store.operations import OperationQueue
from controlplane.store.tables import Base, Cluster, Node, Operation, Project, Token, User
from controlplane.store.vault import KEY_BYTES, Vault, cluster_scope
from controlplane.telemetry.fake_logs import FakeLogStore
from controlplane.telemetry.fake_metrics import FakeMetricStore
from controlplane.telemetry.hot import HotHour
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.tail import Tail

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
VERSIONS = ("6.0.5", "7.0.14")
DATABASE_PASSWORD = "canary-database-password"
CA_PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
MAX_CLUSTERS = 5
PASSWORDS = Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))  # as cheap as it gets
CONTROL_FILES = (access_pb2, alert_pb2, cluster_pb2, log_pb2, metric_pb2, node_pb2, operation_pb2, project_pb2)


class Refusal(WapError):
    """A WapError that also shows what came behind the answer."""

    trailing: dict[str, str]


def methods() -> dict[str, MethodDescriptor]:
    """Every RPC of the public API by "Service/Method", as the proto files have them."""
    found = {}
    for module in CONTROL_FILES:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found[f"{service.name}/{method.name}"] = method
    return found


def reply_class(method: MethodDescriptor) -> type[Message]:
    pool = descriptor_pool.Default()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(method.output_type.full_name))


@dataclass
class Offer:
    """What the installation offers; counts how often AWS would have been asked."""

    aws_calls: int = 0
    failure: Exception | None = None

    async def choices(self, region: str) -> Choices:
        if self.failure is not None:
            raise self.failure
        if region != "us-east-1":
            return Choices(("us-east-1",), (), VERSIONS, ())
        self.aws_calls += 1
        return Choices(("us-east-1",), ZONES, VERSIONS, ())


class Measured:
    """Stores in memory, what is hot, and agents without machines. What agents report goes to memory and stores at once."""

    def __init__(self, clock: FakeClock, folder: Path, *, alone: bool = True) -> None:
        self.metrics, self.logs, self.hot, self.tail = FakeMetricStore(), FakeLogStore(), HotHour(clock), Tail()
        self.fleet = SimulatedFleet(folder / "fleet.json", clock=clock)
        self.ingest = Ingest(clock, self.hot.take, self.tail.publish)
        self.parts = Monitoring(self.metrics, self.logs, self.hot, self.tail, self.ingest, self.fleet, alone)


@dataclass
class World:
    """A running API and what is in its store."""

    database: Database
    queue: FakeQueue
    clock: FakeClock
    services: Services
    offer: Offer
    server: grpc.aio.Server
    channel: grpc.aio.Channel
    address: str
    measured: Measured
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    async def call(
        self,
        rpc: str,
        request: Message,
        as_: str | None = "root",
        *,
        request_id: str = "",
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Any:
        """One call, or the first answer of a stream. Raises WapError."""
        method = methods()[rpc]
        pairs = self.metadata(as_, request_id, metadata)
        path = f"/{method.containing_service.full_name}/{method.name}"
        decode = reply_class(method).FromString
        encode = type(request).SerializeToString
        try:
            if not method.server_streaming:
                unary = self.channel.unary_unary(path, encode, decode)
                return await unary(request, metadata=pairs, timeout=30)
            stream = self.channel.unary_stream(path, encode, decode)(request, metadata=pairs, timeout=30)
            first: Any = await stream.read()
            stream.cancel()
            return first
        except grpc.aio.AioRpcError as error:
            raise as_wap_error(error) from None

    async def raw(self, path: str, body: bytes, as_: str | None = "root") -> Refusal:
        """The error of a call with these very bytes."""
        try:
            await self.channel.unary_unary(path, bytes, bytes)(body, metadata=self.metadata(as_))
        except grpc.aio.AioRpcError as error:
            return as_wap_error(error)
        raise AssertionError(f"{path} was answered")

    @asynccontextmanager
    async def watch(self, rpc: str, request: Message, as_: str = "root") -> AsyncIterator["Watching"]:
        """An open stream."""
        method = methods()[rpc]
        path = f"/{method.containing_service.full_name}/{method.name}"
        start = self.channel.unary_stream(path, type(request).SerializeToString, reply_class(method).FromString)
        stream = start(request, metadata=self.metadata(as_), timeout=60)
        try:
            yield Watching(stream)
        finally:
            stream.cancel()

    def metadata(
        self, as_: str | None, request_id: str = "", extra: Sequence[tuple[str, str]] = ()
    ) -> tuple[tuple[str, str], ...]:
        pairs = list(extra)
        if as_ is not None:
            pairs.append(("authorization", f"Bearer {self.tokens[as_]}"))
        if request_id:
            pairs.append(("x-request-id", request_id))
        return tuple(pairs)

    async def refusal(self, rpc: str, request: Message, as_: str | None = "root", *, request_id: str = "") -> Refusal:
        """The error of a call that must fail."""
        try:
            reply = await self.call(rpc, request, as_, request_id=request_id)
        except Refusal as error:
            return error
        raise AssertionError(f"{rpc} was answered: {reply}")

    async def dump(self) -> dict[str, list[str]]:
        """All rows of all tables but the moments at which tokens were used."""

        def work(tx: Session) -> dict[str, list[str]]:
            found = {}
            for table in Base.metadata.sorted_tables:
                columns = [column for column in table.columns if column.name != "last_used_at"]
                found[table.name] = sorted(repr(tuple(row)) for row in tx.execute(select(*columns)))
            return found

        return await self.database.read(work)

    async def events(self) -> list[access_pb2.AuditEvent]:
        """The audit, newest first."""
        reply = await self.call("AccessService/ListAuditEvents", access_pb2.ListAuditEventsRequest(page_size=500))
        return list(reply.events)

    async def person(self, name: str, *grants: Grant, password_hash: str = "!", life: timedelta | None = None) -> str:
        """A user with a session, which is kept under the name; the user's id."""

        def work(tx: Session) -> tuple[User, Token, str]:
            now = self.clock.now()
            user = access.insert_user(tx, name, password_hash, grants, now)
            token, text = access.insert_token(
                tx,
                kind="session",
                name=name,
                user_id=user.id,
                created_by=f"user:{name}",
                grants=(),
                now=now,
                life=life or timedelta(hours=12),
            )
            return user, token, text

        user, token, self.tokens[name] = await self.database.write(work)
        self.ids[f"user:{name}"], self.ids[f"session:{name}"] = user.id, token.id
        return user.id

    async def project(self, name: str) -> str:
        """A project; its id, which is kept under the name too."""
        row: Project = await self.database.write(lambda tx: projects.insert(tx, name, self.clock.now()))
        self.ids[name] = row.id
        return row.id

    async def cluster(
        self,
        project: str,
        name: str,
        *,
        state: ClusterState = ClusterState.AVAILABLE,
        spec: ClusterSpec | None = None,
        reporting: bool = True,
    ) -> str:
        """A cluster as a finished create leaves it, with secrets and agents that report; its id."""
        wish = spec or a_spec()

        def work(tx: Session) -> Cluster:
            now = self.clock.now()
            usd = sum(line.usd_per_month for line in estimate(wish))
            row = clusters.insert(tx, project_id=self.ids[project], name=name, spec=wish, usd_per_month=usd, now=now)
            row.state = state
            for number, node in enumerate(clusters.nodes_of(tx, [row.id])):
                self.ids[f"{name}-{node.name}"] = node.id
                node.private_ip, node.zone = f"10.77.{row.network_slot}.{number + 4}", node.zone_wish
                node.instance_id, node.volume_id = f"i-{number}", f"vol-{number}"
                if reporting:
                    node.agent_state, node.last_seen_at = AgentState.CONNECTED, now
                    node.report = a_report("PRIMARY" if number == 0 else "SECONDARY")
            scope = cluster_scope(row.id)
            self.services.vault.put(tx, scope, "admin-password", DATABASE_PASSWORD.encode(), now)
            self.services.vault.put(tx, scope, "authority-certificate", CA_PEM.encode(), now)
            return row

        row = await self.database.write(work)
        self.ids[name] = row.id
        return row.id

    async def project_of(self, cluster: str) -> str:
        """The id of the cluster's project."""
        return await self.database.read(lambda tx: tx.get_one(Cluster, self.ids[cluster]).project_id)

    async def operation(
        self,
        cluster: str,
        state: OperationState = OperationState.RUNNING,
        kind: OperationKind = OperationKind.CREATE_CLUSTER,
    ) -> str:
        """An operation of the cluster in this state, holding it unless it is over; its id."""
        create = kind is OperationKind.CREATE_CLUSTER

        def work(tx: Session) -> Operation:
            row = tx.get_one(Cluster, self.ids[cluster])
            plan = plan_create(row.name, a_spec()) if create else plan_delete(a_spec())
            found = operations.open_operation(
                tx,
                FakeQueue(),
                cluster=row,
                kind=kind,
                plan=plan,
                actor="user:root",
                request_id="rq-seed",
                now=self.clock.now(),
            )
            found.state = state
            if state in {OperationState.SUCCEEDED, OperationState.CANCELLED, OperationState.ABANDONED}:
                clusters.drop_guard(tx, row.id, found.id)
            return found

        return (await self.database.write(work)).id

    async def node(self, name: str) -> Node:
        """The row of a node, by "cluster-slot"."""
        return await self.database.read(lambda tx: tx.get_one(Node, self.ids[name]))


class Watching:
    """The answers of one stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def next(self) -> Any:
        """The next answer; None at a good end. Raises WapError."""
        try:
            message = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise as_wap_error(error) from None
        return message if isinstance(message, Message) else None


@asynccontextmanager
async def running(
    database: Database,
    *,
    queue: OperationQueue | None = None,
    passwords: Passwords = PASSWORDS,
    recheck_seconds: float = RECHECK_SECONDS,
    alone: bool = True,
) -> AsyncIterator[World]:
    """An API over the store, with nobody and nothing in it."""
    clock, offer, fake_queue = FakeClock(START), Offer(), FakeQueue()
    folder = tempfile.TemporaryDirectory(prefix="wap-api-")
    measured = Measured(clock, Path(folder.name), alone=alone)
    services = Services(
        database=database,
        vault=Vault(bytes(KEY_BYTES)),
        clock=clock,
        queue=queue or fake_queue,
        choices=offer.choices,
        default_region="us-east-1",
        monitoring=measured.parts,
        max_clusters_per_project=MAX_CLUSTERS,
        passwords=passwords,
    )
    server = build_api(services, API_OPTIONS, recheck_seconds=recheck_seconds)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.aio.insecure_channel(address, options=options)
    try:
        yield World(database, fake_queue, clock, services, offer, server, channel, address, measured)
    finally:
        await channel.close(None)
        await server.stop(None)
        folder.cleanup()


async def populate(world: World) -> None:
    """Projects `a` and `b`, a cluster in each, and one person per role."""
    for name in ("aa", "bb"):
        await world.project(name)
    project_a, project_b = world.ids["aa"], world.ids["bb"]
    await world.person("root", Grant("", Role.ADMIN))
    await world.person("viewer-a", Grant(project_a, Role.VIEWER))
    await world.person("operator-a", Grant(project_a, Role.OPERATOR))
    await world.person("admin-a", Grant(project_a, Role.ADMIN))
    await world.person("viewer-b", Grant(project_b, Role.VIEWER))
    await world.cluster("aa", "orders")
    await world.cluster("bb", "secrets")


def as_wap_error(error: grpc.aio.AioRpcError) -> Refusal:
    found = from_call(error, endpoint="the server under test", request_id="", deadline=30)
    parts = (found.code, found.reason, found.message, found.field, found.given, found.allowed, found.request_id)
    refusal, pairs = Refusal(*parts), cast(Any, error.trailing_metadata() or ())
    refusal.trailing = {str(key): str(value) for key, value in pairs}
    return refusal


def a_spec(members: int = 3, *, protected: bool = False) -> ClusterSpec:
    size = NodeSize("m6i.large", 20)
    replica_set = ReplicaSetSpec("rs0", ReplicaSetRole.DATA, members, size)
    return ClusterSpec(Topology.REPLICA_SET, "6.0.5", "us-east-1", ZONES, (replica_set,), deletion_protection=protected)


def a_wish(project_id: str, name: str = "demo", **changes: Any) -> cluster_pb2.CreateClusterRequest:
    """A good request; `changes` replace fields of the request, of the spec, of the replica set or of the size."""
    size = type_pb2.NodeSize(instance_type="m6i.large", disk_gib=20)
    rs = type_pb2.ReplicaSetSpec(role=type_pb2.REPLICA_SET_ROLE_DATA, members=3)
    spec = type_pb2.ClusterSpec(topology=type_pb2.TOPOLOGY_REPLICA_SET, mongodb_version="6.0.5", region="us-east-1")
    request = cluster_pb2.CreateClusterRequest(project_id=project_id, name=name)
    parts: list[Any] = [request, spec, rs, size]
    for field_name, value in changes.items():
        part = next(one for one in parts if field_name in one.DESCRIPTOR.fields_by_name)
        if isinstance(value, list):
            del getattr(part, field_name)[:]
            getattr(part, field_name).extend(value)
        else:
            setattr(part, field_name, value)
    rs.size.CopyFrom(size)
    if "replica_sets" not in changes:
        spec.replica_sets.append(rs)
    request.spec.CopyFrom(spec)
    return request


def a_report(state: str, **changes: Any) -> dict[str, Any]:
    """What an agent says of its mongod, in the form of its column."""
    report = {
        "mongod_state": "MONGOD_STATE_RUNNING",
        "member_state": state,
        "mongodb_version": "6.0.5",
        "replica_set": "rs0",
        "lag_seconds": 0.0 if state == "PRIMARY" else 1.5,
        "disk_total_bytes": str(20 * 2**30),
        "disk_used_bytes": str(2**30),
        "cpu_percent": 3.5,
        "memory_total_bytes": str(8 * 2**30),
        "memory_used_bytes": str(2**30),
    }
    return json.loads(json.dumps({**report, **changes}))  # type: ignore[no-any-return]
