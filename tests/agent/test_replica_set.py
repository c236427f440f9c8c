"""From a boot script to a replica set with users, as operations order it from agents of a real control plane."""

import asyncio
import stat

import psutil
import pymongo
import pymongo.errors
import pytest
from wap.agent.v1 import command_pb2

from controlplane.domain.failure import AgentFailure, FailureCode
from tests.agent.conftest import MakeMachine
from tests.agent.control import ControlPlane
from tests.agent.machine import Machine
from tests.agent.wire import Wire
from tests.waiting import eventually

PASSWORD = "canary-password-81723"


async def test_three_nodes_become_a_replica_set_that_guards_its_majority(
    control: ControlPlane, make_machine: MakeMachine
) -> None:
    certify = Wire()
    machines = [make_machine(control, ordinal, certify) for ordinal in range(3)]
    for machine in machines:
        await machine.boot()
    await asyncio.gather(*(machine.connected() for machine in machines))
    await asyncio.gather(*(machine.start_mongod() for machine in machines))
    await _build(machines)
    _check_access(machines)
    _check_secrets(machines, certify)
    await _check_quorum_guard(control, machines)


async def _build(machines: list[Machine]) -> None:
    first, members = machines[0], [machine.member() for machine in machines]
    await first.initiate()
    quick = command_pb2.ConfigureReplicaSet(replica_set="rs0", members=members, heartbeat_interval_millis=200)
    await first.order(configure_replica_set=quick)
    wait = command_pb2.AwaitReplicaSet(replica_set="rs0", healthy_voters=3)
    assert (await first.order(await_replica_set=wait)).await_replica_set.primary == first.address
    roles = [command_pb2.DatabaseRole(role="root", database="admin")]
    await first.order(ensure_user=command_pb2.EnsureUser(username="admin", password=PASSWORD, roles=roles))
    settled = command_pb2.ConfigureReplicaSet(replica_set="rs0", members=members)
    version = (await first.order(configure_replica_set=settled)).configure_replica_set.config_version
    again = await first.order(configure_replica_set=settled)
    assert again.configure_replica_set.config_version == version, "nothing to change, so nothing was changed"


def _check_access(machines: list[Machine]) -> None:
    with machines[0].client(username="admin", password=PASSWORD) as client:
        majority = pymongo.WriteConcern("majority")
        client["proof"].get_collection("c", write_concern=majority).insert_one({"_id": 1})
        config = client.admin.command("replSetGetConfig")["config"]
    assert config["settings"]["heartbeatIntervalMillis"] == 2000
    for machine in machines:
        with machine.client() as stranger, pytest.raises(pymongo.errors.OperationFailure):
            stranger["proof"]["c"].find_one()


def _check_secrets(machines: list[Machine], certify: Wire) -> None:
    """Neither logs nor process lists show what must not be seen, and files that hold it are their owner's alone."""
    for machine in machines:
        key = machine.paths.member_key.read_text().splitlines()[1]
        seen = machine.log() + (machine.root / "console.log").read_text() + machine.paths.mongod_log.read_text()
        mongod = psutil.Process(machine.mongod_pid())
        assert machine.agent is not None
        seen += " ".join([*mongod.cmdline(), *mongod.environ().values()])
        seen += " ".join(psutil.Process(machine.agent.pid).cmdline())
        for secret in (PASSWORD, certify.keyfile, key):
            assert secret not in seen
        for path in (machine.paths.keyfile, machine.paths.member_pem, machine.paths.member_key, machine.paths.identity):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(machine.paths.state.stat().st_mode) == 0o700
        assert certify.keyfile not in machine.paths.goal.read_text()
        assert PASSWORD.encode() not in machine.paths.journal.read_bytes()


async def _check_quorum_guard(control: ControlPlane, machines: list[Machine]) -> None:
    """With one of three gone the next may not stop, unless the set goes as a whole."""
    third, second = machines[2], machines[1]
    await third.order(stop_mongod=command_pb2.StopMongod())
    assert third.mongod_pid() == 0

    async def noticed() -> bool:
        report = (await control.node(second.id)).report or {}
        return [member.get("healthy", False) for member in report.get("members", [])].count(True) == 2

    await eventually(noticed, within=20)
    with pytest.raises(AgentFailure) as refused:
        await second.order(stop_mongod=command_pb2.StopMongod())
    assert refused.value.code is FailureCode.QUORUM_AT_RISK
    assert second.mongod_pid()
    await second.order(stop_mongod=command_pb2.StopMongod(ignore_quorum=True))
    assert second.mongod_pid() == 0
