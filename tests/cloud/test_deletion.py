"""Taking away: twice is as good as once, in the order that AWS demands, and never what is in use."""

import asyncio
from dataclasses import replace

import pytest

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.domain.failure import CloudFailure, FailureCode
from tests.cloud.conftest import QUICK, REGION, World

MISSING = {
    "instance": "i-0123456789abcdef0",
    "volume": "vol-0123456789abcdef0",
    "security-group": "sg-0123456789abcdef0",
    "subnet": "subnet-0123456789abcdef0",
    "gateway": "igw-0123456789abcdef0",
    "vpc": "vpc-0123456789abcdef0",
}


async def test_a_teardown_leaves_nothing(world: World) -> None:
    before = world.sandbox.inventory()
    await world.machine()
    assert world.sandbox.inventory() != before
    await world.teardown()
    assert not await world.cloud.inventory(world.install)
    assert world.sandbox.inventory() == before


async def test_deleting_twice_is_done_twice(world: World) -> None:
    instance, volume = await world.machine()
    vpc, subnet, group = await world.network()
    (gateway,) = await world.cloud.find(world.owner("gateway"))
    targets = [
        ("instance", instance.id),
        ("volume", volume.id),
        ("security-group", group),
        ("gateway", gateway.id),
        ("subnet", subnet),
        ("vpc", vpc),
    ]
    for kind, id in targets * 2:
        await world.cloud.delete(kind, id)
    assert not await world.cloud.inventory(world.install)


@pytest.mark.parametrize(("kind", "id"), MISSING.items())
async def test_what_never_was_is_gone(world: World, kind: str, id: str) -> None:
    await world.cloud.delete(kind, id)
    assert await world.cloud.describe(kind, id) is None


async def test_one_not_found_is_not_believed(world: World) -> None:
    vpc = await world.cloud.ensure_vpc(world.owner("vpc"), "127.78.0.0/24")
    world.fault(action="DeleteVpc", code="InvalidVpcID.NotFound", status=400, count=2)
    await world.cloud.delete("vpc", vpc)
    assert await world.cloud.describe("vpc", vpc) is None


async def test_what_depends_on_it_is_waited_for(world: World) -> None:
    instance, volume = await world.machine()
    _, _, group = await world.network()
    waits: list[str] = []
    waiting = asyncio.Event()

    async def progress(what: str) -> None:
        waits.append(what)
        waiting.set()

    deletion = asyncio.create_task(world.cloud.delete("security-group", group, progress=progress))
    await asyncio.wait_for(waiting.wait(), 10)
    assert not deletion.done()
    await world.cloud.delete("instance", instance.id)
    await deletion
    assert waits[0] == f"AWS to let go of what depends on {group}"
    await world.cloud.delete("volume", volume.id)


async def test_the_wait_for_dependents_is_bounded(world: World) -> None:
    await world.machine()
    _, _, group = await world.network()
    hasty = EC2Cloud(REGION, replace(QUICK, dependents=0.3))
    with pytest.raises(CloudFailure) as refused:
        await hasty.delete("security-group", group)
    hasty.close()
    assert (refused.value.code, refused.value.aws_code) == (FailureCode.CLOUD_CONFLICT, "DependencyViolation")


async def test_a_volume_in_use_is_kept(world: World) -> None:
    instance, volume = await world.machine()
    with pytest.raises(CloudFailure, match=instance.id) as refused:
        await world.cloud.delete("volume", volume.id)
    assert refused.value.code is FailureCode.CLOUD_CONFLICT
    assert world.calls("DeleteVolume") == world.calls("DetachVolume") == 0


async def test_a_kind_that_does_not_exist_is_refused(world: World) -> None:
    with pytest.raises(CloudFailure, match="no kind"):
        await world.cloud.delete("database", "db-1")


async def test_only_what_is_ours_is_listed(world: World) -> None:
    other = replace(world, install=f"{world.install}x")
    await other.cloud.ensure_vpc(other.owner("vpc"), "127.78.0.0/24")
    assert not await world.cloud.inventory(world.install)
    assert not await world.cloud.find(world.owner("vpc"))
    await other.teardown()
