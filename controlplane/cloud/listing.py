"""What is there: every kind of resource, described by id or found by our tags, as one value."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from controlplane.cloud.calls import Calls
from controlplane.cloud.errors import missing
from controlplane.cloud.port import TAG_INSTALL, CloudResource, Kind, Owner
from controlplane.domain.failure import CloudFailure, FailureCode

# States in which EC2 still tells of something that is no more.
ENDED = frozenset({"terminated", "deleted"})


@dataclass(frozen=True)
class _Source:
    """How EC2 tells of one kind."""

    method: str
    key: str
    ids: str
    read: Callable[[dict[str, Any]], CloudResource]


def _instance(raw: dict[str, Any]) -> CloudResource:
    return CloudResource(
        kind="instance",
        id=raw["InstanceId"],
        tags=_tags(raw),
        client_token=raw.get("ClientToken") or "",
        created=raw.get("LaunchTime"),
        state=raw["State"]["Name"],
        zone=raw.get("Placement", {}).get("AvailabilityZone", ""),
        private_ip=raw.get("PrivateIpAddress") or "",
        vpc_id=raw.get("VpcId") or "",
        reason=(raw.get("StateReason") or {}).get("Code") or "",
    )


def _volume(raw: dict[str, Any]) -> CloudResource:
    attachment: dict[str, Any] = next(iter(raw.get("Attachments", [])), {})
    return CloudResource(
        kind="volume",
        id=raw["VolumeId"],
        tags=_tags(raw),
        created=raw.get("CreateTime"),
        state=raw["State"],
        zone=raw["AvailabilityZone"],
        instance_id=attachment.get("InstanceId") or "",
        attachment=attachment.get("State") or "",
    )


def _security_group(raw: dict[str, Any]) -> CloudResource:
    return CloudResource("security-group", raw["GroupId"], _tags(raw), state="available", vpc_id=raw.get("VpcId") or "")


def _subnet(raw: dict[str, Any]) -> CloudResource:
    return CloudResource(
        kind="subnet",
        id=raw["SubnetId"],
        tags=_tags(raw),
        state=raw["State"],
        zone=raw["AvailabilityZone"],
        vpc_id=raw["VpcId"],
        cidr=raw["CidrBlock"],
    )


def _gateway(raw: dict[str, Any]) -> CloudResource:
    attachment: dict[str, Any] = next(iter(raw.get("Attachments", [])), {})
    return CloudResource(
        kind="gateway",
        id=raw["InternetGatewayId"],
        tags=_tags(raw),
        state="attached" if attachment else "detached",
        vpc_id=attachment.get("VpcId") or "",
    )


def _vpc(raw: dict[str, Any]) -> CloudResource:
    return CloudResource(
        "vpc", raw["VpcId"], _tags(raw), state=raw["State"], vpc_id=raw["VpcId"], cidr=raw["CidrBlock"]
    )


def _tags(raw: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in raw.get("Tags", [])}


SOURCES: dict[Kind, _Source] = {
    "instance": _Source("describe_instances", "Reservations", "InstanceIds", _instance),
    "volume": _Source("describe_volumes", "Volumes", "VolumeIds", _volume),
    "security-group": _Source("describe_security_groups", "SecurityGroups", "GroupIds", _security_group),
    "subnet": _Source("describe_subnets", "Subnets", "SubnetIds", _subnet),
    "gateway": _Source("describe_internet_gateways", "InternetGateways", "InternetGatewayIds", _gateway),
    "vpc": _Source("describe_vpcs", "Vpcs", "VpcIds", _vpc),
}


class Listing:
    """Reading the region."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def describe(self, kind: Kind, id: str) -> CloudResource | None:
        """What EC2 says of it now; None when it knows none."""
        source = SOURCES[kind]
        try:
            found = await self._read(source, {source.ids: [id]})
        except CloudFailure as failure:
            if missing(failure):
                return None
            raise
        return next(iter(found), None)

    async def find(self, owner: Owner) -> list[CloudResource]:
        """What carries the owner's identity and is of its kind, oldest first; what has ended is left out."""
        found = await self.tagged(kind_of(owner.resource), owner.identity())
        return sorted(found, key=lambda item: (item.created.timestamp() if item.created else 0.0, item.id))

    async def inventory(self, install_id: str) -> list[CloudResource]:
        """Everything with the installation's tag that has not ended, all kinds at once."""
        kinds = await asyncio.gather(*(self.tagged(kind, {TAG_INSTALL: install_id}) for kind in SOURCES))
        return [item for found in kinds for item in found]

    async def tagged(self, kind: Kind, tags: Mapping[str, str]) -> list[CloudResource]:
        """What carries all these tags and has not ended."""
        filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
        return [item for item in await self._read(SOURCES[kind], {"Filters": filters}) if item.state not in ENDED]

    async def _read(self, source: _Source, arguments: dict[str, Any]) -> list[CloudResource]:
        items = await self._calls.pages(source.method, source.key, **arguments)
        if source.key == "Reservations":
            items = [instance for reservation in items for instance in reservation["Instances"]]
        return [source.read(item) for item in items]


def kind_of(resource: str) -> Kind:
    """The kind that a resource's logical name begins with; CLOUD_INVALID for a name of no kind."""
    return kind_named(resource.partition(":")[0])


def kind_named(name: str) -> Kind:
    """The kind of that name; CLOUD_INVALID when there is none."""
    for kind in SOURCES:
        if kind == name:
            return kind
    raise CloudFailure(FailureCode.CLOUD_INVALID, f"{name!r} is no kind of resource: {', '.join(get_args(Kind))}")
