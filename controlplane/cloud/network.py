"""The network of a cluster: VPC, way out, subnets, and a security group that lets members in only."""

from collections.abc import Awaitable
from typing import Any

from controlplane.cloud.adoption import Adoption, tagged_as
from controlplane.cloud.port import CloudResource, Owner
from controlplane.domain.failure import CloudFailure, FailureCode

EVERYWHERE = "0.0.0.0/0"


class Network:
    """EC2's VPC calls."""

    def __init__(self, adoption: Adoption) -> None:
        self._adoption, self._calls = adoption, adoption.calls

    async def ensure_vpc(self, owner: Owner, cidr: str) -> str:
        """Id of the owner's VPC; CLOUD_CONFLICT when it is there with another address range."""

        async def create() -> str:
            reply = await self._calls.once(
                "create_vpc", CidrBlock=cidr, TagSpecifications=[tagged_as("vpc", owner.tags())]
            )
            return str(reply["Vpc"]["VpcId"])

        vpc = await self._adoption.ensure(owner, create, keyed=False)
        _same_range(vpc, cidr)
        return vpc.id

    async def ensure_gateway(self, owner: Owner, vpc_id: str) -> str:
        """Id of the internet gateway, attached to the VPC and the target of its default route; DNS works in the VPC."""

        async def create() -> str:
            reply = await self._calls.once(
                "create_internet_gateway", TagSpecifications=[tagged_as("internet-gateway", owner.tags())]
            )
            return str(reply["InternetGateway"]["InternetGatewayId"])

        gateway = await self._adoption.ensure(owner, create, keyed=False)
        if gateway.vpc_id != vpc_id:
            await self._attach(gateway.id, vpc_id)
        await self._calls.call("modify_vpc_attribute", VpcId=vpc_id, EnableDnsSupport={"Value": True})
        await self._route_out(vpc_id, gateway.id)
        return gateway.id

    async def ensure_subnet(self, owner: Owner, vpc_id: str, zone: str, cidr: str) -> str:
        """Id of the subnet. Instances in it get a public address, which they need to dial out through the gateway."""

        async def create() -> str:
            tags = [tagged_as("subnet", owner.tags())]
            reply = await self._calls.once(
                "create_subnet", VpcId=vpc_id, AvailabilityZone=zone, CidrBlock=cidr, TagSpecifications=tags
            )
            return str(reply["Subnet"]["SubnetId"])

        subnet = await self._adoption.ensure(owner, create, keyed=False, vpc_id=vpc_id)
        _same_range(subnet, cidr)
        await self._calls.call("modify_subnet_attribute", SubnetId=subnet.id, MapPublicIpOnLaunch={"Value": True})
        return subnet.id

    async def ensure_security_group(self, owner: Owner, vpc_id: str, port: int) -> str:
        """Id of the group: in comes only TCP on `port` from its own members; out goes anything."""

        async def create() -> str:
            reply = await self._calls.once(
                "create_security_group",
                GroupName=owner.tags()["Name"],
                Description=f"Members of the MongoDB cluster {owner.cluster_name}",
                VpcId=vpc_id,
                TagSpecifications=[tagged_as("security-group", owner.tags())],
            )
            return str(reply["GroupId"])

        group = await self._adoption.ensure(owner, create, keyed=False, vpc_id=vpc_id)
        members = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "UserIdGroupPairs": [{"GroupId": group.id, "Description": "members of the cluster"}],
        }
        change = self._calls.call("authorize_security_group_ingress", GroupId=group.id, IpPermissions=[members])
        await _unless_so(change, "InvalidPermission.Duplicate")
        return group.id

    async def _attach(self, gateway_id: str, vpc_id: str) -> None:
        change = self._calls.call("attach_internet_gateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
        await _unless_so(change, "Resource.AlreadyAssociated")
        attached = await self._adoption.visible("gateway", gateway_id)
        if attached.vpc_id not in ("", vpc_id):
            raise CloudFailure(
                FailureCode.CLOUD_CONFLICT, f"gateway {gateway_id} is attached to {attached.vpc_id}, not to {vpc_id}"
            )

    async def _route_out(self, vpc_id: str, gateway_id: str) -> None:
        table = await self._main_route_table(vpc_id)
        target = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": EVERYWHERE, "GatewayId": gateway_id}
        present = next((route for route in table["Routes"] if route.get("DestinationCidrBlock") == EVERYWHERE), None)
        if present is None:
            await _unless_so(self._calls.call("create_route", **target), "RouteAlreadyExists")
        elif present.get("GatewayId") != gateway_id:
            await self._calls.call("replace_route", **target)

    async def _main_route_table(self, vpc_id: str) -> dict[str, Any]:
        filters = [
            {"Name": "vpc-id", "Values": [vpc_id]},
            {"Name": "association.main", "Values": ["true"]},
        ]
        tables = await self._calls.pages("describe_route_tables", "RouteTables", Filters=filters)
        if not tables:
            text = f"the main route table of {vpc_id} is not visible yet"
            raise CloudFailure(FailureCode.CLOUD_UNAVAILABLE, text, retryable=True)
        return tables[0]


def _same_range(found: CloudResource, cidr: str) -> None:
    if found.cidr != cidr:
        text = f"{found.id} has the address range {found.cidr}, not {cidr}; delete it or what made it first"
        raise CloudFailure(FailureCode.CLOUD_CONFLICT, text)


async def _unless_so(change: Awaitable[object], already: str) -> None:
    """Await the change; AWS's answer that it is so already is as good."""
    try:
        await change
    except CloudFailure as failure:
        if failure.aws_code != already:
            raise
