"""The sandbox, and worlds on it: each test is an installation of its own, with an engine of its own in this process."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.port import Cloud
from controlplane.fleet.fake import SimulatedFleet
from controlplane.operations.engine import Engine
from controlplane.operations.execution import Execution
from controlplane.operations.runner import OperationRunner
from controlplane.store.database import Database
from controlplane.store.schema import migrate
from scripts.sandbox import Sandbox
from tests.operations.crashing import Crashing
from tests.operations.holding import HoldingFleet
from tests.operations.world import POLL_SECONDS, Identity, World, make_tools, quick_cloud

EXECUTOR = "embedded"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """An empty one for each test: it writes its whole account down at every change, so that a full one is slow."""
    with Sandbox(tmp_path / "sandbox", volumes="directory") as running, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", running.endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "sandbox")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
        yield running


@pytest.fixture
def quick(sandbox: Sandbox) -> Iterator[EC2Cloud]:
    """The real cloud port on the sandbox, with little patience."""
    cloud = quick_cloud()
    yield cloud
    cloud.close()


Start = Callable[..., Awaitable[World]]


@pytest.fixture
async def start(quick: EC2Cloud, tmp_path: Path) -> AsyncIterator[Start]:
    """Start a world: on SQLite unless a database is given, on the sandbox unless another cloud is given."""
    async with AsyncExitStack() as stack:

        async def begin(
            *,
            database: Database | None = None,
            cloud: Cloud | None = None,
            crashing: Crashing | None = None,
            hold: str = "",
        ) -> World:
            store = database if database is not None else await stack.enter_async_context(embedded(tmp_path))
            identity = Identity()
            fleet = HoldingFleet(tmp_path / f"fleet-{secrets.token_hex(3)}.json", hold)
            tools = await make_tools(store, fleet, identity, cloud or quick)
            if crashing is not None:
                tools = replace(tools, boundary=crashing.boundary)
            runner = OperationRunner(tools)
            engine = Engine(store, EXECUTOR, poll_seconds=POLL_SECONDS)
            await engine.launch(crashing.watch(runner, engine) if crashing is not None else runner)
            stack.push_async_callback(engine.close)
            return World(tools, identity, quick, engine)

        yield begin


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Database]:
    store = Database(f"sqlite:///{directory / 'wap.db'}")
    await asyncio.to_thread(migrate, store.engine)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def world(start: Start) -> World:
    """A world on SQLite."""
    return await start()


class NoQueue:
    """Nobody carries out what is enqueued: the tests do it by hand."""

    def enqueue(self, tx: Session, operation_id: str, cluster_id: str, attempt: int) -> None:
        """Implements store.operations.OperationQueue."""


@pytest.fixture
async def still(database: Database, quick: EC2Cloud, tmp_path: Path) -> World:
    """A world without an engine, on SQLite and on PostgreSQL."""
    identity = Identity()
    tools = await make_tools(database, SimulatedFleet(tmp_path / "fleet.json"), identity, quick)
    return World(tools, identity, quick, NoQueue())


async def claimed(world: World, operation_id: str) -> Execution:
    """A run of the operation's first attempt, which fences earlier ones off."""
    execution = await Execution.claim(world.tools, operation_id, 1)
    assert isinstance(execution, Execution)
    return execution
