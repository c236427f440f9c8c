"""Taking things away: deleting what is gone is done already, and "not found" is believed only when said repeatedly.

AWS's eventual-consistency guide: right after a change, a look may still show the time before it, in both directions.
"""

from collections.abc import Awaitable, Callable, Mapping

import stamina

from controlplane.cloud.adoption import Adoption
from controlplane.cloud.errors import missing
from controlplane.cloud.listing import ENDED, kind_named
from controlplane.cloud.port import CloudResource, Kind, Progress
from controlplane.cloud.waiting import NotYet, until
from controlplane.domain.failure import CloudFailure, FailureCode

# So many times in a row must AWS say that it knows none.
SURE_LOOKS = 3
DEPENDENT = frozenset({"DependencyViolation", "VolumeInUse"})
DETACHED = frozenset({"Gateway.NotAttached", "IncorrectState"})


class Deletion:
    """EC2's deleting calls, each idempotent and waited for."""

    def __init__(self, adoption: Adoption) -> None:
        self._listing, self._calls, self._patience = adoption.listing, adoption.calls, adoption.patience

    async def delete(self, kind: str, id: str, progress: Progress | None) -> None:
        """Return when it is gone."""
        ways: Mapping[Kind, Callable[[str, Progress | None], Awaitable[object]]] = {
            "instance": self._instance,
            "volume": self._volume,
            "gateway": self._gateway,
            "security-group": lambda id, progress: self._send("delete_security_group", {"GroupId": id}, progress),
            "subnet": lambda id, progress: self._send("delete_subnet", {"SubnetId": id}, progress),
            "vpc": lambda id, progress: self._send("delete_vpc", {"VpcId": id}, progress),
        }
        await ways[kind_named(kind)](id, progress)

    async def _instance(self, id: str, progress: Progress | None) -> None:
        if await self._send("terminate_instances", {"InstanceIds": [id]}, progress):
            await self._gone("instance", id, progress)

    async def _volume(self, id: str, progress: Progress | None) -> None:
        volume = await self._listing.describe("volume", id)
        if volume is not None and volume.instance_id:
            await self._free(volume, progress)
        if await self._send("delete_volume", {"VolumeId": id}, progress):
            await self._gone("volume", id, progress)

    async def _free(self, volume: CloudResource, progress: Progress | None) -> None:
        """Wait until the volume is attached to nothing. A living instance's volume is refused: it is in use."""

        async def look() -> None:
            now = await self._listing.describe("volume", volume.id)
            if now is None or not now.instance_id or now.state == "available":
                return
            instance = await self._listing.describe("instance", now.instance_id)
            if instance is None or instance.state == "terminated":
                await self._detach(now)
            elif instance.state != "shutting-down" and now.attachment != "detaching":
                text = f"{now.id} is attached to {instance.id}, which is {instance.state}; terminate that first"
                raise CloudFailure(FailureCode.CLOUD_CONFLICT, text)
            raise NotYet(f"{now.id} to be free of {now.instance_id}")

        await until(look, within=self._patience.volume, patience=self._patience, progress=progress)

    async def _detach(self, volume: CloudResource) -> None:
        """The instance is gone, so EBS detaches by itself; asking only makes sure."""
        try:
            await self._calls.call("detach_volume", VolumeId=volume.id, InstanceId=volume.instance_id)
        except CloudFailure as failure:
            if failure.aws_code != "IncorrectState" and not missing(failure):
                raise

    async def _gateway(self, id: str, progress: Progress | None) -> None:
        gateway = await self._listing.describe("gateway", id)
        if gateway is not None and gateway.vpc_id:
            arguments = {"InternetGatewayId": id, "VpcId": gateway.vpc_id}
            try:
                await self._send("detach_internet_gateway", arguments, progress)
            except CloudFailure as failure:
                if failure.aws_code not in DETACHED:
                    raise
        await self._send("delete_internet_gateway", {"InternetGatewayId": id}, progress)

    async def _send(self, method: str, arguments: Mapping[str, object], progress: Progress | None) -> bool:
        """Send until AWS takes it or has said SURE_LOOKS times that it knows none: then False.

        What still depends on it goes away in its own time (network interfaces outlive their instance by seconds).
        """
        absences = 0

        async def look() -> bool:
            nonlocal absences
            try:
                await self._calls.call(method, **arguments)
            except CloudFailure as failure:
                if not missing(failure):
                    raise
                absences += 1
                if absences < SURE_LOOKS:
                    raise NotYet("AWS to confirm that it is gone") from None
                return False
            return True

        async for attempt in stamina.retry_context(
            on=_has_dependents,
            attempts=None,
            timeout=self._patience.dependents,
            wait_initial=self._patience.first_pause,
            wait_max=self._patience.longest_pause,
            wait_jitter=self._patience.first_pause,
        ):
            with attempt:
                if attempt.num > 1 and progress is not None:
                    await progress(f"AWS to let go of what depends on {_subject(arguments)}")
                return await until(look, within=self._patience.gone, patience=self._patience)
        raise AssertionError("unreachable")

    async def _gone(self, kind: Kind, id: str, progress: Progress | None) -> None:
        absences = 0

        async def look() -> None:
            nonlocal absences
            now = await self._listing.describe(kind, id)
            if now is not None and now.state in ENDED:
                return
            absences = absences + 1 if now is None else 0
            if absences < SURE_LOOKS:
                raise NotYet(f"{id} to be gone; it is {now.state if now else 'not shown any more'}")

        await until(look, within=self._patience.gone, patience=self._patience, progress=progress)


def _has_dependents(error: Exception) -> bool:
    return isinstance(error, CloudFailure) and error.aws_code in DEPENDENT


def _subject(arguments: Mapping[str, object]) -> str:
    first = next(iter(arguments.values()))
    return str(first[0] if isinstance(first, list) else first)
