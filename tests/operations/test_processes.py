"""Real processes that are killed, frozen and stopped in the middle of an operation."""

import fcntl
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, text

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.domain.cluster import ClusterState
from controlplane.domain.operation import OperationState, StepState
from controlplane.fleet.fake import SimulatedFleet
from controlplane.operations.engine import Engine
from controlplane.store.database import Database
from controlplane.store.tables import Base
from tests.operations.driver import Order
from tests.operations.processes import Process
from tests.operations.world import WHOLE, Identity, World, make_tools
from tests.postgres import Postgres
from tests.waiting import eventually, wait_until

CRASHED = 137
# Where a kill hits something of every sort: before the first effect, between an effect and its record, at the last step.
CREATE_DEATHS = ("before:vpc", "after:subnet:us-east-1b", "after:instance:rs0-1", "after:volume:rs0-0")
CREATE_DEATHS_LATER = ("before:agent:rs0-2", "after:mongod:rs0-2", "after:settle:rs0")
DELETE_DEATHS = ("after:terminate:rs0-0", "after:delete-volume:rs0-2", "after:delete-network:vpc")
DEAD_SECONDS, FROZEN_SECONDS = 5.0, 10.0
PACE = 0.3


class Site:
    """One installation whose control planes are processes; the test itself only opens operations and looks."""

    def __init__(self, world: World, db: str, directory: Path) -> None:
        self.world, self._db, self._directory = world, db, directory
        self.processes: list[Process] = []

    def start(self, executor_id: str = "embedded", *, crash_at: str = "", pace: float = 0.0) -> Process:
        identity = self.world.identity
        order = Order(
            db=self._db,
            fleet=str(self._directory / "fleet.json"),
            install_id=identity.install_id,
            install_key=identity.install_key.hex(),
            executor_id=executor_id,
            crash_at=crash_at,
            pace=pace,
        )
        self.processes.append(Process.start(order, self._directory))
        return self.processes[-1]

    async def connect(self) -> None:
        """Be able to open operations, once a control plane has started."""
        engine = self.world.queue
        assert isinstance(engine, Engine)
        await engine.connect()

    async def holder(self, operation_id: str) -> Process:
        """The process that carries the operation out."""

        async def look() -> Process | None:
            found = await self.executor_of(operation_id)
            return next((process for process in self.processes if process.order.executor_id == found), None)

        found = await eventually(look, within=20, every=0.02)
        assert found is not None
        return found

    async def executor_of(self, operation_id: str) -> str:
        query = text("select executor_id from dbos.workflow_status where workflow_uuid = :id and status = 'PENDING'")
        parameters = {"id": f"{operation_id}.1"}
        return str(await self.world.database.read(lambda tx: tx.execute(query, parameters).scalar()))

    async def freeze(self, process: Process) -> None:
        """SIGSTOP, but not while it holds the lock of the simulated agents' file, which real agents do not share."""

        def stop() -> bool:
            process.send(signal.SIGSTOP)
            wait_until(lambda: psutil.Process(process.child.pid).status() == psutil.STATUS_STOPPED, within=10)
            with (self._directory / "fleet.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    process.send(signal.SIGCONT)
                    return False
            return True

        await eventually(stop, within=10)

    async def reaches(self, operation_id: str, step: str) -> None:
        """Return when that step runs."""

        async def look() -> bool:
            return (await self.world.steps(operation_id))[step].state == StepState.RUNNING

        await eventually(look, within=30, every=0.02)


@pytest.fixture
async def site(database: Database, quick: EC2Cloud, tmp_path: Path) -> AsyncIterator[Site]:
    identity, fleet = Identity(), SimulatedFleet(tmp_path / "fleet.json")
    tools = await make_tools(database, fleet, identity, quick)
    engine = Engine(database, "test")
    found = Site(World(tools, identity, quick, engine), database.url, tmp_path)
    yield found
    for process in found.processes:
        process.end()
    await engine.close()


only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@only_sqlite
async def test_a_control_plane_that_is_killed_again_and_again_goes_on_where_it_was(site: Site) -> None:
    world = site.world
    first, *others = (*CREATE_DEATHS, *CREATE_DEATHS_LATER)
    process = site.start(crash_at=first)
    await site.connect()
    create = await world.create()
    for name in others:
        assert process.wait() == CRASHED
        process = site.start(crash_at=name)
    assert process.wait() == CRASHED
    process = site.start(crash_at=DELETE_DEATHS[0])
    assert (await world.settled(create.id)).state == OperationState.SUCCEEDED
    assert await world.present(create.cluster_id) == WHOLE
    assert await world.ledgered(create.cluster_id) == await world.ids_present(create.cluster_id)
    assert not world.repeated_effects(create.id)

    delete = await world.delete(create.cluster_id)
    for name in (*DELETE_DEATHS[1:], ""):
        assert process.wait() == CRASHED
        process = site.start(crash_at=name)
    assert (await world.settled(delete.id)).state == OperationState.SUCCEEDED
    assert (await world.cluster(create.cluster_id)).state == ClusterState.DELETED
    assert await world.present(create.cluster_id) == Counter()
    process.send(signal.SIGTERM)
    assert process.wait() == 0


@only_postgres
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped in order"])
async def test_another_control_plane_finishes_what_one_that_is_gone_has_begun(
    site: Site, number: signal.Signals
) -> None:
    world = site.world
    for name in ("cp-a", "cp-b"):
        site.start(name, pace=PACE)
    await site.connect()
    operation = await world.create()
    await site.reaches(operation.id, "mongod:rs0-0")
    gone = await site.holder(operation.id)
    gone.send(number)
    await eventually(lambda: elsewhere(site, operation.id, gone), within=DEAD_SECONDS, every=0.02)
    assert gone.wait() == (0 if number == signal.SIGTERM else -number)
    assert (await world.settled(operation.id)).state == OperationState.SUCCEEDED
    await assert_one_cluster(world, operation.id, operation.cluster_id)


@only_postgres
async def test_a_frozen_control_plane_is_taken_over_and_changes_nothing_when_it_thaws(site: Site) -> None:
    world = site.world
    for name in ("cp-a", "cp-b"):
        site.start(name, pace=PACE)
    await site.connect()
    operation = await world.create()
    await site.reaches(operation.id, "mongod:rs0-0")
    frozen = await site.holder(operation.id)
    await site.freeze(frozen)
    await eventually(lambda: elsewhere(site, operation.id, frozen), within=FROZEN_SECONDS, every=0.05)
    assert (await world.settled(operation.id)).state == OperationState.SUCCEEDED
    await assert_one_cluster(world, operation.id, operation.cluster_id)
    before = await everything(world, operation.cluster_id)
    assert "run stopped before its end" not in frozen.log.read_text()
    frozen.send(signal.SIGCONT)
    await eventually(lambda: "run stopped before its end" in frozen.log.read_text(), within=20)
    await eventually(lambda: beats(world, frozen), within=10)
    assert await everything(world, operation.cluster_id) == before
    # It is a control plane like any other again: what is asked for next is carried out, by whichever of the two.
    delete = await world.delete(operation.cluster_id)
    assert (await world.settled(delete.id)).state == OperationState.SUCCEEDED
    assert await world.present(operation.cluster_id) == Counter()


@only_postgres
async def test_an_operation_goes_on_after_a_restart_of_postgresql_where_it_was(site: Site, postgres: Postgres) -> None:
    world = site.world
    for name in ("cp-a", "cp-b"):
        site.start(name, pace=PACE)
    await site.connect()
    operation = await world.create()
    await site.reaches(operation.id, "mongod:rs0-0")
    holder = await site.holder(operation.id)
    epoch = (await world.cluster(operation.cluster_id)).epoch
    postgres.stop(immediate=True)
    postgres.start()
    assert (await world.settled(operation.id)).state == OperationState.SUCCEEDED
    await assert_one_cluster(world, operation.id, operation.cluster_id)
    # Everybody's locks went with the database, and nobody was taken for dead because of that.
    assert (await world.cluster(operation.cluster_id)).epoch == epoch
    assert "took over" not in "".join(process.log.read_text() for process in site.processes)
    assert holder.child.poll() is None


@only_postgres
async def test_two_control_planes_cannot_have_one_name(site: Site) -> None:
    site.start("cp-a")
    with pytest.raises(AssertionError, match="executor id cp-a is in use by another control plane"):
        site.start("cp-a")


async def elsewhere(site: Site, operation_id: str, gone: Process) -> bool:
    return await site.executor_of(operation_id) not in (gone.order.executor_id, "None")


async def beats(world: World, process: Process) -> bool:
    query = text("select 1 from control_plane where executor_id = :id and heartbeat_at > now() - interval '1 second'")
    parameters = {"id": process.order.executor_id}
    return await world.database.read(lambda tx: tx.execute(query, parameters).scalar()) == 1


async def assert_one_cluster(world: World, operation_id: str, cluster_id: str) -> None:
    assert await world.present(cluster_id) == WHOLE
    assert await world.ledgered(cluster_id) == await world.ids_present(cluster_id)
    assert not world.repeated_effects(operation_id)


async def everything(world: World, cluster_id: str) -> dict[str, Any]:
    """All our rows but the signs of life, what the cloud has, and what the agents have done."""
    tables = [table for table in Base.metadata.sorted_tables if table.name != "control_plane"]
    rows = await world.database.read(
        lambda tx: {table.name: sorted(map(repr, tx.execute(select(table)).all())) for table in tables}
    )
    return {**rows, "cloud": await world.ids_present(cluster_id), "effects": world.fleet.effects()}
