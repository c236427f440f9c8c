"""The sweep finds what no cluster owns, and takes away only what the ledger proves to be ours."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import boto3
import pytest
from sqlalchemy.orm import Session

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.port import CloudResource, InstanceRequest
from controlplane.domain.cluster import ClusterState
from controlplane.operations import ledgered
from controlplane.operations.execution import Execution, StepRun
from controlplane.operations.step import OK, run_step
from controlplane.operations.sweep import ORDER, Orphan, find_orphans, remove_orphans
from controlplane.planner.create import plan_create
from controlplane.planner.plan import Step, StepKind
from controlplane.store import clusters
from scripts.sandbox import Fault, Sandbox
from tests.operations.conftest import claimed
from tests.operations.world import IMAGE, QUICK, REGION, SPEC, ZONES, World

VPC = Step(StepKind.VPC, "", "", "")


async def network(world: World) -> Execution:
    """A cluster that has got as far as its network."""
    run = await claimed(world, (await world.create(f"c-{secrets.token_hex(3)}")).id)
    for stage in plan_create("demo", SPEC).stages[:2]:
        for step in stage.steps:
            assert await run_step(run, step) == OK
    return run


async def forget(world: World, run: Execution) -> None:
    """The cluster is deleted for the control plane, whatever the cloud says."""

    def work(tx: Session) -> None:
        for state in (ClusterState.DELETING, ClusterState.DELETED):
            clusters.set_state(tx, run.cluster_id, state, world.tools.clock.now())

    await world.database.write(work)


async def orphans(world: World, cloud: EC2Cloud | None = None) -> Sequence[Orphan]:
    return await find_orphans(world.database, cloud or world.cloud, world.identity.install_id)


async def launch(world: World, run: Execution, *, ledger: bool) -> str:
    """An instance with all our tags, asked for with our token when the ledger knows of it; its reply is lost."""
    resource = "instance:rs0-0"
    subnet, group = [await ledgered.id_of(run, name) for name in (f"subnet:{ZONES[0]}", "security-group")]
    made: list[str] = []

    async def call(token: str) -> str:
        request = InstanceRequest("m6i.large", IMAGE, ZONES[0], subnet, group, "#!/bin/bash\nexec sleep 600\n", token)
        made.append((await world.cloud.ensure_instance(ledgered.owner(run, resource), request)).id)
        raise ConnectionError("the reply is lost with the process")

    if ledger:
        with pytest.raises(ConnectionError):
            await ledgered.ensure(StepRun(run, VPC), "instance", resource, call, zone=ZONES[0])
    else:
        with pytest.raises(ConnectionError):
            await call(secrets.token_hex(16))
    return made[0]


async def test_what_living_clusters_own_is_not_reported(still: World) -> None:
    run = await network(still)
    assert len(await still.things(run.cluster_id)) == 6
    assert await orphans(still) == []


async def test_what_a_deleted_cluster_has_left_behind_is_found_and_removed_in_order(still: World) -> None:
    run = await network(still)
    instance = await launch(still, run, ledger=True)
    await forget(still, run)
    found = await orphans(still)
    ours = [orphan for orphan in found if not orphan.resource.tags["wap:resource"].startswith("root-volume")]
    assert {orphan.resource.id for orphan in ours} == await still.ids_present(run.cluster_id)
    assert all(orphan.proved for orphan in ours)
    kinds = [orphan.resource.kind for orphan in found]
    assert kinds == sorted(kinds, key=ORDER.index)
    assert len(await still.things(run.cluster_id)) == 7, "to look changes nothing"
    assert instance in await remove_orphans(still.cloud, found)
    assert await still.things(run.cluster_id) == []
    assert await orphans(still) == []


async def test_a_foreign_instance_with_all_our_tags_is_reported_and_left_alone(still: World) -> None:
    run = await network(still)
    foreign = await launch(still, run, ledger=False)
    await forget(still, run)
    reported = [orphan for orphan in await orphans(still) if orphan.resource.kind == "instance"]
    assert [(orphan.resource.id, orphan.proved) for orphan in reported] == [(foreign, False)]
    assert await remove_orphans(still.cloud, reported) == []
    assert await state(still, foreign) == "running"
    # Control: nothing but the proof stands in the way.
    assert await remove_orphans(still.cloud, [replace(orphan, proved=True) for orphan in reported]) == [foreign]
    assert await state(still, foreign) == "terminated"


async def state(world: World, id: str) -> str:
    found = await world.cloud.describe("instance", id)
    return found.state if found else "terminated"


async def test_tags_that_were_edited_prove_nothing(still: World, quick: EC2Cloud) -> None:
    ec2: Any = boto3.client("ec2", region_name=REGION)
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "wap:install", "Value": still.identity.install_id}])
    found = await orphans(still)
    assert [(orphan.resource.id, orphan.proved) for orphan in found] == [(vpc, False)]
    assert await remove_orphans(still.cloud, found) == []


class Busy(EC2Cloud):
    """While it is listed, a cluster is created."""

    def __init__(self, world: World) -> None:
        super().__init__(REGION, QUICK)
        self._world = world
        self.listed: list[CloudResource] = []

    async def inventory(self, install_id: str) -> list[CloudResource]:
        """Implements port.Cloud."""
        await network(self._world)
        self.listed = await super().inventory(install_id)
        return self.listed


async def test_what_is_made_while_it_looks_is_not_taken_for_ownerless(still: World) -> None:
    """The cloud is listed first and the records are read second; the other way round this cluster had no record."""
    busy = Busy(still)
    assert await orphans(still, busy) == []
    assert busy.listed
    busy.close()


async def test_what_aws_does_not_let_go_does_not_stop_the_rest(still: World, sandbox: Sandbox) -> None:
    run = await network(still)
    await forget(still, run)
    found = await orphans(still)
    sandbox.faults.add(Fault("DeleteSecurityGroup", code="UnauthorizedOperation", status=403, count=None))
    removed = await remove_orphans(still.cloud, [one for one in found if one.resource.kind != "vpc"])
    sandbox.faults.clear()
    assert [item.kind for item in await still.things(run.cluster_id)] == ["security-group", "vpc"]
    assert len(removed) == 4
