"""Configurations on their way to a wish, and the majority that no step may cost."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.failure import FailureCode, NodeFailure
from agent.mongod import reconfig
from agent.mongod.quorum import Voter, check_leaving
from agent.mongod.reconfig import Member, Timing, first_config, leaves, next_config

MOST_STEPS = 60


def member(number: int, *, votes: int = 1, priority: float = 1.0) -> Member:
    return Member(number, f"10.0.0.{number}:27017", priority if votes else 0.0, votes)


def walk(current: reconfig.Document, wish: list[Member], timing: Timing) -> list[reconfig.Document]:
    """Every configuration from the one in force to the wish."""
    steps = [current]
    while (following := next_config(steps[-1], wish, timing)) is not None:
        steps.append(following)
        assert len(steps) < MOST_STEPS, "it does not arrive"
    return steps


def votes(config: reconfig.Document) -> dict[str, int]:
    return {one["host"]: one["votes"] for one in config["members"] if one["votes"]}


def test_a_new_set_grows_in_one_step() -> None:
    wish = [member(n) for n in range(3)]
    steps = walk(first_config("rs0", wish[0], Timing(200), "data") | {"version": 1}, wish, Timing(200))
    assert [len(step["members"]) for step in steps] == [1, 3]
    assert [step["version"] for step in steps] == [1, 2]


def test_timing_alone_is_one_step_and_nothing_is_none() -> None:
    config: dict[str, Any] = first_config("rs0", member(0), Timing(200), "data") | {"version": 1}
    slow = next_config(config, [member(0)], Timing())
    assert slow is not None
    assert slow["settings"] == {"heartbeatIntervalMillis": 2000, "electionTimeoutMillis": 10_000}
    assert slow["version"] == 2
    assert next_config(slow, [member(0)], Timing()) is None


def test_a_configuration_server_set_says_so() -> None:
    assert first_config("cfg", member(0), Timing(), "config")["configsvr"] is True
    assert "configsvr" not in first_config("rs0", member(0), Timing(), "data")


members = st.dictionaries(st.integers(0, 8), st.tuples(st.integers(0, 1), st.sampled_from([0.0, 1.0, 5.0])), min_size=1)


def wish_of(shape: dict[int, tuple[int, float]]) -> list[Member]:
    return [member(number, votes=one[0], priority=one[1]) for number, one in shape.items()]


@given(
    members.filter(lambda shape: any(v for v, _ in shape.values())),
    members.filter(lambda s: any(v for v, _ in s.values())),
)
def test_at_most_one_vote_changes_at_a_time(
    now: dict[int, tuple[int, float]], then: dict[int, tuple[int, float]]
) -> None:
    """But for a set of one member, which has no majority to lose when it grows."""
    documents = [
        {"_id": one.id, "host": one.host, "priority": one.priority, "votes": one.votes} for one in wish_of(now)
    ]
    current = {"_id": "rs0", "version": 3, "members": documents, "settings": Timing().document}
    steps = walk(current, wish_of(then), Timing())
    for before, after in itertools.pairwise(steps):
        assert after["version"] == before["version"] + 1
        changed = {host for host in votes(before).keys() | votes(after).keys() if _differs(before, after, host)}
        assert len(changed) <= 1 or len(before["members"]) == 1
        assert set(leaves(before, after)) == set(votes(before)) - set(votes(after))
        assert len(before["members"]) - len(after["members"]) <= 1
    assert votes(steps[-1]) == {one.host: 1 for one in wish_of(then) if one.votes}


def _differs(before: reconfig.Document, after: reconfig.Document, host: str) -> bool:
    return votes(before).get(host, 0) != votes(after).get(host, 0)


def test_a_host_does_not_change_its_id() -> None:
    config = first_config("rs0", member(0), Timing(), "data") | {"version": 1}
    other = Member(7, member(0).host, 1.0, 1)
    with pytest.raises(NodeFailure) as failure:
        next_config(config, [other], Timing())
    assert failure.value.field == "members.id"


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data(), st.booleans())
def test_no_member_leaves_that_the_majority_needs(healthy: list[bool], data: st.DataObject, removed: bool) -> None:
    """Against the plain count of what is left."""
    voters = [Voter(f"h{number}", well) for number, well in enumerate(healthy)]
    leaver = data.draw(st.sampled_from(voters))
    others = [voter for voter in voters if voter is not leaver]
    total = len(others) if removed else len(voters)
    enough = 2 * sum(voter.healthy for voter in others) > total
    try:
        check_leaving(voters, leaver.host, removed=removed)
        refused = False
    except NodeFailure as failure:
        refused = failure.code is FailureCode.QUORUM_AT_RISK
    assert refused != enough


def test_who_has_no_vote_may_always_leave() -> None:
    check_leaving([Voter("a", True), Voter("b", False)], "c")
