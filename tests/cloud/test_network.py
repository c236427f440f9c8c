"""VPC, gateway, subnet, security group: one of each, whatever happens, and nothing open to the world."""

import pytest

from controlplane.domain.failure import CloudFailure, FailureCode
from tests.cloud.conftest import CIDR, PORT, SUBNET, ZONE, World


async def test_the_network_is_made_once(world: World) -> None:
    first = await world.network()
    assert await world.network() == first
    kinds = sorted(item.kind for item in await world.cloud.inventory(world.install))
    assert kinds == ["gateway", "security-group", "subnet", "vpc"]


async def test_without_adoption_there_would_be_two(world: World) -> None:
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "wap:install", "Value": world.install}]}]
    for _ in range(2):
        world.ec2.create_vpc(CidrBlock=CIDR, TagSpecifications=tags)
    assert len(await world.cloud.inventory(world.install)) == 2


async def test_every_resource_carries_all_tags_from_the_first_moment(world: World) -> None:
    await world.machine()
    for item in await world.cloud.inventory(world.install):
        tags = item.tags
        assert tags["wap:install"] == world.install
        assert (tags["wap:project"], tags["wap:cluster"], tags["wap:managed-by"]) == ("pr-1", "cl-1", "wap")
        assert tags["Name"].startswith("wap-demo-")
    assert world.calls("CreateTags") == 0


async def test_only_members_get_in(world: World) -> None:
    _, _, group_id = await world.network()
    await world.network()
    group = world.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", PORT, PORT)
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group_id]
    assert not rule["IpRanges"]
    assert not rule["Ipv6Ranges"]
    assert not rule["PrefixListIds"]


async def test_the_way_out_is_a_default_route_and_names_resolve(world: World) -> None:
    vpc, subnet, _ = await world.network()
    (gateway,) = await world.cloud.find(world.owner("gateway"))
    tables = world.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    routes = {route["DestinationCidrBlock"]: route["GatewayId"] for table in tables for route in table["Routes"]}
    assert routes == {CIDR: "local", "0.0.0.0/0": gateway.id}
    dns = world.ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsSupport")
    assert dns["EnableDnsSupport"]["Value"]
    assert world.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["MapPublicIpOnLaunch"]


async def test_another_address_range_is_a_conflict_and_changes_nothing(world: World) -> None:
    vpc = await world.cloud.ensure_vpc(world.owner("vpc"), CIDR)
    with pytest.raises(CloudFailure) as refused:
        await world.cloud.ensure_vpc(world.owner("vpc"), "127.79.0.0/24")
    assert refused.value.code is FailureCode.CLOUD_CONFLICT
    assert [item.id for item in await world.cloud.inventory(world.install)] == [vpc]


async def test_a_subnet_whose_range_is_taken_by_a_stranger_fails_with_the_reason(world: World) -> None:
    vpc = await world.cloud.ensure_vpc(world.owner("vpc"), CIDR)
    stranger = world.ec2.create_subnet(VpcId=vpc, CidrBlock=SUBNET)["Subnet"]["SubnetId"]
    with pytest.raises(CloudFailure) as refused:
        await world.cloud.ensure_subnet(world.owner(f"subnet:{ZONE}"), vpc, ZONE, SUBNET)
    assert (refused.value.code, refused.value.aws_code) == (FailureCode.CLOUD_CONFLICT, "InvalidSubnet.Conflict")
    world.ec2.delete_subnet(SubnetId=stranger)


async def test_zones_are_asked_of_aws(world: World) -> None:
    zones = await world.cloud.zones()
    assert zones == tuple(sorted(zones))
    assert ZONE in zones
    assert all(len(zone) == len(ZONE) for zone in zones)
