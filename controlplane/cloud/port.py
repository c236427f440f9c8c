"""What the control plane needs of a cloud: ensure, find, describe and delete, in one region, with our tags on everything."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

Kind = Literal["instance", "volume", "security-group", "subnet", "gateway", "vpc"]
Progress = Callable[[str], Awaitable[None]]

TAG_INSTALL, TAG_PROJECT, TAG_CLUSTER = "wap:install", "wap:project", "wap:cluster"
TAG_RESOURCE, TAG_MANAGED_BY = "wap:resource", "wap:managed-by"


@dataclass(frozen=True)
class Owner:
    """Whose resource it is. `resource` is its logical name, unique in the cluster: "vpc", "subnet:us-east-1a",
    "gateway", "security-group", "instance:rs0-0", "volume:rs0-0"; the part before the colon is its kind."""

    install_id: str
    project_id: str
    cluster_id: str
    cluster_name: str
    resource: str

    def tags(self) -> dict[str, str]:
        """The tags that every resource gets when it is created."""
        return {
            "Name": f"wap-{self.cluster_name}-{self.resource}",
            TAG_INSTALL: self.install_id,
            TAG_PROJECT: self.project_id,
            TAG_CLUSTER: self.cluster_id,
            TAG_RESOURCE: self.resource,
            TAG_MANAGED_BY: "wap",
        }

    def identity(self) -> dict[str, str]:
        """The tags that tell this resource from every other one: names and projects may be edited, these are not."""
        return {TAG_INSTALL: self.install_id, TAG_CLUSTER: self.cluster_id, TAG_RESOURCE: self.resource}


def client_token(install_key: bytes, *parts: str) -> str:
    """EC2's idempotency token, 64 hex characters (its maximum): the same for the same parts, and only this
    installation can make it. Parts: cluster or operation, resource, zone, type, attempt."""
    return hmac.new(install_key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class InstanceRequest:
    """The wish for one instance. `user_data` is plain text of at most 16 KiB."""

    instance_type: str
    image_id: str
    zone: str
    subnet_id: str
    security_group_id: str
    user_data: str = field(repr=False)
    client_token: str
    public_ip: bool = True
    instance_profile: str = ""


@dataclass(frozen=True)
class VolumeRequest:
    """The wish for one encrypted gp3 volume: GiB, IOPS and MiB/s (0 = gp3 base), key ("" = the account's EBS key)."""

    zone: str
    size_gib: int
    iops: int
    throughput: int
    kms_key: str
    client_token: str


@dataclass(frozen=True)
class CloudResource:
    """One thing that AWS has. What a kind does not have is empty."""

    kind: Kind
    id: str
    tags: dict[str, str] = field(default_factory=dict)
    # Told by EC2 for instances only; unlike tags it cannot be edited.
    client_token: str = ""
    created: datetime | None = None
    state: str = ""
    zone: str = ""
    private_ip: str = ""
    # The instance that a volume is attached to, and how far that is: attaching, attached, detaching.
    instance_id: str = ""
    attachment: str = ""
    # The VPC of a network resource or instance; "" for a gateway that is not attached.
    vpc_id: str = ""
    cidr: str = ""
    # EC2's code for why an instance is in its state, for example Server.InsufficientInstanceCapacity.
    reason: str = ""


class Cloud(Protocol):
    """One region. Every call may be repeated after any crash; all raise CloudFailure and nothing else."""

    @property
    def region(self) -> str:
        """Name of the region, for example us-east-1."""

    async def zones(self) -> tuple[str, ...]:
        """Available zones, sorted."""

    async def image_id(self, wish: str) -> str:
        """The AMI that an id, an SSM parameter name ("/...") or a name pattern of Amazon's images stands for now."""

    async def ensure_vpc(self, owner: Owner, cidr: str) -> str:
        """Id of the owner's VPC."""

    async def ensure_gateway(self, owner: Owner, vpc_id: str) -> str:
        """Id of the internet gateway, attached and the default route of the VPC's main route table."""

    async def ensure_subnet(self, owner: Owner, vpc_id: str, zone: str, cidr: str) -> str:
        """Id of the subnet."""

    async def ensure_security_group(self, owner: Owner, vpc_id: str, port: int) -> str:
        """Id of the group; in comes only TCP on `port` from members of the group itself."""

    async def ensure_instance(
        self, owner: Owner, request: InstanceRequest, *, progress: Progress | None = None
    ) -> CloudResource:
        """The owner's instance, running and with a private address. An instance that is there already is taken, in
        whatever zone it is. CLOUD_CAPACITY where the zone has none; CLOUD_CONFLICT, retryable with another client
        token, when what the token stood for is terminated."""

    async def ensure_volume(
        self, owner: Owner, request: VolumeRequest, *, progress: Progress | None = None
    ) -> CloudResource:
        """The owner's volume, available or in use. CLOUD_CONFLICT when it exists in another zone."""

    async def attach_volume(
        self, volume_id: str, instance_id: str, device: str = "/dev/sdf", *, progress: Progress | None = None
    ) -> None:
        """Return when the volume is attached. CLOUD_CONFLICT when it is attached to another instance."""

    async def describe(self, kind: str, id: str) -> CloudResource | None:
        """What AWS says of it now; None when it says that there is none (right after a create that may be untrue)."""

    async def find(self, owner: Owner) -> list[CloudResource]:
        """All that carries the owner's identity and is of the kind of its resource; terminated ones left out."""

    async def inventory(self, install_id: str) -> list[CloudResource]:
        """Everything in the region with the installation's tag; terminated instances left out."""

    async def delete(self, kind: str, id: str, *, progress: Progress | None = None) -> None:
        """Return when it is gone; at once when it is gone already. An attached volume of a living instance is not
        deleted: CLOUD_CONFLICT."""
