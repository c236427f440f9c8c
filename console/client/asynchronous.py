"""AsyncClient: the control API for asyncio programs."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, Unpack, cast

import grpc
import grpc.aio
import stamina
from google.protobuf.message import Message
from wap.control.v1.access_pb2 import Caller, LoginRequest
from wap.control.v1.access_pb2_grpc import AccessServiceStub
from wap.control.v1.alert_pb2_grpc import AlertServiceStub
from wap.control.v1.cluster_pb2 import Cluster, CreateClusterResponse, GetClusterRequest, ListCreateOptionsRequest
from wap.control.v1.cluster_pb2_grpc import ClusterServiceStub
from wap.control.v1.log_pb2_grpc import LogServiceStub
from wap.control.v1.metric_pb2_grpc import MetricServiceStub
from wap.control.v1.node_pb2_grpc import NodeServiceStub
from wap.control.v1.operation_pb2 import Operation, WatchOperationRequest
from wap.control.v1.operation_pb2_grpc import OperationServiceStub
from wap.control.v1.project_pb2 import GetProjectRequest, Project
from wap.control.v1.project_pb2_grpc import ProjectServiceStub

from console.client import wire
from console.client.errors import WapError, from_call
from console.client.progress import is_resting
from console.client.wish import ReplicaSetWish, WishFields, create_request

OnChange = Callable[[Operation], Awaitable[None] | None]


class AsyncClient:
    """One connection to a control plane; make it inside a running event loop, and close it or use `async with`.

    `endpoint` is "host:port"; `ca_pem` the certificate authority to trust (None: the well known ones); `token` a session
    or API token. Every call has a deadline of 30 s unless it says `timeout=`; watches have none. Reads that find no
    control plane are repeated for a few seconds. Every failed call raises `WapError`.
    """

    def __init__(
        self, endpoint: str, *, ca_pem: bytes | None, token: str | None = None, client_name: str = "wap-python"
    ) -> None:
        target, credentials = wire.target_and_credentials(endpoint, ca_pem)
        options = wire.channel_options(client_name)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self.endpoint = endpoint
        self.token = token
        calls = cast(grpc.aio.Channel, _Calls(self))
        self.clusters = ClusterServiceStub(calls)
        self.operations = OperationServiceStub(calls)
        self.projects = ProjectServiceStub(calls)
        self.nodes = NodeServiceStub(calls)
        self.access = AccessServiceStub(calls)
        self.metrics = MetricServiceStub(calls)
        self.logs = LogServiceStub(calls)
        self.alerts = AlertServiceStub(calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls that still run are cancelled."""
        await self._channel.close(None)

    async def login(self, username: str, password: str) -> Caller:
        """Log in and use the new session's token from now on."""
        reply = await self.access.Login(LoginRequest(username=username, password=password))
        self.token = reply.session_token
        return reply.caller

    async def project(self, project: str) -> Project:
        """The project with this name, or else with this id."""
        try:
            reply = await self.projects.GetProject(GetProjectRequest(name=project))
        except WapError as unknown_name:
            if unknown_name.code not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            try:
                reply = await self.projects.GetProject(GetProjectRequest(project_id=project))
            except WapError as unknown_id:
                raise unknown_name from unknown_id
        return reply.project

    async def cluster(self, project: str, name: str) -> Cluster:
        """The cluster with this name in the project with this name or id."""
        found = await self.project(project)
        reply = await self.clusters.GetCluster(GetClusterRequest(project_id=found.id, name=name))
        return reply.cluster

    async def plan_cluster(self, project: str, name: str, **wish: Unpack[WishFields]) -> CreateClusterResponse:
        """What `create_cluster` would do and cost; changes nothing. Same arguments."""
        return await self._create(project, name, ReplicaSetWish(**wish), validate_only=True)

    async def create_cluster(
        self, project: str, name: str, *, idempotency_key: str = "", **wish: Unpack[WishFields]
    ) -> Operation:
        """Ask for a replica set and return the operation that builds it; `wish`: see ReplicaSetWish.

        What is left out (version, instance type, disk, zones) is the control plane's choice.
        """
        reply = await self._create(project, name, ReplicaSetWish(**wish), idempotency_key=idempotency_key)
        return reply.operation

    async def _create(
        self, project: str, name: str, wish: ReplicaSetWish, *, validate_only: bool = False, idempotency_key: str = ""
    ) -> CreateClusterResponse:
        found = await self.project(project)
        options = None
        if not wish.is_complete:
            options = await self.clusters.ListCreateOptions(ListCreateOptionsRequest(region=wish.region))
        request = create_request(
            found.id, name, wish.spec(options), validate_only=validate_only, idempotency_key=idempotency_key
        )
        return await self.clusters.CreateCluster(request)

    async def wait(
        self,
        operation_id: str,
        on_change: OnChange | None = None,
        timeout: float | None = None,
        patience: float = wire.PATIENCE,
    ) -> Operation:
        """Wait until the operation succeeded, failed, was cancelled or abandoned, and return it: look at its state.

        `on_change` sees every new state. TimeoutError after `timeout` seconds (the operation goes on). A control plane
        that goes away and comes back within `patience` seconds is not noticed.
        """
        watch = wire.Watch(time.monotonic, timeout, patience)
        seen: Operation | None = None
        while True:
            try:
                request = WatchOperationRequest(operation_id=operation_id)
                async for reply in self.operations.WatchOperation(request, timeout=watch.span(operation_id)):
                    watch.reached()
                    if on_change is not None and reply.operation != seen:
                        told = on_change(reply.operation)
                        if inspect.isawaitable(told):
                            await told
                    seen = reply.operation
                    if is_resting(seen):
                        return seen
                pause = wire.REOPEN_PAUSE
            except WapError as error:
                pause = watch.pause_after(error)
            await asyncio.sleep(pause)


