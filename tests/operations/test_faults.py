"""AWS on bad days, met by a whole create: it succeeds where it can, and says why and leaves nothing where it cannot."""

from collections import Counter
from typing import Any

import pytest

from controlplane.domain.cluster import ClusterState
from controlplane.domain.operation import OperationState, StepState
from controlplane.store.tables import Operation
from scripts.sandbox import Fault, Sandbox
from tests.operations.world import WHOLE, ZONES, World

# What a create asks of EC2, how often. A call that is added stands here, and is then met by every fault below.
CHANGES = Counter(
    CreateVpc=1,
    ModifyVpcAttribute=1,
    CreateSubnet=3,
    ModifySubnetAttribute=3,
    CreateInternetGateway=1,
    AttachInternetGateway=1,
    CreateRoute=1,
    CreateSecurityGroup=1,
    AuthorizeSecurityGroupIngress=1,
    RunInstances=3,
    CreateVolume=3,
    AttachVolume=3,
)
LOOKS = {
    "DescribeImages",
    "DescribeVpcs",
    "DescribeSubnets",
    "DescribeInternetGateways",
    "DescribeRouteTables",
    "DescribeSecurityGroups",
    "DescribeInstances",
    "DescribeVolumes",
}


def calls(sandbox: Sandbox) -> Counter[str]:
    return Counter(call["action"] for call in sandbox.calls)


def changes(sandbox: Sandbox) -> Counter[str]:
    return Counter({action: count for action, count in calls(sandbox).items() if not action.startswith("Describe")})


def inject(sandbox: Sandbox, **rule: Any) -> None:
    sandbox.faults.add(Fault(**rule))


def hits(sandbox: Sandbox) -> int:
    return sum(fault["seen"] for fault in sandbox.faults.list())


async def created(world: World) -> Operation:
    operation = await world.create()
    return await world.settled(operation.id)


async def assert_whole(world: World, operation: Operation) -> None:
    assert operation.state == OperationState.SUCCEEDED, operation.summary
    assert await world.present(operation.cluster_id) == WHOLE
    assert await world.ledgered(operation.cluster_id) == await world.ids_present(operation.cluster_id)


async def assert_undone(world: World, operation: Operation) -> None:
    assert operation.state == OperationState.FAILED
    assert "everything it made was removed" in operation.summary
    assert await world.present(operation.cluster_id) == Counter()
    assert await world.ledgered(operation.cluster_id) == set()
    cluster = await world.cluster(operation.cluster_id)
    assert (cluster.state, cluster.active_operation_id) == (ClusterState.FAILED, operation.id)


async def test_a_create_without_faults_makes_the_listed_calls(world: World, sandbox: Sandbox) -> None:
    await assert_whole(world, await created(world))
    assert changes(sandbox) == CHANGES
    assert set(calls(sandbox)) - set(CHANGES) == LOOKS


async def test_every_call_throttled_is_only_slower(world: World, sandbox: Sandbox) -> None:
    for action in (*CHANGES, *LOOKS):
        inject(sandbox, action=action, count=2)
    await assert_whole(world, await created(world))
    assert all(fault["count"] == 0 for fault in sandbox.faults.list())
    throttled = Counter(call["action"] for call in sandbox.calls if call["outcome"] == "RequestLimitExceeded")
    assert throttled == dict.fromkeys((*CHANGES, *LOOKS), 2)


@pytest.mark.parametrize("kind", ["lost_reply", "error"])
async def test_every_change_fails_once_after_and_before_its_effect_and_nothing_is_double(
    world: World, sandbox: Sandbox, kind: str
) -> None:
    for action, count in CHANGES.items():
        inject(sandbox, action=action, kind=kind, code="InternalError", status=500, count=count)
    operation = await created(world)
    await assert_whole(world, operation)
    assert all(fault["count"] == 0 for fault in sandbox.faults.list())
    failed = Counter(call["action"] for call in sandbox.calls if call["outcome"] == "InternalError")
    assert failed == CHANGES


