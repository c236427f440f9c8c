"""The composition root: the only module that knows every part, and the order in which they start and stop."""

import asyncio
import contextlib
import functools
import importlib.metadata
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from wap.agent.v1 import stream_pb2_grpc

from controlplane.alerting.channels import Channels
from controlplane.api.agent_gate import AgentGate
from controlplane.api.agents import AgentService
from controlplane.api.enrollment import EnrollmentService
from controlplane.api.monitoring import Monitoring
from controlplane.api.service import build_api, ensure_admin
from controlplane.api.services import Services
from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.userdata import default_boot_command
from controlplane.domain.clock import SystemClock
from controlplane.domain.cluster import Choices
from controlplane.domain.failure import CloudFailure, FailureCode, WapFailure
from controlplane.fleet.agents import AgentFleet
from controlplane.fleet.authority import Authority
from controlplane.fleet.listeners import AGENT_OPTIONS, API_OPTIONS, Listeners
from controlplane.fleet.sessions import Sessions
from controlplane.installation import (
    ProcessLock,
    directory_of,
    distributions,
    identity,
    make_directory,
    open_vault,
    reach,
)
from controlplane.monitoring import start_alerting, start_telemetry
from controlplane.operations.engine import Engine
from controlplane.operations.membership import Membership
from controlplane.operations.runner import OperationRunner
from controlplane.operations.sweep import find_orphans
from controlplane.operations.tools import Distribution, Installation, Tools
from controlplane.scrape import ScrapePort
from controlplane.settings import Settings
from controlplane.store import control_planes
from controlplane.store.database import Database
from controlplane.store.schema import migrate
from controlplane.store.vault import Vault

log = structlog.get_logger(__name__)
CONSOLE_HOOK = "wap.console"
STOP_GRACE_SECONDS = 2.0
CONSOLE_START_SECONDS = 30.0
CRASH_EXIT_CODE = 137


@dataclass(frozen=True)
class Ready:
    """What a started control plane tells the terminal."""

    api: str
    agents: str
    ca_file: str
    console: str = ""
    # Only at the very first start.
    admin_password: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def crash_point(wanted: str) -> Callable[[str], None]:
    """Ends the process, as a crash would, when the boundary of that name is reached; for the crash tests."""

    def reach(name: str) -> None:
        if name == wanted:
            os._exit(CRASH_EXIT_CODE)

    return reach


