"""Making one resource, whatever happened to earlier requests and replies: look first, create only when there is none.

Two protections, since each alone has a hole: tags are set by the create itself, so what an earlier request made is
found and taken; and where EC2 takes a client token, a request whose effect is not visible yet answers with the same
resource. What has no token (VPC, gateway, ...) waits for a lost reply's effect to show up before it is sent again.
"""

from collections.abc import Awaitable, Callable

import stamina

from controlplane.cloud.calls import Calls
from controlplane.cloud.errors import missing
from controlplane.cloud.listing import Listing, kind_of
from controlplane.cloud.port import CloudResource, Owner, Progress
from controlplane.cloud.waiting import NotYet, Patience, until
from controlplane.domain.failure import CloudFailure, FailureCode

# EC2 refuses a second one of these by itself: the first exists, and will be visible soon.
EXISTS = frozenset({"InvalidSubnet.Conflict", "InvalidGroup.Duplicate"})
# Not visible yet is a matter of time for what we just made; an image is not ours.
NEVER_APPEARS = frozenset({"InvalidAMIID.NotFound"})
# On their way out, or made without success: not to be taken.
NOT_TAKEN = frozenset({"shutting-down", "terminated", "deleting", "deleted", "error"})

Create = Callable[[], Awaitable[str]]


class Adoption:
    """One region's way of making things."""

    def __init__(self, calls: Calls, listing: Listing, patience: Patience) -> None:
        self.calls, self.listing, self.patience = calls, listing, patience

    async def ensure(
        self, owner: Owner, create: Create, *, keyed: bool, vpc_id: str = "", progress: Progress | None = None
    ) -> CloudResource:
        """The owner's resource: what is there (in that VPC, when given), or else what `create` makes, once visible.

        `keyed`: the create carries a client token, so sending it again after a lost reply is safe at once.
        """
        unsure = False

        async def attempt() -> str:
            nonlocal unsure
            found = await self._look(owner, vpc_id, wait=unsure and not keyed)
            if found is not None:
                return found.id
            try:
                return await create()
            except CloudFailure as failure:
                unsure = unsure or failure.code is FailureCode.CLOUD_UNAVAILABLE
                raise

        made = await self._repeated(attempt)
        return await self.visible(owner.resource, made, progress)

    async def visible(self, resource: str, id: str, progress: Progress | None = None) -> CloudResource:
        """The resource as soon as EC2 tells of it: "not found" right after a create means nothing yet."""

        async def look() -> CloudResource:
            found = await self.listing.describe(kind_of(resource), id)
            if found is None:
                raise NotYet(f"AWS to show {id}, just created")
            return found

        return await until(look, within=self.patience.visible, patience=self.patience, progress=progress)

    async def _look(self, owner: Owner, vpc_id: str, *, wait: bool) -> CloudResource | None:
        async def look() -> CloudResource:
            for found in await self.listing.find(owner):
                if found.state not in NOT_TAKEN and vpc_id in ("", found.vpc_id):
                    return found
            raise NotYet(f"AWS to show {owner.resource}")

        if not wait:
            try:
                return await look()
            except NotYet:
                return None
        try:
            return await until(look, within=self.patience.unsure, patience=self.patience)
        except CloudFailure as failure:
            if failure.aws_code:  # AWS said something; else it is the time that is over
                raise
            return None

    async def _repeated(self, attempt: Create) -> str:
        async for repeat in stamina.retry_context(
            on=_may_pass,
            attempts=None,
            timeout=self.patience.visible,
            wait_initial=self.patience.first_pause,
            wait_max=self.patience.longest_pause,
            wait_jitter=self.patience.first_pause,
        ):
            with repeat:
                return await attempt()
        raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    """Whether to look and create again: throttled, lost, exists unseen, or what it builds on is not visible yet."""
    if not isinstance(error, CloudFailure):
        return False
    if error.aws_code in NEVER_APPEARS:
        return False
    if error.aws_code in EXISTS or missing(error):
        return True
    return error.code in (FailureCode.CLOUD_THROTTLED, FailureCode.CLOUD_UNAVAILABLE)


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 wants them."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def tagged_as(resource_type: str, tags: dict[str, str]) -> dict[str, object]:
    """One TagSpecification: the tags are there from the first moment, or nothing is."""
    return {"ResourceType": resource_type, "Tags": tag_list(tags)}