async def test_a_step_that_is_tried_again_says_after_what(world: World, sandbox: Sandbox) -> None:
    inject(sandbox, action="CreateVpc", code="ServiceUnavailable", count=None)
    operation = await world.create()
    final = await world.settled(operation.id)
    vpc = (await world.steps(operation.id))["vpc"]
    assert (final.failure or {})["code"] == "CLOUD_UNAVAILABLE"
    assert "CreateVpc" in vpc.detail
    assert vpc.state == StepState.FAILED
    await assert_undone(world, final)


async def test_a_zone_without_capacity_is_left_for_another_and_the_step_says_so(world: World, sandbox: Sandbox) -> None:
    inject(sandbox, kind="capacity", zone=ZONES[1], count=None)
    operation = await created(world)
    await assert_whole(world, operation)
    step = (await world.steps(operation.id))["instance:rs0-1"]
    assert f"{ZONES[1]} had no capacity for m6i.large" in step.detail
    assert f" in {ZONES[1]}" not in step.detail.partition(";")[0]
    zones = {item.tags["wap:resource"]: item.zone for item in await world.things(operation.cluster_id)}
    assert zones["instance:rs0-1"] == zones["volume:rs0-1"] != ZONES[1]
    assert zones["instance:rs0-2"] == ZONES[2]


async def test_no_capacity_anywhere_fails_with_the_reason_and_nothing_billed(world: World, sandbox: Sandbox) -> None:
    inject(sandbox, kind="capacity", count=None)
    operation = await created(world)
    await assert_undone(world, operation)
    assert operation.failure is not None
    assert operation.failure["code"] == "CLOUD_CAPACITY"
    assert all(zone in operation.failure["message"] for zone in ZONES)
    failed = (await world.steps(operation.id))["instance:rs0-0"]
    assert (failed.state, failed.failure) == (StepState.FAILED, operation.failure)


async def test_no_capacity_for_the_last_one_takes_the_others_away_again(world: World, sandbox: Sandbox) -> None:
    inject(sandbox, kind="error", action="CreateVolume", code="InsufficientVolumeCapacity", status=500, count=None)
    operation = await created(world)
    assert calls(sandbox)["RunInstances"] == 3
    await assert_undone(world, operation)


async def test_a_missing_permission_is_named(world: World, sandbox: Sandbox) -> None:
    inject(sandbox, action="CreateVolume", code="UnauthorizedOperation", status=403, count=None)
    operation = await created(world)
    assert operation.failure is not None
    assert operation.failure["code"] == "CLOUD_DENIED"
    assert "ec2:CreateVolume" in operation.failure["message"]
    await assert_undone(world, operation)


async def test_a_retry_after_capacity_has_come_back_succeeds(world: World, sandbox: Sandbox) -> None:
    inject(sandbox, kind="capacity", count=None)
    operation = await created(world)
    assert operation.state == OperationState.FAILED
    sandbox.faults.clear()
    await world.retry(operation.id)
    await assert_whole(world, await world.settled(operation.id))
    states = {row.state for row in (await world.steps(operation.id)).values()}
    assert states == {StepState.SUCCEEDED}


async def test_an_undo_that_fails_is_not_hidden_and_the_retry_completes_it_first(
    world: World, sandbox: Sandbox
) -> None:
    inject(sandbox, action="CreateVolume", code="VolumeLimitExceeded", status=400, count=None)
    inject(sandbox, action="TerminateInstances", code="UnauthorizedOperation", status=403, count=None)
    operation = await created(world)
    assert operation.state == OperationState.FAILED
    assert "what it made could not be removed" in operation.summary
    assert "ec2:TerminateInstances" in operation.summary
    assert (operation.failure or {})["code"] == "CLOUD_QUOTA"
    first = {item.id for item in await world.things(operation.cluster_id) if item.kind == "instance"}
    assert len(first) == 3
    sandbox.faults.clear()
    await world.retry(operation.id)
    await assert_whole(world, await world.settled(operation.id))
    assert not first & await world.ids_present(operation.cluster_id)  # their agents had been retired
