"""A real set of three: lag, a lost member, an election, as the members themselves see them."""

import signal
import time

import pytest
from pymongo import WriteConcern
from pymongo.errors import PyMongoError

from collector.mongod import MongodSampler, read
from tests.collector.conftest import MakeMongod
from tests.collector.mongod import Client, Mongod, initiate
from tests.waiting import wait_until


class Eyes:
    """One member's client and sampler."""

    def __init__(self, member: Mongod) -> None:
        self.member = member
        self.client: Client = member.client()
        self._sampler = MongodSampler()

    def look(self) -> dict[str, float]:
        documents = read(self.client)
        return self._sampler.sample(
            time.monotonic(), documents.server_status, documents.replset_status, documents.oplog
        )


@pytest.fixture
def three(make_mongod: MakeMongod) -> list[Eyes]:
    """Primary first."""
    members = [make_mongod("--replSet", "rs0") for _ in range(3)]
    initiate(*members)
    return [Eyes(member) for member in members]


def test_states_lag_a_lost_member_and_a_failover(three: list[Eyes]) -> None:
    primary, secondary, other = three
    primary.client.shop.orders.insert_one({"number": 1})
    for eyes in three:
        eyes.look()

    seen = wait_until(lambda: _settled(primary), within=20)
    assert (seen["replica_set.state"], seen["replica_set.is_primary"], seen["replica_set.has_primary"]) == (1, 1, 1)
    assert seen["replica_set.members"] == seen["replica_set.healthy_members"] == 3
    assert "replica_set.lag_seconds" not in seen
    term = seen["replica_set.term"]
    seen = secondary.look()
    assert (seen["replica_set.state"], seen["replica_set.is_primary"]) == (2, 0)
    assert seen["replica_set.lag_seconds"] <= 2
    assert seen["replica_set.elections"] == 0
    wait_until(lambda: _settled(primary) and secondary.look().get("replica_set.applied_per_second"), within=20)

    # A frozen secondary is seen by those who write on: as lag, and as a member that does not serve.
    with other.member.frozen():
        wait_until(lambda: _at_least(primary, "replica_set.most_lag_seconds", 2), within=40)
        wait_until(lambda: primary.look()["replica_set.healthy_members"] == 2, within=40)
    wait_until(lambda: _settled(primary), within=40)
    for eyes in three:
        eyes.look()

    # The primary dies: within 15 seconds the others have seen an election, and that one member is behind.
    died, elections = time.monotonic(), dict.fromkeys((secondary, other), 0.0)
    primary.member.end(signal.SIGKILL)
    led = wait_until(lambda: _new_primary(elections), within=30)
    assert led is not None
    wait_until(lambda: _at_least(led, "replica_set.most_lag_seconds", 0.001), within=30)
    assert time.monotonic() - died <= 15
    assert elections[led] >= 1
    seen = led.look()
    assert seen["replica_set.term"] > term
    assert seen["replica_set.elections_won"] >= 1
    assert seen["replica_set.healthy_members"] == 2


def _settled(primary: Eyes) -> dict[str, float]:
    seen = _at_least(primary, "replica_set.healthy_members", 3)
    return seen if seen.get("replica_set.most_lag_seconds", 99) <= 1 else {}


def _at_least(eyes: Eyes, name: str, least: float) -> dict[str, float]:
    """What the member sees once the value is large enough, else nothing. It writes, so that others can be behind."""
    beat = eyes.client.shop.beat.with_options(write_concern=WriteConcern(1))
    try:
        beat.insert_one({})
    except PyMongoError:
        return {}  # a slow machine: an election is on
    seen = eyes.look()
    return seen if seen.get(name, 0) >= least else {}


def _new_primary(elections: dict[Eyes, float]) -> Eyes | None:
    """Who has become primary of these members, whose looks are added up."""
    found = None
    for eyes in elections:
        seen = eyes.look()
        elections[eyes] += seen["replica_set.elections"]
        found = eyes if seen["replica_set.is_primary"] else found
    return found
