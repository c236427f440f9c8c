"""Instances: launched once, adopted ever after, waited for until they run."""

from typing import Any

from controlplane.cloud.adoption import Adoption, tagged_as
from controlplane.cloud.errors import named
from controlplane.cloud.port import TAG_RESOURCE, CloudResource, InstanceRequest, Owner, Progress
from controlplane.cloud.waiting import NotYet, until
from controlplane.domain.failure import CloudFailure, FailureCode

# Room for the system, the MongoDB distribution and logs; data has a volume of its own. At least the image's 8 GiB.
ROOT_GIB = 20
ENDING = frozenset({"shutting-down", "terminated"})


class Instances:
    """EC2's instance calls."""

    def __init__(self, adoption: Adoption) -> None:
        self._adoption, self._calls, self._patience = adoption, adoption.calls, adoption.patience
        self._root_devices: dict[str, str] = {}

    async def ensure(self, owner: Owner, request: InstanceRequest, progress: Progress | None) -> CloudResource:
        """The owner's instance, running and with a private address."""

        async def create() -> str:
            return await self.launch(owner, request)

        instance = await self._adoption.ensure(owner, create, keyed=True, progress=progress)
        return await self._running(instance.id, progress)

    async def launch(self, owner: Owner, request: InstanceRequest) -> str:
        """RunInstances, sent once. The same client token answers with the same instance."""
        arguments = _placement(request) | {
            "ImageId": request.image_id,
            "InstanceType": request.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": request.client_token,
            "UserData": request.user_data,
            # IMDSv2 only, and only for the machine itself: a hop limit of 1 keeps containers and proxies out.
            "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "BlockDeviceMappings": [await self._root_volume(request.image_id)],
            "TagSpecifications": [
                tagged_as("instance", owner.tags()),
                tagged_as("volume", owner.tags() | {TAG_RESOURCE: f"root-volume:{owner.resource.partition(':')[2]}"}),
            ],
        }
        if request.instance_profile:
            name = "Arn" if request.instance_profile.startswith("arn:") else "Name"
            arguments["IamInstanceProfile"] = {name: request.instance_profile}
        reply = await self._calls.once("run_instances", **arguments)
        return str(reply["Instances"][0]["InstanceId"])

    async def _root_volume(self, image_id: str) -> dict[str, Any]:
        """Encrypted, and gone with the instance. Under any other name than the image's it would be a second disk."""
        if image_id not in self._root_devices:
            reply = await self._calls.call("describe_images", ImageIds=[image_id])
            if not reply["Images"]:
                raise named("InvalidAMIID.NotFound", "DescribeImages", self._calls.region, image_id)
            self._root_devices[image_id] = str(reply["Images"][0]["RootDeviceName"])
        ebs = {"VolumeType": "gp3", "VolumeSize": ROOT_GIB, "Encrypted": True, "DeleteOnTermination": True}
        return {"DeviceName": self._root_devices[image_id], "Ebs": ebs}

    async def _running(self, instance_id: str, progress: Progress | None) -> CloudResource:
        async def look() -> CloudResource:
            now = await self._adoption.listing.describe("instance", instance_id)
            if now is None:
                raise NotYet(f"AWS to show {instance_id}, just created")
            if now.state in ENDING:
                raise self._ended(now)
            if now.state == "stopped":
                await self._start(instance_id)
            if now.state != "running" or not now.private_ip:
                raise NotYet(f"{instance_id} to run; it is {now.state}")
            return now

        return await until(look, within=self._patience.running, patience=self._patience, progress=progress)

    async def _start(self, instance_id: str) -> None:
        """Someone stopped it; that it changes state by itself at this moment is fine too."""
        try:
            await self._calls.call("start_instances", InstanceIds=[instance_id])
        except CloudFailure as failure:
            if failure.aws_code != "IncorrectInstanceState":
                raise

    def _ended(self, instance: CloudResource) -> CloudFailure:
        """EC2 accepted the launch and then ended it, for a reason it names: Server.InsufficientInstanceCapacity, ..."""
        side, _, code = instance.reason.partition(".")
        if code in ("InsufficientInstanceCapacity", "VolumeLimitExceeded"):
            return named(code, "RunInstances", self._calls.region, f"{instance.id} was ended while it started")
        if side == "Client" and code.startswith("InvalidKMSKey"):
            return named(instance.reason, "RunInstances", self._calls.region, instance.id)
        why = instance.reason or "AWS gives no reason"
        text = f"{instance.id} is {instance.state} before it ever ran ({why})"
        return CloudFailure(FailureCode.CLOUD_CONFLICT, text, aws_code=instance.reason)


def _placement(request: InstanceRequest) -> dict[str, Any]:
    """Subnet and group; the subnet hands out public addresses, and only a network interface can say no to that."""
    where: dict[str, Any] = {"Placement": {"AvailabilityZone": request.zone}}
    if request.public_ip:
        return where | {"SubnetId": request.subnet_id, "SecurityGroupIds": [request.security_group_id]}
    interface = {
        "DeviceIndex": 0,
        "SubnetId": request.subnet_id,
        "Groups": [request.security_group_id],
        "AssociatePublicIpAddress": False,
        "DeleteOnTermination": True,
    }
    return where | {"NetworkInterfaces": [interface]}
