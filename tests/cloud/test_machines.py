"""Instances and volumes: one of each, as safe as AWS lets them be, in the state that is promised."""

import asyncio

import pytest

from controlplane.cloud.port import client_token
from controlplane.domain.failure import CloudFailure, FailureCode
from tests.cloud.conftest import KEY, OTHER_ZONE, ZONE, World


async def test_a_machine_is_made_once(world: World) -> None:
    instance, volume = await world.machine()
    again, same_volume = await world.machine()
    assert (again.id, same_volume.id) == (instance.id, volume.id)
    assert instance.state == "running"
    assert instance.private_ip.startswith("127.78.0.")
    assert world.calls("RunInstances") == world.calls("CreateVolume") == world.calls("AttachVolume") == 1


async def test_an_instance_of_an_earlier_attempt_is_taken(world: World) -> None:
    _, subnet, group = await world.network()
    owner = world.owner("instance:rs0-0")
    first = await world.cloud.ensure_instance(owner, world.request(subnet, group))
    second = await world.cloud.ensure_instance(owner, world.request(subnet, group, attempt="2"))
    assert second.id == first.id


@pytest.mark.parametrize(("attempts", "instances"), [(("1", "1"), 1), (("1", "2"), 2)])
async def test_the_client_token_alone_makes_it_one(world: World, attempts: tuple[str, str], instances: int) -> None:
    """Launched twice without looking first; the control is the same with a token of its own each time."""
    _, subnet, group = await world.network()
    owner = world.owner("instance:rs0-0")
    launches = world.cloud._instances
    ids = {await launches.launch(owner, world.request(subnet, group, attempt=attempt)) for attempt in attempts}
    assert len(ids) == len(await world.cloud.find(owner)) == instances


async def test_ensuring_side_by_side_makes_one(world: World) -> None:
    _, subnet, group = await world.network()
    owner, request = world.owner("instance:rs0-0"), world.request(subnet, group)
    made = await asyncio.gather(*(world.cloud.ensure_instance(owner, request) for _ in range(4)))
    assert len({instance.id for instance in made}) == 1


async def test_the_instance_is_hardened_and_its_disks_are_encrypted(world: World) -> None:
    instance, volume = await world.machine()
    told = world.ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    options = told["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    attached = [{"Name": "attachment.instance-id", "Values": [instance.id]}]
    disks = world.ec2.describe_volumes(Filters=attached)["Volumes"]
    assert len(disks) == 2
    assert all(disk["Encrypted"] and disk["VolumeType"] == "gp3" for disk in disks)
    gone_with_it = {m["Ebs"]["VolumeId"]: m["Ebs"]["DeleteOnTermination"] for m in told["BlockDeviceMappings"]}
    assert gone_with_it.pop(volume.id) is False
    assert list(gone_with_it.values()) == [True]


async def test_a_root_volume_is_not_mistaken_for_the_instance_or_its_data(world: World) -> None:
    instance, volume = await world.machine()
    assert [item.id for item in await world.cloud.find(world.owner("instance:rs0-0"))] == [instance.id]
    assert [item.id for item in await world.cloud.find(world.owner("volume:rs0-0"))] == [volume.id]


async def test_a_stopped_instance_is_started(world: World) -> None:
    instance, _ = await world.machine()
    world.ec2.stop_instances(InstanceIds=[instance.id])
    again, _ = await world.machine()
    assert (again.id, again.state) == (instance.id, "running")


async def test_without_a_public_address_when_not_wanted(world: World) -> None:
    _, subnet, group = await world.network()
    request = world.request(subnet, group, public_ip=False)
    instance = await world.cloud.ensure_instance(world.owner("instance:rs0-0"), request)
    told = world.ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    assert told["SubnetId"] == subnet
    (interface,) = told["NetworkInterfaces"]
    assert [entry["GroupId"] for entry in interface["Groups"]] == [group]


async def test_one_token_with_two_meanings_stops(world: World) -> None:
    _, subnet, group = await world.network()
    await world.cloud.ensure_instance(world.owner("instance:rs0-0"), world.request(subnet, group))
    other = world.request(subnet, group, instance_type="m6i.xlarge")
    with pytest.raises(CloudFailure) as refused:
        await world.cloud.ensure_instance(world.owner("instance:rs0-1"), other)
    assert (refused.value.code, refused.value.details.retryable) == (FailureCode.CLOUD_CONFLICT, False)
    assert refused.value.aws_code == "IdempotentParameterMismatch"


async def test_a_terminated_instances_token_asks_for_another_attempt(world: World) -> None:
    _, subnet, group = await world.network()
    owner = world.owner("instance:rs0-0")
    instance = await world.cloud.ensure_instance(owner, world.request(subnet, group))
    await world.cloud.delete("instance", instance.id)
    with pytest.raises(CloudFailure) as refused:
        await world.cloud.ensure_instance(owner, world.request(subnet, group))
    assert (refused.value.code, refused.value.details.retryable) == (FailureCode.CLOUD_CONFLICT, True)
    other = await world.cloud.ensure_instance(owner, world.request(subnet, group, attempt="2"))
    assert other.id != instance.id


async def test_a_volume_in_another_zone_is_neither_doubled_nor_deleted(world: World) -> None:
    owner = world.owner("volume:rs0-0")
    volume = await world.cloud.ensure_volume(owner, world.volume())
    with pytest.raises(CloudFailure, match=f"{volume.id} in {ZONE}") as refused:
        await world.cloud.ensure_volume(owner, world.volume(zone=OTHER_ZONE, attempt="2"))
    assert refused.value.code is FailureCode.CLOUD_CONFLICT
    assert [item.id for item in await world.cloud.find(owner)] == [volume.id]


async def test_a_volume_is_not_taken_from_another_instance(world: World) -> None:
    instance, volume = await world.machine()
    _, subnet, group = await world.network()
    token = client_token(KEY, world.install, "instance:rs0-1")
    other = await world.cloud.ensure_instance(
        world.owner("instance:rs0-1"), world.request(subnet, group, client_token=token)
    )
    with pytest.raises(CloudFailure, match=instance.id) as refused:
        await world.cloud.attach_volume(volume.id, other.id)
    assert refused.value.code is FailureCode.CLOUD_CONFLICT


@pytest.mark.parametrize(
    "wish", ["/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64", "al2023-ami-2023.*-x86_64"]
)
async def test_an_image_is_found_by_parameter_or_pattern(world: World, wish: str) -> None:
    image = await world.cloud.image_id(wish)
    assert image.startswith("ami-")
    assert await world.cloud.image_id(image) == image


async def test_an_image_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(CloudFailure, match=r"no-such-image") as refused:
        await world.cloud.image_id("no-such-image-*")
    assert (refused.value.code, refused.value.aws_code) == (FailureCode.CLOUD_INVALID, "InvalidAMIID.NotFound")
