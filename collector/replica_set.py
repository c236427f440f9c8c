"""What a member of a replica set tells of itself and of the others: state, lag, elections, the oplog."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from collector.rates import known, quotient

Document = Mapping[str, Any]
PRIMARY, SECONDARY, ARBITER = 1, 2, 7
# What a member has that has nothing yet, or whose state is not known.
_NOTHING = datetime(1971, 1, 1, tzinfo=UTC)
# A shorter window says nothing about growth.
_LEAST_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Oplog:
    """The oplog's size, and the times (seconds since the epoch) of its oldest and newest entries."""

    max_bytes: float
    used_bytes: float
    earliest_s: float | None
    latest_s: float | None


class ReplicaSetSampler:
    """The view of one member, tick by tick."""

    def __init__(self) -> None:
        self._term: float | None = None
        # The newest write of each member that was ever seen: mongod forgets it of a member that it does not reach.
        self._applied: dict[str, datetime] = {}

    def sample(self, server_status: Document, replset_status: Document | None, oplog: Oplog | None) -> dict[str, float]:
        """Names of catalog.REPLICA_SET, but for the rates; empty outside of a set."""
        if replset_status is None:
            return {}
        members = [member for member in replset_status.get("members", ()) if isinstance(member, Mapping)]
        return known(
            _states(replset_status, members)
            | self._lags(members)
            | {"replica_set.commit_lag_seconds": _commit_lag(replset_status)}
            | self._elections(server_status, replset_status)
            | _buffer(server_status)
            | (_oplog(oplog) if oplog is not None else {})
        )

    def _lags(self, members: list[Document]) -> dict[str, float | None]:
        self._remember(members)
        itself = next((member for member in members if member.get("self")), None)
        if itself is None or itself.get("state") == ARBITER:
            return {}
        own = self._applied.get(itself["name"])
        # Only of members that are reached: what a lost member had and nobody else got may never come back.
        newest = max(
            (self._applied[m["name"]] for m in members if m.get("health") and m["name"] in self._applied), default=None
        )
        others = [
            self._applied[member["name"]]
            for member in members
            if not member.get("self") and member.get("state") != ARBITER and member["name"] in self._applied
        ]
        return {
            "replica_set.lag_seconds": None if itself.get("state") == PRIMARY else _behind(newest, own),
            "replica_set.most_lag_seconds": _behind(newest, min(others, default=None)),
        }

    def _remember(self, members: list[Document]) -> None:
        for member in members:
            applied = _applied(member)
            if applied is not None:
                self._applied[member["name"]] = applied
        names = {member["name"] for member in members}
        self._applied = {name: applied for name, applied in self._applied.items() if name in names}

    def _elections(self, server_status: Document, replset_status: Document) -> dict[str, float | None]:
        term, before = replset_status.get("term"), self._term
        self._term = float(term) if isinstance(term, int | float) else before
        held = None if term is None or before is None else max(0.0, term - before)
        kinds = server_status.get("electionMetrics") or {}
        won = [kind["successful"] for kind in kinds.values() if isinstance(kind, Mapping) and "successful" in kind]
        return {
            "replica_set.term": self._term,
            "replica_set.elections": held,
            "replica_set.elections_won": float(sum(won)) if won else None,
        }


def _states(status: Document, members: list[Document]) -> dict[str, float | None]:
    up = [member for member in members if member.get("health")]
    pings = [float(member["pingMs"]) for member in up if "pingMs" in member]
    return {
        "replica_set.state": status.get("myState"),
        "replica_set.is_primary": float(status.get("myState") == PRIMARY),
        "replica_set.has_primary": float(any(member.get("state") == PRIMARY for member in up)),
        "replica_set.members": len(members),
        "replica_set.healthy_members": sum(member.get("state") in (PRIMARY, SECONDARY, ARBITER) for member in up),
        "replica_set.ping_milliseconds": max(pings, default=None),
    }


def _applied(member: Document) -> datetime | None:
    """When the newest write that the member has was made; None for one that has none or is not reached."""
    found = member.get("lastAppliedWallTime") or member.get("optimeDate")
    if not member.get("health") or not isinstance(found, datetime):
        return None
    # pymongo gives naive UTC unless told otherwise.
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found if found > _NOTHING else None


def _behind(newest: datetime | None, this: datetime | None) -> float | None:
    return None if newest is None or this is None else max(0.0, (newest - this).total_seconds())


def _commit_lag(status: Document) -> float | None:
    optimes = status.get("optimes") or {}
    applied, committed = optimes.get("lastAppliedWallTime"), optimes.get("lastCommittedWallTime")
    if not isinstance(applied, datetime) or not isinstance(committed, datetime) or committed.year < _NOTHING.year:
        return None
    return max(0.0, (applied - committed).total_seconds())


def _buffer(status: Document) -> dict[str, float | None]:
    buffer = ((status.get("metrics") or {}).get("repl") or {}).get("buffer") or {}
    # Since MongoDB 8.0 there are two: one for what is written to the oplog, one for what is applied from it.
    return {"replica_set.apply_buffer_bytes": (buffer.get("apply") or buffer).get("sizeBytes")}


def _oplog(oplog: Oplog) -> dict[str, float | None]:
    window = None
    if oplog.earliest_s is not None and oplog.latest_s is not None:
        window = max(0.0, oplog.latest_s - oplog.earliest_s)
    known_pace = window is not None and window >= _LEAST_WINDOW_SECONDS and oplog.used_bytes > 0
    growth = quotient(oplog.used_bytes, window) if known_pace else None
    return {
        "replica_set.oplog_max_bytes": oplog.max_bytes,
        "replica_set.oplog_used_bytes": oplog.used_bytes,
        "replica_set.oplog_window_seconds": window,
        # A full oplog may be a little over its size for a while.
        "replica_set.oplog_full_window_seconds": quotient(max(oplog.max_bytes, oplog.used_bytes), growth),
        "replica_set.oplog_bytes_per_hour": None if growth is None else growth * 3600,
    }
