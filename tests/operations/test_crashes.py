"""A crash at every boundary of every step: nothing double, nothing lost, and the ledger tells the truth."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from controlplane.cloud.adoption import Adoption
from controlplane.cloud.calls import Calls
from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.instances import Instances
from controlplane.cloud.listing import Listing
from controlplane.cloud.port import TAG_RESOURCE, CloudResource, InstanceRequest, Owner, Progress
from controlplane.domain.cluster import ClusterState
from controlplane.domain.operation import OperationState, StepState
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.planner.plan import boundaries
from controlplane.store.database import Database
from tests.operations.conftest import Start
from tests.operations.crashing import Crashing
from tests.operations.world import QUICK, REGION, SPEC, WHOLE, World
from tests.waiting import eventually

CREATE = boundaries(plan_create("demo", SPEC))
DELETE = boundaries(plan_delete(SPEC))
UNDO = boundaries(plan_delete(SPEC, undo=True))


async def crash_through(crashing: Crashing, world: World, cluster_id: str, names: Sequence[str]) -> None:
    """Die at each boundary once, start again each time, and at last run to the end. The first run is on its way."""
    for number, name in enumerate(names):
        crashing.to_come = {other.partition(":")[2] for other in names[number + 1 :]}
        if number > 0:
            await crashing.start_again(name)
        await crashing.crashed()
        double = await world.present(cluster_id) - WHOLE
        assert not double, f"after a crash at {name}"
    crashing.to_come = set()
    await crashing.start_again()


async def test_a_cluster_whose_control_plane_dies_at_every_boundary_of_its_life(
    start: Start, database: Database
) -> None:
    crashing = Crashing()
    world = await start(database=database, crashing=crashing)
    crashing.target = CREATE[0]
    create = await world.create()
    await crash_through(crashing, world, create.cluster_id, CREATE)
    assert (await world.settled(create.id)).state == OperationState.SUCCEEDED
    assert crashing.crashes == CREATE
    assert len(CREATE) == 2 * len(await world.steps(create.id))
    assert (await world.cluster(create.cluster_id)).state == ClusterState.AVAILABLE
    assert await world.present(create.cluster_id) == WHOLE
    assert await world.ledgered(create.cluster_id) == await world.ids_present(create.cluster_id)
    assert not world.repeated_effects(create.id)
    assert max(world.fleet.deliveries().values()) > 1

    crashing.crashes.clear()
    crashing.target = DELETE[0]
    delete = await world.delete(create.cluster_id)
    await crash_through(crashing, world, create.cluster_id, DELETE)
    assert (await world.settled(delete.id)).state == OperationState.SUCCEEDED
    assert crashing.crashes == DELETE
    assert len(DELETE) == 2 * len(await world.steps(delete.id))
    await assert_nothing_is_left(world, create.cluster_id)


async def test_an_undo_that_dies_at_every_boundary_leaves_nothing(start: Start) -> None:
    crashing = Crashing()
    world = await start(crashing=crashing)
    crashing.target = "before:agent:rs0-0"
    operation = await world.create()
    await crashing.crashed()
    await world.cancel(operation.id)
    await crashing.start_again(UNDO[0])
    await crash_through(crashing, world, operation.cluster_id, UNDO)
    assert (await world.settled(operation.id)).state == OperationState.CANCELLED
    assert crashing.crashes[1:] == UNDO
    undone = {name: row.state for name, row in (await world.steps(operation.id)).items() if row.undo}
    assert undone == dict.fromkeys(undone, StepState.SUCCEEDED)
    assert len(UNDO) == 2 * len(undone)
    await assert_nothing_is_left(world, operation.cluster_id)


async def assert_nothing_is_left(world: World, cluster_id: str) -> None:
    assert (await world.cluster(cluster_id)).state == ClusterState.DELETED
    assert (await world.cluster(cluster_id)).active_operation_id is None
    assert await world.present(cluster_id) == Counter()
    assert await world.ledgered(cluster_id) == set()


async def test_an_instance_that_someone_terminates_meanwhile_is_replaced(start: Start) -> None:
    """Its client token stands for the dead one for ever; the step asks with another."""
    crashing = Crashing()
    world = await start(crashing=crashing)
    crashing.target = "after:instance:rs0-0"
    operation = await world.create()
    await crashing.crashed()
    dead = next(item for item in await world.things(operation.cluster_id) if item.tags[TAG_RESOURCE].endswith("rs0-0"))
    await world.cloud.delete("instance", dead.id)
    await crashing.start_again()
    assert (await world.settled(operation.id)).state == OperationState.SUCCEEDED
    assert await world.present(operation.cluster_id) == WHOLE
    assert dead.id not in await world.ids_present(operation.cluster_id)


class Naive(EC2Cloud):
    """The cloud without its two protections: it never looks for what is there, and no two requests share a token."""

    def __init__(self) -> None:
        super().__init__(REGION, QUICK)
        self._plain = Calls(REGION)
        self._launcher = Instances(Adoption(self._plain, Listing(self._plain), QUICK))

    async def ensure_instance(
        self, owner: Owner, request: InstanceRequest, *, progress: Progress | None = None
    ) -> CloudResource:
        made = await self._launcher.launch(owner, replace(request, client_token=secrets.token_hex(16)))

        async def runs() -> CloudResource | None:
            found = await self.describe("instance", made)
            return found if found and found.state == "running" and found.private_ip else None

        found = await eventually(runs, within=10)
        assert found is not None
        return found

    def close(self) -> None:
        super().close()
        self._plain.close()


async def test_without_client_tokens_and_adoption_the_same_crashes_make_doubles(start: Start) -> None:
    cloud, crashing = Naive(), Crashing()
    world = await start(cloud=cloud, crashing=crashing)
    names = [name for name in CREATE if ":instance:" in name]
    crashing.target = names[0]
    operation = await world.create()
    with pytest.raises(AssertionError, match="after a crash at"):
        await crash_through(crashing, world, operation.cluster_id, names)
    crashing.to_come = set()
    await crashing.start_again()
    await world.settled(operation.id)
    assert (await world.present(operation.cluster_id))["instance"] > WHOLE["instance"]
    assert await world.ledgered(operation.cluster_id) != await world.ids_present(operation.cluster_id)
    cloud.close()
