"""The EC2 sandbox under the real Cloud; each test is an installation of its own."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.port import CloudResource, InstanceRequest, Owner, VolumeRequest, client_token
from controlplane.cloud.waiting import Patience
from scripts.sandbox import Fault, Sandbox

REGION = "us-east-1"
IMAGE = "ami-12c6146b"  # one that moto knows
CIDR, SUBNET = "127.78.0.0/24", "127.78.0.0/27"
ZONE, OTHER_ZONE = "us-east-1a", "us-east-1b"
PORT = 27017
KEY = b"k" * 32
# The sandbox answers in milliseconds; only the lengths differ from the product's.
QUICK = Patience(
    visible=15, unsure=2, running=30, volume=15, gone=30, dependents=15, first_pause=0.02, longest_pause=0.2
)


@dataclass
class World:
    """One installation's view: the port, a plain boto3 client to check with, and the sandbox to break."""

    cloud: EC2Cloud
    ec2: Any
    sandbox: Sandbox
    install: str

    def owner(self, resource: str) -> Owner:
        return Owner(self.install, "pr-1", "cl-1", "demo", resource)

    def fault(self, **rule: Any) -> None:
        self.sandbox.faults.add(Fault(**rule))

    def calls(self, action: str) -> int:
        return sum(call["action"] == action for call in self.sandbox.calls)

    async def network(self) -> tuple[str, str, str]:
        """Ids of VPC, subnet and security group; the gateway too is there."""
        vpc = await self.cloud.ensure_vpc(self.owner("vpc"), CIDR)
        await self.cloud.ensure_gateway(self.owner("gateway"), vpc)
        subnet = await self.cloud.ensure_subnet(self.owner(f"subnet:{ZONE}"), vpc, ZONE, SUBNET)
        return vpc, subnet, await self.cloud.ensure_security_group(self.owner("security-group"), vpc, PORT)

    def request(self, subnet: str, group: str, *, attempt: str = "1", **changes: Any) -> InstanceRequest:
        values: dict[str, Any] = {
            "instance_type": "m6i.large",
            "image_id": IMAGE,
            "zone": ZONE,
            "subnet_id": subnet,
            "security_group_id": group,
            "user_data": "#!/bin/bash\nexec sleep 600\n",
            "client_token": client_token(KEY, self.install, "instance:rs0-0", attempt),
        }
        return InstanceRequest(**values | changes)

    def volume(self, *, zone: str = ZONE, attempt: str = "1") -> VolumeRequest:
        token = client_token(KEY, self.install, "volume:rs0-0", attempt)
        return VolumeRequest(zone, 20, 3000, 125, "", token)

    async def machine(self) -> tuple[CloudResource, CloudResource]:
        """Instance rs0-0 with its volume attached."""
        _, subnet, group = await self.network()
        instance = await self.cloud.ensure_instance(self.owner("instance:rs0-0"), self.request(subnet, group))
        volume = await self.cloud.ensure_volume(self.owner("volume:rs0-0"), self.volume())
        await self.cloud.attach_volume(volume.id, instance.id)
        return instance, volume

    async def teardown(self) -> None:
        """Everything of the installation, in dependency order."""
        order = ("instance", "volume", "security-group", "gateway", "subnet", "vpc")
        for kind in order:
            for item in await self.cloud.inventory(self.install):
                if item.kind == kind:
                    await self.cloud.delete(kind, item.id)


@pytest.fixture(scope="package")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture(scope="package")
def shared_cloud(sandbox: Sandbox) -> Iterator[EC2Cloud]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", sandbox.endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "sandbox")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
        cloud = EC2Cloud(REGION, QUICK)
        yield cloud
        cloud.close()


@pytest.fixture(scope="package")
def plain(shared_cloud: EC2Cloud) -> Any:
    """boto3 as it comes, with its own repeats: what the port would be without its protections."""
    return boto3.client("ec2", region_name=shared_cloud.region)


@pytest.fixture
async def world(sandbox: Sandbox, shared_cloud: EC2Cloud, plain: Any) -> AsyncIterator[World]:
    """An empty installation; nothing of it, and no fault, is left afterwards."""
    sandbox.calls.clear()
    here = World(shared_cloud, plain, sandbox, f"in-{secrets.token_hex(6)}")
    yield here
    sandbox.faults.clear()
    await here.teardown()
