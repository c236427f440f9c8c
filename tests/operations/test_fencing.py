"""A run that was taken over changes nothing any more, wherever it stood; with its fence it would have been the owner."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.port import CloudResource as CloudThing
from controlplane.cloud.port import Owner, Progress
from controlplane.domain.failure import AgentFailure, FailureCode
from controlplane.domain.operation import OperationState
from controlplane.operations import ending
from controlplane.operations.execution import Execution, FencedError, StepRun
from controlplane.operations.orders import order
from controlplane.operations.step import OK, run_step
from controlplane.planner.delete import plan_delete
from controlplane.planner.plan import Step, StepKind
from controlplane.store import clusters, operations
from controlplane.store.tables import CloudResource, Cluster, Operation
from tests.operations.conftest import claimed
from tests.operations.world import QUICK, REGION, SPEC, World

VPC = Step(StepKind.VPC, "", "", "")
NO_VPC = Step(StepKind.DELETE_NETWORK, "vpc", "", "", undo=True)
TAKEN_OVER = pytest.mark.parametrize("taken_over", [True, False], ids=["taken over", "control: still the owner"])


@TAKEN_OVER
async def test_its_writes_change_nothing(still: World, taken_over: bool) -> None:
    operation = await still.create()
    run = await claimed(still, operation.id)
    if taken_over:
        assert (await claimed(still, operation.id)).epoch == run.epoch + 1

    def work(tx: Session) -> None:
        tx.get_one(Operation, operation.id).summary = "by the old run"

    if taken_over:
        with pytest.raises(FencedError):
            await run.write(work)
    else:
        await run.write(work)
    assert ((await still.operation(operation.id)).summary == "by the old run") is not taken_over


@TAKEN_OVER
async def test_its_steps_do_not_begin(still: World, taken_over: bool) -> None:
    operation = await still.create()
    run = await claimed(still, operation.id)
    if taken_over:
        await claimed(still, operation.id)
    if taken_over:
        with pytest.raises(FencedError):
            await run_step(run, VPC)
        assert not await still.things(operation.cluster_id)
        assert await still.database.read(lambda tx: tx.scalars(select(CloudResource)).all()) == []
    else:
        assert await run_step(run, VPC) == OK
        assert [item.kind for item in await still.things(operation.cluster_id)] == ["vpc"]


@TAKEN_OVER
async def test_its_commands_are_refused_by_agents(still: World, taken_over: bool) -> None:
    operation = await still.create()
    node = (await still.database.read(lambda tx: clusters.nodes_of(tx, [operation.cluster_id])))[0]
    old = await claimed(still, operation.id)
    newer = await claimed(still, operation.id) if taken_over else old
    prepare = command_pb2.Command(prepare_volume=command_pb2.PrepareVolume(volume_id="vol-1"))
    key = command_pb2.Command(create_member_key=command_pb2.CreateMemberKey())
    mongod = Step(StepKind.MONGOD, node.name, "", "")
    await order(StepRun(newer, mongod), node.id, prepare, within=10)
    if taken_over:
        # Straight to the agent: the old run does not get as far as this by itself.
        with pytest.raises(AgentFailure) as refused:
            await order(Silent(old, mongod), node.id, key, within=10)
        assert refused.value.code is FailureCode.STALE_EPOCH
    else:
        await order(Silent(old, mongod), node.id, key, within=10)
    assert sum("create_member_key" in id for id, count in still.fleet.effects().items() if count) == (not taken_over)


class Silent(StepRun):
    """A step that says nothing, so that the fence around what it says does not stop it."""

    async def waiting(self, what: str) -> None:
        """Say nothing."""


class Frozen(EC2Cloud):
    """A cloud whose next answer to `find` comes when the test says so."""

    def __init__(self) -> None:
        super().__init__(REGION, QUICK)
        self.asked, self.thawed = asyncio.Event(), asyncio.Event()
        self.deleted: list[str] = []

    async def find(self, owner: Owner) -> list[CloudThing]:
        """Implements port.Cloud."""
        found = await super().find(owner)
        self.asked.set()
        await self.thawed.wait()
        return found

    async def delete(self, kind: str, id: str, *, progress: Progress | None = None) -> None:
        """Implements port.Cloud."""
        self.deleted.append(id)
        await super().delete(kind, id, progress=progress)


@TAKEN_OVER
async def test_frozen_in_the_middle_of_a_deletion_it_deletes_nothing(still: World, taken_over: bool) -> None:
    """What it found may be gone, and of the same name may be what a later attempt has made."""
    create = await still.create()
    making = await claimed(still, create.id)
    assert await run_step(making, VPC) == OK
    frozen = Frozen()
    run = replace(making, tools=replace(still.tools, cloud=lambda _region: frozen))
    await still.database.write(lambda tx: operations.add_steps(tx, create.id, plan_delete(SPEC, undo=True)))
    deletion = asyncio.ensure_future(run_step(run, NO_VPC))
    await asyncio.wait_for(frozen.asked.wait(), 10)
    if taken_over:
        await claimed(still, create.id)
    frozen.thawed.set()
    if taken_over:
        with pytest.raises(FencedError):
            await deletion
    else:
        assert await deletion == OK
    assert bool(frozen.deleted) is not taken_over
    assert bool(await still.things(create.cluster_id)) is taken_over
    frozen.close()


async def test_what_has_ended_is_not_carried_out_again(still: World) -> None:
    """The process died after the end was written and before the engine knew; someone may have retried since."""
    operation = await still.create()
    run = await claimed(still, operation.id)
    await ending.begin(run)
    await ending.end(run, {"code": "INTERNAL", "message": "no"}, None)
    epoch = (await still.cluster(operation.cluster_id)).epoch
    assert await Execution.claim(still.tools, operation.id, 1) == OperationState.FAILED
    await still.retry(operation.id)
    assert await Execution.claim(still.tools, operation.id, 1) == OperationState.QUEUED
    assert (await still.cluster(operation.cluster_id)).epoch == epoch
    assert isinstance(await Execution.claim(still.tools, operation.id, 2), Execution)


async def test_a_process_that_froze_inside_a_transaction_does_not_keep_the_cluster(still: World) -> None:
    if not still.database.is_postgres:
        pytest.skip("SQLite has one control plane only")
    operation = await still.create()
    query = select(Cluster.epoch).where(Cluster.id == operation.cluster_id).with_for_update()
    frozen = await asyncio.to_thread(still.database.engine.connect)
    held = await asyncio.to_thread(lambda: frozen.execute(query).scalar_one())
    run = await asyncio.wait_for(claimed(still, operation.id), 10)
    assert run.epoch == held + 1
    with pytest.raises(DBAPIError, match="idle-in-transaction"):
        await asyncio.to_thread(lambda: frozen.execute(query))
    await asyncio.to_thread(frozen.close)
