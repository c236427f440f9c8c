"""A failover as the samples of three nodes tell it, at the usual pace."""

import asyncio
import time

import psutil
import pytest
from wap.agent.v1 import command_pb2

from tests.agent.conftest import MakeMachine
from tests.agent.machine import Machine
from tests.agent.wire import Telemetry, Wire
from tests.waiting import eventually

PASSWORD = "canary-password-33871"


@pytest.fixture
async def members(other_end: Wire, make_machine: MakeMachine) -> list[Machine]:
    """Three members of a set, the first of them primary."""
    machines = [make_machine(other_end, ordinal) for ordinal in range(3)]
    for machine in machines:
        await machine.boot()
    await asyncio.gather(*(machine.connected() for machine in machines))
    await asyncio.gather(*(machine.start_mongod() for machine in machines))
    first, wanted = machines[0], [machine.member() for machine in machines]
    await first.initiate()
    body = command_pb2.ConfigureReplicaSet(
        replica_set="rs0", members=wanted, heartbeat_interval_millis=500, election_timeout_millis=2000
    )
    await first.order(configure_replica_set=body)
    await first.order(await_replica_set=command_pb2.AwaitReplicaSet(replica_set="rs0", healthy_voters=3))
    return machines


async def test_a_failover_is_seen_as_election_and_lag_within_fifteen_seconds(
    members: list[Machine], other_end: Wire
) -> None:
    frozen, others = members[0], [other_end.peers[machine.id].telemetry for machine in members[1:]]
    await eventually(lambda: all(_newest(heard, "replica_set.healthy_members") == 3 for heard in others), within=40)
    assert [_newest(heard, "replica_set.has_primary") for heard in others] == [1, 1]
    terms = [_newest(heard, "replica_set.term") for heard in others]
    psutil.Process(frozen.mongod_pid()).suspend()
    began = time.monotonic()
    before = [len(heard.samples()) for heard in others]

    def elected() -> bool:
        rows = [row for heard, start in zip(others, before, strict=True) for row in heard.samples()[start:]]
        won = any(row.get("replica_set.is_primary") == 1 for row in rows)
        return won and any(row.get("replica_set.elections", 0) >= 1 for row in rows)

    await eventually(elected, within=20)
    assert time.monotonic() - began < 15
    assert max(_newest(heard, "replica_set.term") for heard in others) > max(terms)
    await eventually(lambda: any(_newest(heard, "replica_set.most_lag_seconds") > 5 for heard in others), within=30)
    await eventually(lambda: all(_newest(heard, "replica_set.healthy_members") == 2 for heard in others), within=20)
    psutil.Process(frozen.mongod_pid()).resume()
    await eventually(lambda: all(_newest(heard, "replica_set.healthy_members") == 3 for heard in others), within=40)


def _newest(heard: Telemetry, name: str) -> float:
    return next((row[name] for row in reversed(heard.samples()) if name in row), -1.0)
