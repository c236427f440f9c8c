"""The public API put together: its services behind one gate, and the first administrator."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from argon2 import PasswordHasher
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from wap.control.v1.access_pb2_grpc import add_AccessServiceServicer_to_server
from wap.control.v1.alert_pb2_grpc import add_AlertServiceServicer_to_server
from wap.control.v1.cluster_pb2_grpc import add_ClusterServiceServicer_to_server
from wap.control.v1.log_pb2_grpc import add_LogServiceServicer_to_server
from wap.control.v1.metric_pb2_grpc import add_MetricServiceServicer_to_server
from wap.control.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from wap.control.v1.operation_pb2_grpc import add_OperationServiceServicer_to_server
from wap.control.v1.project_pb2_grpc import add_ProjectServiceServicer_to_server

from controlplane.api.access import Access
from controlplane.api.alerts import Alerts
from controlplane.api.clusters import Clusters
from controlplane.api.gate import RECHECK_SECONDS, Gate
from controlplane.api.logs import Logs
from controlplane.api.metrics import Metrics
from controlplane.api.nodes import Nodes
from controlplane.api.operations import Operations
from controlplane.api.projects import Projects
from controlplane.api.services import Services
from controlplane.domain.access import Grant, Role, random_password
from controlplane.domain.clock import Clock
from controlplane.domain.failure import Refused
from controlplane.store import access, audit
from controlplane.store.database import Database

ADMIN = "admin"
SIZE_OPTION = "grpc.max_receive_message_length"
DEFAULT_MAX_MESSAGE = 4 * 1024 * 1024


class ApiServer(grpc.aio.Server):
    """A gRPC server whose open streams end with a reason before it stops, instead of being cut off."""

    def __init__(self, inner: grpc.aio.Server, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Before the start."""
        self._inner.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Before the start."""
        inner: Any = self._inner  # its stubs leave the method out
        inner.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """For tests on loopback."""
        return self._inner.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """The port that was bound."""
        return self._inner.add_secure_port(address, server_credentials)

    async def start(self) -> None:
        """Serve from now on."""
        await self._inner.start()

    async def stop(self, grace: float | None = None) -> None:
        """End the streams, then wait `grace` seconds for the calls that are being answered."""
        self._gate.close()
        await self._inner.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Whether the timeout came first."""
        return await self._inner.wait_for_termination(timeout)


def build_api(
    services: Services, options: Sequence[tuple[str, Any]], *, recheck_seconds: float = RECHECK_SECONDS
) -> grpc.aio.Server:
    """The server with its services and no port yet. Call in the running event loop.

    `recheck_seconds`: how often the caller of an open stream is looked at again.
    """
    limit = dict(options).get(SIZE_OPTION, DEFAULT_MAX_MESSAGE)
    # gRPC cuts too large messages off without our reason; up to twice the limit the gate says it properly.
    roomy = [option for option in options if option[0] != SIZE_OPTION] + [(SIZE_OPTION, 2 * limit)]
    gate = Gate(services, limit, recheck_seconds)
    server = ApiServer(grpc.aio.server(interceptors=[gate], options=roomy), gate)
    add_AccessServiceServicer_to_server(Access(services), server)
    add_ProjectServiceServicer_to_server(Projects(services), server)
    add_ClusterServiceServicer_to_server(Clusters(services), server)
    add_OperationServiceServicer_to_server(Operations(services), server)
    add_NodeServiceServicer_to_server(Nodes(services), server)
    add_AlertServiceServicer_to_server(Alerts(services), server)
    add_MetricServiceServicer_to_server(Metrics(services), server)
    add_LogServiceServicer_to_server(Logs(services), server)
    return server


async def ensure_admin(database: Database, clock: Clock) -> str | None:
    """Where nobody can log in yet, make user `admin`; its random password, which is kept nowhere. None otherwise.

    Of several control planes that start on one database at once, one makes the user and returns the password.
    """
    if await database.read(access.has_users):
        return None
    password = random_password()
    hashed = await asyncio.to_thread(PasswordHasher().hash, password)

    def work(tx: Session) -> bool:
        if access.has_users(tx):
            return False
        now = clock.now()
        user = access.insert_user(tx, ADMIN, hashed, [Grant("", Role.ADMIN)], now)
        audit.record(
            tx,
            now=now,
            actor="system:server",
            action="user.first_admin",
            resource=f"user/{user.id}",
            after={"username": ADMIN},
        )
        return True

    try:
        return password if await database.write(work) else None
    except (IntegrityError, Refused):  # another control plane was faster
        return None
