"""When a dead mongod is started again: times and bytes in, a decision out."""

import pytest

from agent.mongod.restart_policy import (
    BACKOFF_SECONDS,
    NEEDED_BYTES,
    STABLE_SECONDS,
    TRIES_WHILE_FULL,
    Death,
    Hold,
    Restart,
    RestartPolicy,
)

PLENTY = 10 * NEEDED_BYTES


def died(policy: RestartPolicy, at: float, uptime: float = 1.0, *, full: bool = False, free: int = PLENTY) -> None:
    policy.died(Death(at, uptime, full, free))


def test_without_a_death_it_starts_at_once() -> None:
    assert RestartPolicy().decide(PLENTY) == Restart(0.0)
    assert RestartPolicy().decide(0) == Restart(0.0)


def test_the_pause_grows_and_stays_at_its_longest() -> None:
    policy = RestartPolicy()
    pauses = []
    for number in range(8):
        died(policy, at=100.0 * number)
        decision = policy.decide(PLENTY)
        assert isinstance(decision, Restart)
        pauses.append(decision.at - 100.0 * number)
    assert pauses == [*BACKOFF_SECONDS, BACKOFF_SECONDS[-1], BACKOFF_SECONDS[-1]]


@pytest.mark.parametrize(("uptime", "pause"), [(STABLE_SECONDS - 1, 4.0), (STABLE_SECONDS, 1.0)])
def test_a_mongod_that_ran_for_long_begins_anew(uptime: float, pause: float) -> None:
    policy = RestartPolicy()
    died(policy, at=0)
    died(policy, at=10)
    died(policy, at=100, uptime=uptime)
    assert policy.decide(PLENTY) == Restart(100 + pause)


def test_an_order_wipes_the_slate() -> None:
    policy = RestartPolicy()
    for at in range(5):
        died(policy, at=at, full=True, free=0)
    policy.reset()
    assert policy.decide(0) == Restart(0.0)


@pytest.mark.parametrize("full", [True, False], ids=["mongod said so", "the disk says so"])
def test_on_a_full_disk_it_tries_three_times_and_then_holds(full: bool) -> None:
    policy, free = RestartPolicy(), NEEDED_BYTES - 1
    for number in range(1, TRIES_WHILE_FULL + 1):
        died(policy, at=number, full=full, free=free)
        assert isinstance(policy.decide(free), Restart)
    died(policy, at=10, full=full, free=free)
    held = policy.decide(free)
    assert isinstance(held, Hold)
    assert held.problem.startswith("disk full: 99 MiB free")


def test_with_space_it_starts_at_once_and_counts_afresh() -> None:
    policy = RestartPolicy()
    for number in range(TRIES_WHILE_FULL + 1):
        died(policy, at=number, full=True, free=0)
    assert isinstance(policy.decide(NEEDED_BYTES - 1), Hold)
    assert policy.decide(NEEDED_BYTES) == Restart(0.0)
    died(policy, at=50, full=True, free=0)
    assert policy.decide(0) == Restart(51.0)


def test_a_mongod_that_wanted_more_than_there_was_needs_more() -> None:
    policy, free = RestartPolicy(), 3 * NEEDED_BYTES
    for number in range(TRIES_WHILE_FULL + 1):
        died(policy, at=number, full=True, free=free)
    assert isinstance(policy.decide(free + NEEDED_BYTES - 1), Hold)
    assert policy.decide(free + NEEDED_BYTES) == Restart(0.0)
