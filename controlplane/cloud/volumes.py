"""Data volumes: encrypted gp3, made once, attached once."""

from typing import Any

from controlplane.cloud.adoption import Adoption, tagged_as
from controlplane.cloud.port import CloudResource, Owner, Progress, VolumeRequest
from controlplane.cloud.waiting import NotYet, until
from controlplane.domain.failure import CloudFailure, FailureCode

# EC2's answers to AttachVolume that a look explains: attached meanwhile, or instance or volume not ready yet.
LOOK_AGAIN = frozenset({"VolumeInUse", "IncorrectState", "IncorrectInstanceState"})


class Volumes:
    """EBS's volume calls."""

    def __init__(self, adoption: Adoption) -> None:
        self._adoption, self._calls, self._patience = adoption, adoption.calls, adoption.patience

    async def ensure(self, owner: Owner, request: VolumeRequest, progress: Progress | None) -> CloudResource:
        """The owner's volume, available or in use; CLOUD_CONFLICT when it exists in another zone: it may hold data."""

        async def create() -> str:
            return await self.make(owner, request)

        volume = await self._adoption.ensure(owner, create, keyed=True, progress=progress)
        if volume.zone != request.zone:
            text = (
                f"{owner.resource} exists as {volume.id} in {volume.zone}, and {request.zone} is wanted; "
                "a volume cannot move and may hold data, so undo the operation or delete the volume first"
            )
            raise CloudFailure(FailureCode.CLOUD_CONFLICT, text)
        return await self._usable(volume.id, progress)

    async def make(self, owner: Owner, request: VolumeRequest) -> str:
        """CreateVolume, sent once. The same client token answers with the same volume."""
        arguments: dict[str, Any] = {
            "AvailabilityZone": request.zone,
            "Size": request.size_gib,
            "VolumeType": "gp3",
            "Encrypted": True,
            "ClientToken": request.client_token,
            "TagSpecifications": [tagged_as("volume", owner.tags())],
        }
        if request.iops:
            arguments["Iops"] = request.iops
        if request.throughput:
            arguments["Throughput"] = request.throughput
        if request.kms_key:
            arguments["KmsKeyId"] = request.kms_key
        reply = await self._calls.once("create_volume", **arguments)
        return str(reply["VolumeId"])

    async def attach(self, volume_id: str, instance_id: str, device: str, progress: Progress | None) -> None:
        """Return when the volume is attached to the instance."""

        async def look() -> None:
            volume = await self._adoption.listing.describe("volume", volume_id)
            if volume is None:
                raise NotYet(f"AWS to show {volume_id}")
            if volume.instance_id == instance_id and volume.attachment == "attached":
                return
            if volume.instance_id not in ("", instance_id) and volume.attachment != "detaching":
                text = f"{volume_id} is attached to {volume.instance_id}, not to {instance_id}"
                raise CloudFailure(FailureCode.CLOUD_CONFLICT, text)
            if volume.state == "available":
                await self._attach(volume_id, instance_id, device)
            raise NotYet(f"{volume_id} to be attached to {instance_id}; it is {volume.attachment or volume.state}")

        await until(look, within=self._patience.volume, patience=self._patience, progress=progress)

    async def _attach(self, volume_id: str, instance_id: str, device: str) -> None:
        try:
            await self._calls.call("attach_volume", VolumeId=volume_id, InstanceId=instance_id, Device=device)
        except CloudFailure as failure:
            if failure.aws_code not in LOOK_AGAIN:
                raise

    async def _usable(self, volume_id: str, progress: Progress | None) -> CloudResource:
        async def look() -> CloudResource:
            now = await self._adoption.listing.describe("volume", volume_id)
            if now is None:
                raise NotYet(f"AWS to show {volume_id}, just created")
            if now.state == "error":
                text = f"AWS could not make {volume_id}: the usual cause is a KMS key that is disabled or not allowed"
                raise CloudFailure(FailureCode.CLOUD_DENIED, text, aws_code="error")
            if now.state not in ("available", "in-use"):
                raise NotYet(f"{volume_id} to be available; it is {now.state}")
            return now

        return await until(look, within=self._patience.volume, patience=self._patience, progress=progress)
