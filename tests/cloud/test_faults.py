"""What AWS does on bad days: throttles, loses replies, has no capacity, shows new things late."""

from collections import Counter

import pytest
from botocore.exceptions import ClientError

from controlplane.domain.failure import CloudFailure, FailureCode
from tests.cloud.conftest import CIDR, OTHER_ZONE, World

CREATES = (
    "CreateVpc",
    "CreateInternetGateway",
    "CreateSubnet",
    "CreateSecurityGroup",
    "RunInstances",
    "CreateVolume",
)
ONE_OF_EACH = Counter({"vpc": 1, "gateway": 1, "subnet": 1, "security-group": 1, "instance": 1, "volume": 2})


async def counted(world: World) -> Counter[str]:
    return Counter(item.kind for item in await world.cloud.inventory(world.install))


@pytest.mark.parametrize("action", CREATES)
async def test_a_lost_reply_makes_no_second_one(world: World, action: str) -> None:
    world.fault(action=action, kind="lost_reply")
    await world.machine()
    assert await counted(world) == ONE_OF_EACH


async def test_botocores_own_repeats_would_make_two(world: World) -> None:
    world.fault(action="CreateVpc", kind="lost_reply")
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "wap:install", "Value": world.install}]}]
    world.ec2.create_vpc(CidrBlock=CIDR, TagSpecifications=tags)
    assert await counted(world) == Counter(vpc=2)


@pytest.mark.parametrize("action", ["AttachVolume", "AttachInternetGateway", "CreateRoute"])
async def test_a_lost_reply_to_a_change_is_as_good_as_the_reply(world: World, action: str) -> None:
    world.fault(action=action, kind="lost_reply")
    await world.machine()
    assert await counted(world) == ONE_OF_EACH


async def test_every_call_throttled_once_only_slows_down(world: World) -> None:
    instance, volume = await world.machine()
    await world.cloud.delete("instance", instance.id)
    await world.cloud.delete("volume", volume.id)
    await world.teardown()
    actions = {call["action"] for call in world.sandbox.calls if call["action"]}
    without = len(world.sandbox.calls)
    assert actions >= set(CREATES)
    for action in actions:
        world.fault(action=action)
    world.install += "-again"
    world.sandbox.calls.clear()
    await world.machine()
    await world.teardown()
    assert await counted(world) == Counter()
    assert all(fault["count"] == 0 for fault in world.sandbox.faults.list())
    assert len(world.sandbox.calls) <= 3 * without


async def test_no_capacity_is_named_and_leaves_nothing(world: World) -> None:
    vpc, subnet, group = await world.network()
    world.fault(kind="capacity", zone="us-east-1a", count=None)
    owner = world.owner("instance:rs0-0")
    with pytest.raises(CloudFailure) as refused:
        await world.cloud.ensure_instance(owner, world.request(subnet, group))
    assert refused.value.code is FailureCode.CLOUD_CAPACITY
    assert "RunInstances in us-east-1" in str(refused.value)
    assert world.calls("RunInstances") == 1
    assert not await world.cloud.find(owner)

    other = await world.cloud.ensure_subnet(world.owner(f"subnet:{OTHER_ZONE}"), vpc, OTHER_ZONE, "127.78.0.32/27")
    request = world.request(other, group, zone=OTHER_ZONE, attempt="2")
    assert (await world.cloud.ensure_instance(owner, request)).zone == OTHER_ZONE


@pytest.mark.parametrize(
    ("aws_code", "code"),
    [
        ("InstanceLimitExceeded", FailureCode.CLOUD_QUOTA),
        ("VcpuLimitExceeded", FailureCode.CLOUD_QUOTA),
        ("UnauthorizedOperation", FailureCode.CLOUD_DENIED),
        ("Unsupported", FailureCode.CLOUD_INVALID),
    ],
)
async def test_a_refused_launch_is_asked_for_once(world: World, aws_code: str, code: FailureCode) -> None:
    _, subnet, group = await world.network()
    world.fault(action="RunInstances", code=aws_code, status=400, count=None)
    with pytest.raises(CloudFailure) as refused:
        await world.cloud.ensure_instance(world.owner("instance:rs0-0"), world.request(subnet, group))
    assert (refused.value.code, refused.value.details.retryable) == (code, False)
    assert world.calls("RunInstances") == 1


async def test_what_shows_up_late_is_waited_for(world: World) -> None:
    for action in ("CreateVpc", "CreateSubnet", "CreateSecurityGroup", "RunInstances", "CreateVolume"):
        world.fault(action=action, kind="delay", seconds=0.4)
    waits: list[str] = []

    async def progress(what: str) -> None:
        waits.append(what)

    _, subnet, group = await world.network()
    request = world.request(subnet, group)
    instance = await world.cloud.ensure_instance(world.owner("instance:rs0-0"), request, progress=progress)
    assert f"AWS to show {instance.id}, just created" in waits
    assert len(await world.cloud.find(world.owner("instance:rs0-0"))) == 1


async def test_plain_boto3_takes_late_for_missing(world: World) -> None:
    world.fault(action="CreateVpc", kind="delay", seconds=5)
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "wap:install", "Value": world.install}]}]
    vpc = world.ec2.create_vpc(CidrBlock=CIDR, TagSpecifications=tags)["Vpc"]["VpcId"]
    with pytest.raises(ClientError, match="NotFound"):
        world.ec2.describe_vpcs(VpcIds=[vpc])
