"""One conversation with the control plane: Hello, Welcome, then orders down and heartbeats and answers up.

One task writes, whoever has something to say hands it over; two writers at once on one stream are an error in gRPC.
"""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Any, assert_never

import grpc
from wap.agent.v1 import command_pb2, stream_pb2, stream_pb2_grpc

from agent.channel import EOF, open_channel, refusal_of
from agent.clock import ServerClock
from agent.identity import Identity
from agent.journal import Epoch
from agent.logs import Log
from agent.observe import Observer
from agent.release import AGENT_VERSION, PROTOCOL
from agent.renewal import renew, retry_seconds, seconds_until_due
from agent.telemetry.station import Telemetry

WELCOME_SECONDS = 10.0
MIN_HEARTBEAT_SECONDS = 0.1
# How long a stream that is broken may take to say why.
STATUS_SECONDS = 1.0
# A renewal that nobody made use of is made once more.
RENEWAL_RETRY_SECONDS = 60.0
# Nothing that is well piles up so many messages; a control plane that reads none of them is as good as gone.
UNSENT_LIMIT = 1000
# Told in Hello: another one after each start of the agent.
BOOT_ID = uuid.uuid4().hex
log = Log(__name__)


@dataclass(frozen=True)
class Listener:
    """Who deals with what comes in, and what the session tells of."""

    node_id: str
    clock: ServerClock
    epoch: Epoch
    observer: Observer
    telemetry: Telemetry
    take: Callable[[command_pb2.Command], None]
    renewed: Callable[[Identity], None]


class StuckError(Exception):
    """The control plane answers, but not as it should."""


class Session:
    """One Connect stream with one identity. `welcomed` is set when the control plane has taken it."""

    def __init__(self, identity: Identity, listener: Listener) -> None:
        self._identity, self._listener = identity, listener
        self._unsent: asyncio.Queue[stream_pb2.ConnectRequest | None] = asyncio.Queue(UNSENT_LIMIT)
        self._renew_now = asyncio.Event()
        self._heartbeat_seconds = 0.0
        self._parted = False
        self.welcomed = asyncio.Event()

    def send(self, message: stream_pb2.ConnectRequest | None) -> None:
        """Hand a message over to be written; None is the end. Where nothing is read any more it is dropped."""
        if not self._unsent.full():
            self._unsent.put_nowait(message)

    async def run(self) -> None:
        """Converse until the control plane ends it in order. Raises AioRpcError where it refuses or is gone."""
        async with open_channel(self._identity) as channel:
            stub: stream_pb2_grpc.AgentServiceAsyncStub = stream_pb2_grpc.AgentServiceStub(channel)
            call: Any = stub.Connect()  # type: ignore[call-arg]
            reader = asyncio.create_task(self._read(call))
            tasks = {reader, asyncio.create_task(self._write(call))}
            tasks |= {asyncio.create_task(work) for work in (self._beat(), self._renew(stub), self._report(stub))}
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if self.welcomed.is_set() and not self._parted:
                    self._listener.telemetry.connection_lost()
                if reader not in done:  # it knows best why the stream ended
                    await asyncio.wait({reader}, timeout=STATUS_SECONDS)
                for task in (reader, *done):
                    if task.done():
                        task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def say_goodbye(self, reason: str) -> None:
        """Tell the control plane that the agent stops on purpose; it then ends the stream."""
        self._parted = True
        self.send(stream_pb2.ConnectRequest(goodbye=stream_pb2.Goodbye(reason=reason)))
        self.send(None)

    async def _read(self, call: Any) -> None:
        async with asyncio.timeout(WELCOME_SECONDS):
            first = await call.read()
        if first is EOF or first.WhichOneof("body") != "welcome":
            raise StuckError("the control plane did not begin with welcome")
        self._welcome(first.welcome)
        while (message := await call.read()) is not EOF:
            self._take(message)

    def _welcome(self, welcome: stream_pb2.Welcome) -> None:
        self._heartbeat_seconds = max(welcome.heartbeat_seconds, MIN_HEARTBEAT_SECONDS)
        if welcome.HasField("server_time"):
            self._listener.clock.heard(welcome.server_time.ToDatetime(UTC))
        log.info("connected", session=welcome.session_epoch)
        self.welcomed.set()

    def _take(self, message: stream_pb2.ConnectResponse) -> None:
        body = message.WhichOneof("body")
        match body:
            case "command":
                self._listener.take(message.command)
            case "renew_now":
                self._renew_now.set()
            case "welcome" | None:
                log.warning("a message that is not known here", body=body)
            case _:
                assert_never(body)

    async def _write(self, call: Any) -> None:
        await call.write(self._hello())
        await self.welcomed.wait()
        while (message := await self._unsent.get()) is not None:
            await call.write(message)
        await call.done_writing()
        await asyncio.Event().wait()  # the control plane ends the stream

    def _hello(self) -> stream_pb2.ConnectRequest:
        hello = stream_pb2.Hello(
            protocol=PROTOCOL,
            agent_version=AGENT_VERSION,
            host_name=socket.gethostname(),
            boot_id=BOOT_ID,
            epoch=self._listener.epoch.highest,
        )
        return stream_pb2.ConnectRequest(hello=hello)

    async def _beat(self) -> None:
        """A report now, then after every interval and at each change."""
        await self.welcomed.wait()
        observer = self._listener.observer
        while True:
            news = observer.news()
            if self._unsent.full():
                raise StuckError(f"the control plane has left {UNSENT_LIMIT} messages unread")
            self.send(stream_pb2.ConnectRequest(heartbeat=stream_pb2.Heartbeat(report=observer.report())))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_seconds):
                    await news.wait()

    async def _renew(self, stub: "stream_pb2_grpc.AgentServiceAsyncStub") -> None:
        """Renew in time or when asked; whoever owns the identity then opens the next session with it."""
        await self.welcomed.wait()
        wait = seconds_until_due(self._identity)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0)):
                    await self._renew_now.wait()
            self._renew_now.clear()
            try:
                self._listener.renewed(await renew(stub, self._identity, self._listener.node_id))
                wait = RENEWAL_RETRY_SECONDS  # this session is about to be replaced; if not, once more
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                log.warning("the certificate could not be renewed", status=refusal.status.name, reason=refusal.reason)
                wait = retry_seconds(self._identity)

    async def _report(self, stub: "stream_pb2_grpc.AgentServiceAsyncStub") -> None:
        await self.welcomed.wait()
        await self._listener.telemetry.send(stub)
