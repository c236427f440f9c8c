"""Making, changing and waiting for a replica set, from one of its members."""

import asyncio
from collections.abc import Callable, Sequence

from agent.failure import FailureCode, NodeFailure
from agent.mongod import reconfig
from agent.mongod.client import MongodClient, is_config_busy
from agent.mongod.quorum import check_leaving
from agent.mongod.reconfig import Member, Timing
from agent.mongod.view import ReplicaSetView

POLL_SECONDS = 0.05
Progress = Callable[[str], None]


async def initiate(
    client: MongodClient, name: str, member: Member, timing: Timing, role: str, progress: Progress
) -> None:
    """The set exists with this node as its first member and primary. A set that exists is left as it is."""
    view = await client.view()
    if view is None:
        await client.initiate(reconfig.first_config(name, member, timing, role))
    elif view.name != name:
        raise NodeFailure(
            FailureCode.MONGOD_COMMAND_FAILED,
            f"this mongod is a member of the replica set {view.name}",
            field="replica_set",
            given=name,
            allowed=view.name,
        )
    elif view.primary is not None and not view.primary.itself:
        return  # it was initiated long ago and has moved on
    while not await client.is_writable_primary():
        progress(f"{member.host} to become primary")
        await asyncio.sleep(POLL_SECONDS)


async def configure(
    client: MongodClient, name: str, members: Sequence[Member], timing: Timing, progress: Progress
) -> int:
    """The set's configuration equals the wish; returns its version. Only the primary can; never forces."""
    while True:
        await require_primary(client)
        current = await client.configuration()
        if current["_id"] != name:
            raise NodeFailure(
                FailureCode.MONGOD_COMMAND_FAILED,
                f"this mongod is a member of the replica set {current['_id']}",
                field="replica_set",
                given=name,
                allowed=current["_id"],
            )
        following = reconfig.next_config(current, members, timing)
        if following is None:
            return int(current["version"])
        await _settled(client, current, progress)
        await _guard(client, current, following)
        try:
            await client.reconfigure(following)
        except NodeFailure as failure:
            if not is_config_busy(failure):
                raise
            progress(f"MongoDB to take the new configuration: {failure.message}")
            await asyncio.sleep(POLL_SECONDS)


async def await_healthy(client: MongodClient, name: str, voters: int, progress: Progress) -> str:
    """Return the primary's address once so many voters are all healthy and a majority write was accepted.

    A member that is not primary can see the health but not write.
    """
    while True:
        waiting = await _what_is_missing(client, name, voters)
        if isinstance(waiting, ReplicaSetView):
            assert waiting.primary is not None
            return waiting.primary.host
        progress(waiting)
        await asyncio.sleep(POLL_SECONDS)


async def require_primary(client: MongodClient) -> None:
    """Raise a retryable failure that names the primary unless this node is it."""
    if await client.is_writable_primary():
        return
    view = await client.view()
    if view is None:
        raise NodeFailure(FailureCode.MONGOD_COMMAND_FAILED, "the replica set is not initiated", retryable=True)
    where = f"{view.primary.host} is" if view.primary is not None else "no member is at the moment"
    raise NodeFailure(
        FailureCode.MONGOD_COMMAND_FAILED, f"{client.address} is not primary of {view.name}; {where}", retryable=True
    )


async def _what_is_missing(client: MongodClient, name: str, voters: int) -> str | ReplicaSetView:
    try:
        view = await client.view()
        if view is None:
            return f"{name} to be initiated"
        if view.name != name:
            return f"this mongod is a member of {view.name}, not of {name}"
        unhealthy = [member for member in view.members if member.votes and not member.healthy]
        healthy = sum(voter.healthy for voter in view.voters)
        if unhealthy or healthy != voters:
            trouble = "".join(f": {m.host} is {m.state}" for m in unhealthy[:1])
            return f"{healthy} of {voters} members healthy{trouble}"
        if view.voting_members != voters:
            return f"{view.voting_members} of {voters} members counted as voters by MongoDB"
        if view.primary is None:
            return "a primary to be elected"
        if view.primary.itself:
            await client.write_with_majority()
    except NodeFailure as failure:
        return failure.message
    return view


async def _settled(client: MongodClient, current: reconfig.Document, progress: Progress) -> None:
    """The configuration in force is committed, and nobody in it is still held back as newly added."""
    voters = sum(1 for member in current["members"] if member.get("votes", 1))
    while True:
        view = await client.view()
        if view is not None and view.voting_members == voters and await client.committed():
            return
        counted = view.voting_members if view is not None else 0
        progress(f"the configuration in force to be committed: {counted} of {voters} voters counted")
        await require_primary(client)
        await asyncio.sleep(POLL_SECONDS)


async def _guard(client: MongodClient, current: reconfig.Document, following: reconfig.Document) -> None:
    view = await client.view()
    for host in reconfig.leaves(current, following) if view is not None else ():
        assert view is not None
        check_leaving(view.voters, host, removed=True)