class Server:
    """One control plane process: start, serve_until, close."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._close: list[Callable[[], Awaitable[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def start(self) -> Ready:
        """Bring everything up, from the store to the listeners."""
        settings = self._settings
        database = await self._open_store()
        vault = await open_vault(settings, database)
        install_id, install_key = await database.ensure(lambda tx: identity(tx, vault, self._clock.now()))
        authority = await Authority.load(database, vault, self._clock, install_id, settings.agent_certificate_hours)
        offered = await asyncio.to_thread(distributions, settings)
        clouds: Callable[[str], EC2Cloud] = functools.cache(lambda region: EC2Cloud(region))
        executor_id = f"{socket.gethostname()}-{secrets.token_hex(6)}" if database.is_postgres else "embedded"
        sessions, fleet = Sessions(database, vault, self._clock, executor_id), AgentFleet(database, vault, self._clock)
        installation = self._installation(install_id, install_key, authority, offered)
        tools = Tools(
            database=database,
            cloud=clouds,
            fleet=fleet,
            authority=authority,
            vault=vault,
            clock=self._clock,
            installation=installation,
            boundary=crash_point(settings.crash_at),
        )
        engine = await self._start_engine(database, executor_id, tools)
        # After the engine, so that it ends before: the engine takes the event loop's threads with it.
        telemetry = await start_telemetry(settings, database, self._clock, fleet)
        self._close.append(telemetry.close)
        alerting = start_alerting(settings, database, vault, self._clock, telemetry.hot, executor_id)
        self._close.append(alerting.close)
        services = self._services(database, vault, engine, offered, clouds, telemetry.parts, alerting.channels)
        await self._listen(authority, services, sessions)
        console = await self._start_console(authority)
        if settings.sweep_minutes:
            self._spawn(self._sweep(database, clouds(settings.region), install_id))
        if settings.metrics_port:
            self._serve_scrapes(database)
        ca_file = self._write_ca(authority)
        # Last: a start that fails after the password was made would have shown it to nobody.
        password = await ensure_admin(database, self._clock)
        return Ready(
            api=f"{settings.advertise}:{settings.api_port}",
            agents=f"{settings.advertise}:{settings.agent_port}",
            ca_file=str(ca_file),
            console=console,
            admin_password=password or "",
        )

    async def _open_store(self) -> Database:
        database = Database(self._settings.db)
        make_directory(self._settings.state_dir)
        if not database.is_postgres:
            lock = ProcessLock(directory_of(database))  # that, and not ours, is what two must not share
            self._close.append(_as_async(lock.release))
        self._close.append(database.close)
        await reach(database, self._settings.db_wait_seconds)
        await asyncio.to_thread(migrate, database.engine)
        await database.bus.start()
        return database

    def _installation(
        self, install_id: str, install_key: bytes, authority: Authority, offered: dict[str, Distribution]
    ) -> Installation:
        settings = self._settings
        return Installation(
            install_id=install_id,
            install_key=install_key,
            enroll_endpoint=f"{settings.advertise}:{settings.api_port}",
            ca_pem=authority.ca_pem,
            boot_command=settings.boot_command or default_boot_command(settings.agent_package),
            image=settings.image,
            instance_profile=settings.instance_profile,
            kms_key=settings.kms_key,
            network_pool=settings.network_pool,
            distributions=offered,
            cache_gib=settings.cache_gib,
            oplog_mib=settings.oplog_mib,
        )

    async def _start_engine(self, database: Database, executor_id: str, tools: Tools) -> Engine:
        """Membership before the engine: whoever works must be seen to live."""
        engine = Engine(database, executor_id)
        membership: Membership | None = None
        if database.is_postgres:
            url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
            membership = Membership(url, executor_id, engine.take_over)
            await membership.join()
            self._close.append(membership.leave)
        await engine.launch(OperationRunner(tools))
        self._close.append(engine.close)
        if membership is not None:
            membership.start()
        return engine

    def _services(
        self,
        database: Database,
        vault: Vault,
        engine: Engine,
        offered: dict[str, Distribution],
        clouds: Callable[[str], EC2Cloud],
        monitoring: Monitoring,
        channels: Channels,
    ) -> Services:
        settings = self._settings
        zones: dict[str, tuple[str, ...]] = {}

        async def choices(region: str) -> Choices:
            if region not in settings.regions:
                return Choices(settings.regions, (), tuple(offered), ())
            if region not in zones:  # a region's zones change once in years
                zones[region] = await clouds(region).zones()
            return Choices(settings.regions, zones[region], tuple(offered), ())

        return Services(
            database=database,
            vault=vault,
            clock=self._clock,
            queue=engine,
            choices=choices,
            default_region=settings.region,
            monitoring=monitoring,
            channels=channels,
            max_clusters_per_project=settings.max_clusters_per_project,
        )

    async def _listen(self, authority: Authority, services: Services, sessions: Sessions) -> None:
        settings = self._settings
        listeners = Listeners(authority, settings.listen, settings.advertise)
        api, agents = (
            build_api(services, API_OPTIONS),
            grpc.aio.server(options=AGENT_OPTIONS, interceptors=[AgentGate()]),
        )
        settings.agent_port = listeners.agents(agents, settings.agent_port)
        settings.api_port = listeners.api(api, settings.api_port)
        enrollment = EnrollmentService(
            services.database, self._clock, authority, f"{settings.advertise}:{settings.agent_port}"
        )
        stream_pb2_grpc.add_EnrollmentServiceServicer_to_server(enrollment, api)
        service = AgentService(services.database, self._clock, authority, sessions, services.monitoring.ingest)
        stream_pb2_grpc.add_AgentServiceServicer_to_server(service, agents)
        await _add_health_and_reflection(api)
        sessions.start()
        for server in (agents, api):
            await server.start()
        self._close.append(lambda: api.stop(STOP_GRACE_SECONDS))
        self._close.append(lambda: agents.stop(STOP_GRACE_SECONDS))
        self._close.append(sessions.close)

    def _serve_scrapes(self, database: Database) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()

        def targets() -> list[str]:
            if not database.is_postgres:
                return [f"{settings.advertise}:{port.port}"]
            asked = asyncio.run_coroutine_threadsafe(database.read(control_planes.living_hosts), loop)
            return [f"{host}:{port.port}" for host in asked.result(timeout=5)]

        port = ScrapePort(settings.listen, settings.metrics_port, targets)
        self._close.append(lambda: asyncio.to_thread(port.close))

    def _write_ca(self, authority: Authority) -> Path:
        path = self._settings.state_dir / "ca.pem"
        path.write_text(authority.ca_pem)
        return path

    async def _start_console(self, authority: Authority) -> str:
        """The console, found by its entry point: the packages do not know each other."""
        settings = self._settings
        if not settings.console:
            return ""
        hooks = importlib.metadata.entry_points(group=CONSOLE_HOOK)
        if not hooks:
            raise WapFailure(FailureCode.UNAVAILABLE, "the console is not installed", field="console")
        serve = next(iter(hooks)).load()
        started = asyncio.Event()
        endpoint = f"{settings.advertise}:{settings.api_port}"
        served = self._spawn(
            serve(
                endpoint=endpoint,
                ca_pem=authority.ca_pem.encode(),
                host=settings.listen,
                port=settings.console_port,
                stop=self._stopping,
                started=started,
            )
        )
        listening = asyncio.create_task(started.wait())
        await asyncio.wait([listening, served], timeout=CONSOLE_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not started.is_set():
            listening.cancel()
            raise _console_not_started(served, f"{settings.listen}:{settings.console_port}")
        return f"http://{settings.listen}:{settings.console_port}"

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def _sweep(self, database: Database, cloud: EC2Cloud, install_id: str) -> None:
        """Report what no cluster owns, from time to time; deleting it is a person's decision."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.sweep_minutes * 60):
                    await self._stopping.wait()
                return
            try:
                for orphan in await find_orphans(database, cloud, install_id):
                    log.warning(
                        "no cluster owns this", kind=orphan.resource.kind, id=orphan.resource.id, ours=orphan.proved
                    )
            except CloudFailure as failure:
                log.warning("the sweep could not look", reason=str(failure))

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Serve until told to stop, or until a part that must run has ended."""
        watch = asyncio.get_running_loop().create_task(stop.wait())
        await asyncio.wait([watch, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()
        for task in self._tasks:
            if task.done() and not stop.is_set():
                raise WapFailure(FailureCode.INTERNAL, f"a part of the server ended: {_end_of(task)}")

    async def close(self) -> None:
        """Everything down, in the reverse of the order in which it came up."""
        self._stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_GRACE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for close in reversed(self._close):
            await close()


def _end_of(task: asyncio.Task[None]) -> str:
    """Why a task that should go on has ended."""
    failure = None if task.cancelled() else task.exception()
    return str(failure) or type(failure).__name__ if failure is not None else "nobody told it to"


def _console_not_started(served: asyncio.Task[None], address: str) -> WapFailure:
    why = _end_of(served) if served.done() else f"not ready within {CONSOLE_START_SECONDS:.0f} s"
    return WapFailure(
        FailureCode.UNAVAILABLE,
        f"the console cannot be served on {address}: {why}",
        field="console_port",
        given=address,
        allowed="a free port",
    )


def _as_async(work: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        work()

    return run


async def _add_health_and_reflection(server: grpc.aio.Server) -> None:
    names = [*reflection_names(), health.SERVICE_NAME, reflection.SERVICE_NAME]
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined] # its stubs leave asyncio out
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", *names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(names, server)


def reflection_names() -> list[str]:
    """Full names of the services on the public port."""
    services = (
        "AccessService",
        "AlertService",
        "ClusterService",
        "LogService",
        "MetricService",
        "NodeService",
        "OperationService",
        "ProjectService",
    )
    return [f"wap.control.v1.{name}" for name in services] + ["wap.agent.v1.EnrollmentService"]
