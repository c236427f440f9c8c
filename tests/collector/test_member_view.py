"""What a member makes of replSetGetStatus: the cases that a healthy set does not show."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from collector.replica_set import Oplog, ReplicaSetSampler

NOW = datetime(2026, 5, 4, 3, 2, 1)
EPOCH = datetime(1970, 1, 1)
HOUR, MEBIBYTE = 3600.0, 1024 * 1024


def member(name: str, state: int, behind: float = 0.0, **fields: Any) -> dict[str, Any]:
    applied = NOW - timedelta(seconds=behind)
    return {"name": name, "state": state, "health": 1.0, "lastAppliedWallTime": applied, "pingMs": 1} | fields


def status(*members: dict[str, Any], term: int = 1) -> dict[str, Any]:
    itself = next(member for member in members if member.get("self"))
    return {"set": "rs0", "myState": itself["state"], "members": list(members), "term": term}


def sample(found: dict[str, Any], sampler: ReplicaSetSampler | None = None) -> dict[str, float]:
    return (sampler or ReplicaSetSampler()).sample({}, found, None)


def test_a_secondary_is_behind_the_newest_write_that_it_knows_of() -> None:
    seen = sample(status(member("a", 1), member("b", 2, 7.5, self=True), member("c", 2, 3)))
    assert seen["replica_set.lag_seconds"] == 7.5
    assert seen["replica_set.most_lag_seconds"] == 3
    # A heartbeat is late by nature: what is ahead of all that is known of others is not behind.
    assert sample(status(member("a", 1, 2), member("b", 2, self=True)))["replica_set.lag_seconds"] == 0


def test_a_primary_has_no_lag_and_an_arbiter_has_no_data() -> None:
    assert "replica_set.lag_seconds" not in sample(status(member("a", 1, self=True), member("b", 2)))
    seen = sample(status(member("a", 1), member("b", 2, 5), member("c", 7, self=True, lastAppliedWallTime=EPOCH)))
    assert "replica_set.lag_seconds" not in seen
    assert seen["replica_set.healthy_members"] == 3
    seen = sample(status(member("a", 1, self=True), member("b", 2, 5), member("c", 7, lastAppliedWallTime=EPOCH)))
    assert seen["replica_set.most_lag_seconds"] == 5


def test_a_member_that_is_lost_falls_behind_from_what_it_had() -> None:
    sampler = ReplicaSetSampler()
    sample(status(member("a", 1, 60, self=True), member("b", 2, 60), member("c", 2, 60)), sampler)
    # As mongod shows a member that it does not reach.
    lost: dict[str, Any] = {"health": 0.0, "lastAppliedWallTime": EPOCH, "optimeDate": EPOCH}
    found = status(member("a", 1, self=True), member("b", 2), member("c", 8, **lost))
    seen = sample(found, sampler)
    assert seen["replica_set.most_lag_seconds"] == 60
    assert seen["replica_set.healthy_members"] == 2
    # Control: who has never seen it knows nothing, rather than 56 years.
    assert sample(found)["replica_set.most_lag_seconds"] == 0
    # What it had that nobody else got does not make the others late.
    ahead = status(member("a", 1, 5, self=True), member("b", 2, 5), member("c", 2))
    gone = status(member("a", 1, 5, self=True), member("b", 2, 5), member("c", 8, **lost))
    sample(ahead, sampler)
    assert sample(gone, sampler)["replica_set.most_lag_seconds"] == 0


def test_a_member_in_its_first_sync_and_one_that_has_left_are_not_behind() -> None:
    sampler = ReplicaSetSampler()
    sample(status(member("a", 1, self=True), member("gone", 2, 500)), sampler)
    seen = sample(status(member("a", 1, self=True), member("new", 5, lastAppliedWallTime=EPOCH)), sampler)
    assert "replica_set.most_lag_seconds" not in seen


def test_without_a_primary_that_is_said() -> None:
    seen = sample(status(member("a", 8, health=0.0), member("b", 2, self=True)))
    assert (seen["replica_set.has_primary"], seen["replica_set.is_primary"], seen["replica_set.state"]) == (0, 0, 2)


def test_elections_are_the_terms_that_have_begun() -> None:
    sampler = ReplicaSetSampler()
    assert "replica_set.elections" not in sample(status(member("a", 2, self=True), term=4), sampler)
    assert sample(status(member("a", 2, self=True), term=4), sampler)["replica_set.elections"] == 0
    assert sample(status(member("a", 1, self=True), term=6), sampler)["replica_set.elections"] == 2


@pytest.mark.parametrize(
    ("used", "window", "full"),
    [(10 * MEBIBYTE, HOUR, 100 * HOUR), (1000 * MEBIBYTE, HOUR, HOUR), (1010 * MEBIBYTE, HOUR, HOUR)],
    ids=["a new set", "full", "a little over"],
)
def test_the_window_of_a_full_oplog_tells_a_young_one_from_a_small_one(used: float, window: float, full: float) -> None:
    begin = NOW.replace(tzinfo=UTC).timestamp()
    oplog = Oplog(1000 * MEBIBYTE, used, begin, begin + window)
    seen = ReplicaSetSampler().sample({}, status(member("a", 1, self=True)), oplog)
    assert seen["replica_set.oplog_window_seconds"] == window
    assert seen["replica_set.oplog_full_window_seconds"] == pytest.approx(full)
    assert seen["replica_set.oplog_bytes_per_hour"] == pytest.approx(used)


def test_a_very_young_oplog_has_no_pace() -> None:
    seen = ReplicaSetSampler().sample({}, status(member("a", 1, self=True)), Oplog(1000.0, 10.0, 100.0, 110.0))
    assert seen["replica_set.oplog_window_seconds"] == 10
    assert "replica_set.oplog_full_window_seconds" not in seen
