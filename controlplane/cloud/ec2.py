"""The Cloud port on AWS: one object per region, put together from its parts."""

from controlplane.cloud.adoption import Adoption
from controlplane.cloud.calls import Calls
from controlplane.cloud.deletion import Deletion
from controlplane.cloud.images import image_id
from controlplane.cloud.instances import Instances
from controlplane.cloud.listing import Listing, kind_named
from controlplane.cloud.network import Network
from controlplane.cloud.port import CloudResource, InstanceRequest, Owner, Progress, VolumeRequest
from controlplane.cloud.volumes import Volumes
from controlplane.cloud.waiting import Patience


class EC2Cloud:
    """One region of AWS, or of the EC2 sandbox. Contracts: see `port.Cloud`."""

    def __init__(self, region: str, patience: Patience = Patience()) -> None:  # noqa: B008 - frozen
        self.region = region
        self._calls = Calls(region)
        self._listing = Listing(self._calls)
        adoption = Adoption(self._calls, self._listing, patience)
        self._network, self._instances = Network(adoption), Instances(adoption)
        self._volumes, self._deletion = Volumes(adoption), Deletion(adoption)

    def close(self) -> None:
        """Let the threads end."""
        self._calls.close()

    async def zones(self) -> tuple[str, ...]:
        """Available zones of the region proper, sorted; local and wavelength zones do not count."""
        filters = [{"Name": "state", "Values": ["available"]}, {"Name": "zone-type", "Values": ["availability-zone"]}]
        reply = await self._calls.call("describe_availability_zones", Filters=filters)
        return tuple(sorted(str(zone["ZoneName"]) for zone in reply["AvailabilityZones"]))

    async def image_id(self, wish: str) -> str:
        """The AMI that the wish stands for now."""
        return await image_id(self._calls, wish)

    async def ensure_vpc(self, owner: Owner, cidr: str) -> str:
        """Id of the owner's VPC."""
        return await self._network.ensure_vpc(owner, cidr)

    async def ensure_gateway(self, owner: Owner, vpc_id: str) -> str:
        """Id of the internet gateway, attached and routed to."""
        return await self._network.ensure_gateway(owner, vpc_id)

    async def ensure_subnet(self, owner: Owner, vpc_id: str, zone: str, cidr: str) -> str:
        """Id of the subnet."""
        return await self._network.ensure_subnet(owner, vpc_id, zone, cidr)

    async def ensure_security_group(self, owner: Owner, vpc_id: str, port: int) -> str:
        """Id of the group that lets in members only."""
        return await self._network.ensure_security_group(owner, vpc_id, port)

    async def ensure_instance(
        self, owner: Owner, request: InstanceRequest, *, progress: Progress | None = None
    ) -> CloudResource:
        """The owner's instance, running."""
        return await self._instances.ensure(owner, request, progress)

    async def ensure_volume(
        self, owner: Owner, request: VolumeRequest, *, progress: Progress | None = None
    ) -> CloudResource:
        """The owner's volume, available or in use."""
        return await self._volumes.ensure(owner, request, progress)

    async def attach_volume(
        self, volume_id: str, instance_id: str, device: str = "/dev/sdf", *, progress: Progress | None = None
    ) -> None:
        """Return when the volume is attached."""
        await self._volumes.attach(volume_id, instance_id, device, progress)

    async def describe(self, kind: str, id: str) -> CloudResource | None:
        """What AWS says of it now."""
        return await self._listing.describe(kind_named(kind), id)

    async def find(self, owner: Owner) -> list[CloudResource]:
        """All that carries the owner's identity."""
        return await self._listing.find(owner)

    async def inventory(self, install_id: str) -> list[CloudResource]:
        """Everything of the installation."""
        return await self._listing.inventory(install_id)

    async def delete(self, kind: str, id: str, *, progress: Progress | None = None) -> None:
        """Return when it is gone."""
        await self._deletion.delete(kind, id, progress)