class _Calls:
    """A channel in the eyes of the generated stubs: its calls carry token and request id and raise WapError."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def unary_unary(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., Awaitable[Any]]:
        send = self._client._channel.unary_unary(path, *args, **kwargs)
        client, may_repeat = self._client, wire.is_read(path)

        async def once(request: Any, timeout: float, extra: wire.Metadata | None) -> Any:
            request_id = wire.new_request_id()
            pairs = wire.metadata(request_id, client.token, extra)
            try:
                return await send(request, timeout=timeout, metadata=pairs)
            except grpc.aio.AioRpcError as error:
                raise from_call(error, endpoint=client.endpoint, request_id=request_id, deadline=timeout) from None

        async def call(request: Any, timeout: float | None = None, metadata: wire.Metadata | None = None) -> Any:
            deadline = timeout if timeout is not None else wire.UNARY_DEADLINE
            if not may_repeat:
                return await once(request, deadline, metadata)
            async for attempt in stamina.retry_context(
                on=wire.may_repeat, attempts=wire.READ_ATTEMPTS, timeout=deadline, wait_max=wire.READ_WAIT_MAX
            ):
                with attempt:
                    return await once(request, deadline, metadata)
            raise AssertionError("stamina returns a result or raises")

        return call

    def unary_stream(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., "_Replies"]:
        send = self._client._channel.unary_stream(path, *args, **kwargs)
        client = self._client

        def call(request: Any, timeout: float | None = None, metadata: wire.Metadata | None = None) -> _Replies:
            request_id = wire.new_request_id()
            stream = send(request, timeout=timeout, metadata=wire.metadata(request_id, client.token, metadata))
            return _Replies(stream, client.endpoint, request_id, timeout)

        return call


class _Replies:
    """The replies of one watch. `cancel()` ends the loop over them without an error."""

    def __init__(self, stream: Any, endpoint: str, request_id: str, deadline: float | None) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._request_id = request_id
        self._deadline = deadline
        self._cancelled = False

    def __aiter__(self) -> "_Replies":
        return self

    async def __anext__(self) -> Any:
        try:
            message = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise from_call(
                error, endpoint=self._endpoint, request_id=self._request_id, deadline=self._deadline
            ) from None
        except asyncio.CancelledError:
            # grpc.aio tells the reader of a call that was cancelled what asyncio tells a task that is cancelled.
            task = asyncio.current_task()
            if self._cancelled and not (task and task.cancelling()):
                raise StopAsyncIteration from None
            raise
        if not isinstance(message, Message):  # grpc.aio's mark for the end
            raise StopAsyncIteration
        return message

    def cancel(self) -> bool:
        """End the watch; True when it was still running."""
        self._cancelled = True
        return bool(self._stream.cancel())
