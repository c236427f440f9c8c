"""FakeControl: starts and stops the fake and gives tests their handles."""

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from wap.control.v1.access_pb2_grpc import add_AccessServiceServicer_to_server
from wap.control.v1.alert_pb2_grpc import add_AlertServiceServicer_to_server
from wap.control.v1.cluster_pb2_grpc import add_ClusterServiceServicer_to_server
from wap.control.v1.log_pb2_grpc import add_LogServiceServicer_to_server
from wap.control.v1.metric_pb2_grpc import add_MetricServiceServicer_to_server
from wap.control.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from wap.control.v1.operation_pb2_grpc import add_OperationServiceServicer_to_server
from wap.control.v1.project_pb2_grpc import add_ProjectServiceServicer_to_server

from console.client.wire import PLAINTEXT
from console.fake.access import AccessService
from console.fake.alerts import AlertService
from console.fake.clusters import ClusterService
from console.fake.engine import Engine
from console.fake.gate import Gate
from console.fake.logs import LogService
from console.fake.metrics import MetricService
from console.fake.operations import OperationService
from console.fake.projects import NodeService, ProjectService
from console.fake.tls import loopback_identity
from console.fake.world import World, admin_grants, digest

T = TypeVar("T")


class FakeControl:
    """A control API in memory, on a free loopback port, with user admin/password and project "demo".

    `engine` steers the speed and the faults of operations; `alerts` raises alerts by hand; `world` holds the rows (call
    `world.touch()` after a change by hand, from the fake's own event loop).
    """

    def __init__(self, *, step_seconds: float = 0.05, tls: bool = True, port: int = 0) -> None:
        self.world = World()
        self.engine = Engine(self.world, step_seconds)
        self.alerts = AlertService(self.world)
        self.metrics = MetricService(self.world, born=time.time())
        self.endpoint = ""
        self.ca_pem: bytes | None = None
        self._port = port
        self._identity = loopback_identity() if tls else None
        self._server: grpc.aio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.world.add_user("admin", "password", admin_grants())
        self.world.add_project("demo")

    async def start(self) -> tuple[str, bytes | None]:
        """Serve; returns endpoint and CA (None without TLS), which are also attributes."""
        self._loop = asyncio.get_running_loop()
        server = grpc.aio.server(interceptors=[Gate(self.world)])
        add_AccessServiceServicer_to_server(AccessService(self.world), server)
        add_ClusterServiceServicer_to_server(ClusterService(self.world, self.engine), server)
        add_AlertServiceServicer_to_server(self.alerts, server)
        add_LogServiceServicer_to_server(LogService(self.world), server)
        add_MetricServiceServicer_to_server(self.metrics, server)
        add_NodeServiceServicer_to_server(NodeService(self.world), server)
        add_OperationServiceServicer_to_server(OperationService(self.world, self.engine), server)
        add_ProjectServiceServicer_to_server(ProjectService(self.world), server)
        address = f"127.0.0.1:{self._port}"
        if self._identity is None:
            port = server.add_insecure_port(address)
            self.endpoint = f"{PLAINTEXT}127.0.0.1:{port}"
        else:
            pair = (self._identity.key_pem, self._identity.certificate_pem)
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            self.endpoint, self.ca_pem = f"127.0.0.1:{port}", self._identity.ca_pem
        self._port = port  # a second start after a stop serves at the same address
        await server.start()
        self._server = server
        return self.endpoint, self.ca_pem

    async def stop(self) -> None:
        """Stop serving; operations stay where they are."""
        await self.engine.stop()
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the fake's event loop, from another thread, and return what it returns."""

        async def run() -> T:
            return function()

        if self._loop is None:
            raise RuntimeError("the fake has not been started")
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the fake's event loop, from another thread, and return what it returns."""
        if self._loop is None:
            raise RuntimeError("the fake has not been started")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def restart(self, between: Callable[[], None]) -> None:
        """Stop serving, call `between`, serve again at the same address: a restart as clients see it. From another thread.

        Operations go on meanwhile, as they do on another control plane.
        """
        if self._loop is None or self._server is None:
            raise RuntimeError("the fake has not been started")
        asyncio.run_coroutine_threadsafe(self._server.stop(grace=None), self._loop).result(timeout=30)
        between()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result(timeout=30)

    def session(self, username: str = "admin") -> str:
        """A session token of this user, without the detour over a login."""
        secret = f"waps_{secrets.token_urlsafe(30)}"
        user = next(user for user in self.world.users.values() if user.username == username)
        self.world.session_users[digest(secret)] = user.id
        return secret


@contextlib.contextmanager
def serve_in_thread(fake: FakeControl) -> Iterator[FakeControl]:
    """Serve from an event loop in a thread of its own, for callers without one; stops at the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake control plane", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(timeout=30)
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)
        loop.close()
