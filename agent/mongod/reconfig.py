"""From the configuration in force to the wished one, in safe steps. Pure: documents in, a document out.

MongoDB accepts several added voters at once and keeps them back until they have the data (measured with 6.0.5), so a
set that is being created grows in one step. A set that holds data changes one voter at a time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.failure import refused

MAX_MEMBERS, MAX_VOTERS, MAX_ID, MAX_PRIORITY = 50, 7, 255, 1000.0
HOST = re.compile(r"(\[[0-9a-fA-F:]{2,39}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):(\d{1,5})")
DEFAULT_HEARTBEAT_MILLIS, DEFAULT_ELECTION_MILLIS = 2000, 10_000
Document = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One member as wished."""

    id: int
    host: str
    priority: float
    votes: int


@dataclass(frozen=True)
class Timing:
    """Milliseconds; 0 means MongoDB's default."""

    heartbeat_millis: int = 0
    election_millis: int = 0

    @property
    def document(self) -> Document:
        """As in `settings` of a configuration."""
        return {
            "heartbeatIntervalMillis": self.heartbeat_millis or DEFAULT_HEARTBEAT_MILLIS,
            "electionTimeoutMillis": self.election_millis or DEFAULT_ELECTION_MILLIS,
        }


def check_members(members: Sequence[Member], field: str = "members") -> None:
    """Raise INVALID_ARGUMENT for the first member that cannot be."""
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise refused(field, f"{len(members)} members", f"1 to {MAX_MEMBERS} members")
    for index, member in enumerate(members):
        _check_member(member, f"{field}[{index}]")
    keys: tuple[tuple[str, list[object]], ...] = (("id", [m.id for m in members]), ("host", [m.host for m in members]))
    for name, values in keys:
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise refused(f"{field}.{name}", twice, "each once")
    voters = sum(member.votes for member in members)
    if not 1 <= voters <= MAX_VOTERS:
        raise refused(f"{field}.votes", f"{voters} voters", f"1 to {MAX_VOTERS} voters")


def check_timing(timing: Timing) -> None:
    """Raise INVALID_ARGUMENT for an interval that would make the set unsafe or deaf."""
    if timing.heartbeat_millis and not 100 <= timing.heartbeat_millis <= 60_000:
        raise refused("heartbeat_interval_millis", timing.heartbeat_millis, "0, or 100 to 60000")
    if timing.election_millis and not 500 <= timing.election_millis <= 600_000:
        raise refused("election_timeout_millis", timing.election_millis, "0, or 500 to 600000")


def first_config(replica_set: str, member: Member, timing: Timing, role: str) -> Document:
    """The configuration of a new set with one member."""
    return {
        "_id": replica_set,
        "members": [_document(member)],
        **({"configsvr": True} if role == "config" else {}),
        "settings": timing.document,
    }


def next_config(current: Document, wished: Sequence[Member], timing: Timing) -> Document | None:
    """The next configuration on the way from `current` to the wish; None when it is reached.

    Votes of at most one member change at a time, except that a set with one member takes all others at once.
    """
    members: list[Document] = list(current["members"])
    wanted = {member.host: _document(member) for member in wished}
    _check_ids(members, wanted)
    have = {member["host"] for member in members}
    missing = [document for host, document in wanted.items() if host not in have]
    leaving = [member for member in members if member["host"] not in wanted]
    changed = [m for m in members if m["host"] in wanted and not _same(m, wanted[m["host"]])]
    if missing:
        members += missing if len(members) == 1 and not leaving else missing[:1]
    elif changed:
        members = _change(members, changed, wanted)
    elif leaving:
        members.remove(leaving[0])
    settings = {**current.get("settings", {}), **timing.document}
    if members == current["members"] and settings == current.get("settings"):
        return None
    return {**current, "version": current["version"] + 1, "members": members, "settings": settings}


def leaves(current: Document, following: Document) -> list[str]:
    """Hosts of voters that `following` takes out."""
    stay = {member["host"] for member in following["members"] if member.get("votes", 1)}
    return [m["host"] for m in current["members"] if m.get("votes", 1) and m["host"] not in stay]


def _check_member(member: Member, field: str) -> None:
    match = HOST.fullmatch(member.host)
    if match is None or not 1 <= int(match.group(3)) <= 65535:
        raise refused(f"{field}.host", member.host, "host:port")
    if not 0 <= member.id <= MAX_ID:
        raise refused(f"{field}.id", member.id, f"0 to {MAX_ID}")
    if member.votes not in {0, 1}:
        raise refused(f"{field}.votes", member.votes, "0 or 1")
    if not 0 <= member.priority <= MAX_PRIORITY:  # also false for NaN
        raise refused(f"{field}.priority", member.priority, f"0 to {MAX_PRIORITY:.0f}")
    if member.priority > 0 and not member.votes:
        raise refused(f"{field}.priority", member.priority, "0 for a member without a vote")


def _check_ids(members: Sequence[Document], wanted: dict[str, Document]) -> None:
    for member in members:
        wish = wanted.get(member["host"])
        if wish is not None and wish["_id"] != member["_id"]:
            raise refused("members.id", wish["_id"], f"{member['_id']}, the id that {member['host']} has in the set")


def _change(members: list[Document], changed: list[Document], wanted: dict[str, Document]) -> list[Document]:
    """Priorities all at once; a change of votes for the first member that needs one."""
    revote = next((m["host"] for m in changed if m.get("votes", 1) != wanted[m["host"]]["votes"]), None)
    return [
        {**m, **wanted[m["host"]]}
        if m in changed and (m.get("votes", 1) == wanted[m["host"]]["votes"] or m["host"] == revote)
        else m
        for m in members
    ]


def _document(member: Member) -> Document:
    return {"_id": member.id, "host": member.host, "priority": member.priority, "votes": member.votes}


def _same(member: Document, wish: Document) -> bool:
    return bool(member.get("votes", 1) == wish["votes"] and member.get("priority", 1) == wish["priority"])
