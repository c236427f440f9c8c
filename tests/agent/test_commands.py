"""Orders: carried out once whatever happens to agent and stream, and refused with a reason when they are wrong."""

import asyncio
import functools
import hashlib
import math
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pymongo.errors
import pytest
from google.protobuf import timestamp_pb2
from wap.agent.v1 import command_pb2
from wap.type.v1 import cluster_pb2, failure_pb2

from tests.agent.machine import Machine
from tests.agent.wire import MONGODB_PORT, Wire, command
from tests.waiting import eventually

Code = failure_pb2.FailureCode
FIRST, SECOND = "first-password-1", "second-password-2"
# What may change though an order was refused: the journal says that it was there.
NOTES = ("journal.db", "telemetry.db", "agent.log", "console.log")


def code_of(result: command_pb2.CommandResult) -> str:
    return Code.Name(result.failure.code).removeprefix("FAILURE_CODE_") if result.HasField("failure") else ""


def contents(root: Path) -> dict[str, str]:
    """SHA-256 of every file of the node but its notes."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(NOTES)
    }


def volume(machine: Machine) -> command_pb2.PrepareVolume:
    return command_pb2.PrepareVolume(volume_id=machine.volume_id)


async def test_a_repeat_is_answered_from_the_journal(machine: Machine) -> None:
    first = await machine.order("one", prepare_volume=volume(machine))
    again = await machine.order("one", prepare_volume=volume(machine))
    assert (first.replayed, again.replayed) == (False, True)
    again.replayed = False
    assert again == first


async def test_the_same_command_twice_at_once_is_carried_out_once(machine: Machine, other_end: Wire) -> None:
    order = command("twice", create_member_key=command_pb2.CreateMemberKey())
    other_end.deliver(machine.id, order)
    other_end.deliver(machine.id, order)
    await machine.order("after", prepare_volume=volume(machine))
    results = other_end.peers[machine.id].results("twice")
    assert [result.replayed for result in results if not result.replayed] == [False]
    assert machine.log().count('"command begins", "command": "twice"') == 1


async def test_an_order_that_must_not_be_carried_out_changes_nothing(machine: Machine, other_end: Wire) -> None:
    await machine.order("known", create_member_key=command_pb2.CreateMemberKey())
    before = contents(machine.root)
    unknown = command("unknown")
    unknown.MergeFromString(b"\xe2\x03\x00")  # field 60: a command of a later release
    distant = command("distant", prepare_volume=volume(machine))
    distant.deadline.CopyFrom(timestamp_pb2.Timestamp(seconds=2**60))
    wrong = {
        "STALE_EPOCH": command("stale", epoch=4, prepare_volume=volume(machine)),
        "DEADLINE_PASSED": command("late", within=-1, prepare_volume=volume(machine)),
        "COMMAND_ID_REUSED": command("known", prepare_volume=volume(machine)),
        "UNSUPPORTED_COMMAND": unknown,
        "INVALID_ARGUMENT": distant,
    }
    for code, order in wrong.items():
        result = await other_end.order(machine.id, order)
        assert code_of(result) == code
        assert result.failure.field
        assert result.failure.message
    assert contents(machine.root) == before
    assert not machine.paths.volume(machine.volume_id).exists()
    right = await machine.order("right", prepare_volume=volume(machine))  # the control: nothing else was in the way
    assert right.prepare_volume.total_bytes > 0


async def test_a_refused_order_may_come_again_when_it_is_right(machine: Machine, other_end: Wire) -> None:
    """A take-over repeats the commands of the leader before it under its own epoch and deadline."""
    await machine.order(prepare_volume=volume(machine))
    stale = command("again", epoch=1, create_member_key=command_pb2.CreateMemberKey())
    assert code_of(await other_end.order(machine.id, stale)) == "STALE_EPOCH"
    stale.epoch = 6
    assert code_of(await other_end.order(machine.id, stale)) == ""
    fifth = command("fifth", epoch=5, create_member_key=command_pb2.CreateMemberKey())
    await machine.end_agent()
    machine.start_agent()
    await eventually(lambda: other_end.peers[machine.id].sessions == 2, within=20)
    await machine.connected()
    assert code_of(await other_end.order(machine.id, fifth)) == "STALE_EPOCH", "the epoch outlives the agent"


async def test_bad_ids_are_refused(machine: Machine, other_end: Wire) -> None:
    peer = other_end.peers[machine.id]
    for bad in ("", "x" * 256, "a\x1b[31mb"):
        order = command("placeholder", prepare_volume=volume(machine))
        order.id = bad
        other_end.deliver(machine.id, order)
        result = (await eventually(functools.partial(peer.results, bad), within=10))[0]
        assert (code_of(result), result.failure.field) == ("INVALID_ARGUMENT", "id")
        assert len(result.failure.given) <= 80
        assert result.failure.given.isprintable()


LONG = "a" * 65536
MEMBER: dict[str, Any] = {"id": 0, "host": "127.0.0.1:27017", "priority": 1.0, "votes": 1}
BAD_STARTS: list[tuple[str, dict[str, Any]]] = [
    ("distribution.version", {"distribution": {"version": "latest", "directory": "/opt/mongodb"}}),
    ("distribution", {"distribution": {"version": "6.0.5"}}),
    ("distribution", {"distribution": {"version": "6.0.5", "directory": "/a", "url": "https://b/c"}}),
    ("distribution.directory", {"distribution": {"version": "6.0.5", "directory": "opt/mongodb"}}),
    ("distribution.directory", {"distribution": {"version": "6.0.5", "directory": "/opt/../../bin"}}),
    ("distribution.directory", {"distribution": {"version": "6.0.5", "directory": "/" + LONG}}),
    ("distribution.url", {"distribution": {"version": "6.0.5", "url": "http://host/a.tgz", "sha256": "0" * 64}}),
    ("distribution.url", {"distribution": {"version": "6.0.5", "url": "file:///etc/passwd", "sha256": "0" * 64}}),
    ("distribution.sha256", {"distribution": {"version": "6.0.5", "url": "https://host/a.tgz", "sha256": "xyz"}}),
    ("volume_id", {"volume_id": "../../etc"}),
    ("replica_set", {"replica_set": ""}),
    ("replica_set", {"replica_set": "rs0; rm -rf /"}),
    ("replica_set", {"replica_set": "rs\u0430"}),
    ("role", {"role": cluster_pb2.REPLICA_SET_ROLE_UNSPECIFIED}),
    ("bind_ip", {"bind_ip": "0.0.0.0"}),
    ("bind_ip", {"bind_ip": "::"}),
    ("bind_ip", {"bind_ip": "127.0.0.1,0.0.0.0"}),
    ("bind_ip", {"bind_ip": "224.0.0.1"}),
    ("bind_ip", {"bind_ip": "localhost"}),
    ("port", {"port": 0}),
    ("port", {"port": 1023}),
    ("port", {"port": 65536}),
    ("cache_gib", {"cache_gib": 0.1}),
    ("cache_gib", {"cache_gib": -1.0}),
    ("cache_gib", {"cache_gib": math.nan}),
    ("cache_gib", {"cache_gib": math.inf}),
    ("oplog_mib", {"oplog_mib": 2**32 - 1}),
    ("keyfile", {"keyfile": "short"}),
    ("keyfile", {"keyfile": "A" * 1025}),
    ("keyfile", {"keyfile": "not base64 at all!"}),
    ("certificate_pem", {"certificate_pem": "nothing"}),
    ("certificate_pem", {"certificate_pem": LONG * 2}),
    ("ca_pem", {"ca_pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}),
]
BAD_MEMBERS: list[tuple[str, list[dict[str, Any]]]] = [
    ("members", []),
    ("members", [MEMBER | {"id": n, "host": f"h:{1000 + n}", "priority": 0, "votes": 0} for n in range(51)]),
    ("members.votes", [MEMBER | {"id": n, "host": f"h{n}:27017"} for n in range(8)]),
    ("members.votes", [MEMBER | {"priority": 0, "votes": 0}]),
    ("members.host", [MEMBER, MEMBER | {"id": 1}]),
    ("members.id", [MEMBER, MEMBER | {"host": "127.0.0.2:27017"}]),
    ("members[0].host", [MEMBER | {"host": "127.0.0.1"}]),
    ("members[0].host", [MEMBER | {"host": "a b:27017"}]),
    ("members[0].host", [MEMBER | {"host": "127.0.0.1:99999"}]),
    ("members[0].id", [MEMBER | {"id": 256}]),
    ("members[0].votes", [MEMBER | {"votes": 2}]),
    ("members[0].priority", [MEMBER | {"priority": 1001}]),
    ("members[0].priority", [MEMBER | {"priority": math.nan}]),
    ("members[1].priority", [MEMBER, MEMBER | {"id": 1, "host": "h:27017", "votes": 0}]),
]
BAD_USERS: list[tuple[str, dict[str, Any]]] = [
    ("username", {"username": ""}),
    ("username", {"username": "a\0b"}),
    ("username", {"username": "$where"}),
    ("password", {"password": "short"}),
    ("password", {"password": LONG}),
    ("password", {"password": "tab\tand\nline"}),
    ("roles", {"roles": [{"role": "read", "database": "d"}] * 65}),
    ("roles[0].role", {"roles": [{"role": "", "database": "admin"}]}),
    ("roles[0].database", {"roles": [{"role": "read", "database": "a.b$c"}]}),
]


def bad_orders(machine: Machine, good: command_pb2.StartMongod) -> list[tuple[str, dict[str, Any]]]:
    """(field, command body) for every row above and the few that need no table."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("volume_id", {"prepare_volume": command_pb2.PrepareVolume(volume_id=bad)})
        for bad in ("", "vol-", "vol-xyz", "../../etc", "vol-00000000/..", "vol-00000000\0", LONG)
    ]
    for field, changes in BAD_STARTS:
        order = command_pb2.StartMongod()
        order.CopyFrom(good)
        for name in changes:
            order.ClearField(name)  # type: ignore[arg-type]
        order.MergeFrom(command_pb2.StartMongod(**changes))
        rows.append((field, {"start_mongod": order}))
    for field, members in BAD_MEMBERS:
        body = command_pb2.ConfigureReplicaSet(
            replica_set="rs0", members=[command_pb2.ReplicaSetMember(**member) for member in members]
        )
        rows.append((field, {"configure_replica_set": body}))
    one = command_pb2.ReplicaSetMember(**MEMBER)
    for name, millis, other in (("heartbeat_interval_millis", 99, 60_001), ("election_timeout_millis", 499, 600_001)):
        rows += [
            (name, {"configure_replica_set": command_pb2.ConfigureReplicaSet(replica_set="rs0", members=[one], **bad)})
            for bad in ({name: millis}, {name: other})
        ]
    rows += [
        ("replica_set", {"initiate_replica_set": command_pb2.InitiateReplicaSet(member=one)}),
        ("member[0].host", {"initiate_replica_set": command_pb2.InitiateReplicaSet(replica_set="rs0")}),
        ("replica_set", {"await_replica_set": command_pb2.AwaitReplicaSet(healthy_voters=1)}),
    ]
    rows += [
        ("healthy_voters", {"await_replica_set": command_pb2.AwaitReplicaSet(replica_set="rs0", healthy_voters=bad)})
        for bad in (0, 8)
    ]
    good_user = {"username": "admin", "password": FIRST, "roles": [{"role": "root", "database": "admin"}]}
    for field, changes in BAD_USERS:
        values = good_user | changes
        roles = [command_pb2.DatabaseRole(**role) for role in values["roles"]]
        user = command_pb2.EnsureUser(username=values["username"], password=values["password"], roles=roles)
        rows.append((field, {"ensure_user": user}))
    return rows


async def test_every_bad_field_is_named_and_changes_nothing(machine: Machine, other_end: Wire) -> None:
    await machine.order(prepare_volume=volume(machine))
    good = await machine.start_order()
    before = contents(machine.root)
    for field, body in bad_orders(machine, good):
        failure = await machine.refusal(**body)
        given = {name: str(value)[:120] for name, value in body.items()}
        assert (Code.Name(failure.code), failure.field) == ("FAILURE_CODE_INVALID_ARGUMENT", field), given
        assert failure.allowed, given
        assert len(failure.given) <= 80
        assert failure.given.isprintable()
        assert FIRST not in str(failure)
    assert contents(machine.root) == before
    assert machine.mongod_pid() == 0
    await _check_foreign_certificates(machine, good)


async def _check_foreign_certificates(machine: Machine, good: command_pb2.StartMongod) -> None:
    """A certificate for another key, or for another address, would only show when members dial each other."""
    foreign = Wire()
    csr = (await machine.order(create_member_key=command_pb2.CreateMemberKey())).create_member_key.csr_pem
    elsewhere = command_pb2.StartMongod()
    elsewhere.CopyFrom(good)
    elsewhere.certificate_pem = foreign.cluster.issue_member(csr, "127.0.0.99", [])
    other_key = command_pb2.StartMongod()
    other_key.CopyFrom(good)
    other_key.certificate_pem = foreign.cluster.ca_pem
    for order in (elsewhere, other_key):
        failure = await machine.refusal(start_mongod=order)
        assert failure.field == "certificate_pem"
    assert machine.mongod_pid() == 0


async def test_orders_without_a_mongod_say_so(machine: Machine) -> None:
    member = command_pb2.ReplicaSetMember(**MEMBER)
    for body in (
        {"initiate_replica_set": command_pb2.InitiateReplicaSet(replica_set="rs0", member=member)},
        {"configure_replica_set": command_pb2.ConfigureReplicaSet(replica_set="rs0", members=[member])},
        {"await_replica_set": command_pb2.AwaitReplicaSet(replica_set="rs0", healthy_voters=1)},
        {"ensure_user": command_pb2.EnsureUser(username="admin", password=FIRST)},
    ):
        failure = await machine.refusal(**body)
        assert failure.code == Code.FAILURE_CODE_MONGOD_UNREACHABLE
        assert failure.retryable
    stopped = await machine.order(stop_mongod=command_pb2.StopMongod())
    assert stopped.stop_mongod.exit_code == 0


async def test_a_mongod_that_cannot_start_says_why_and_is_not_the_goal(machine: Machine) -> None:
    await machine.order(prepare_volume=volume(machine))
    order = await machine.start_order()
    order.distribution.version = "6.0.6"
    wrong_version = await machine.refusal(start_mongod=order)
    assert (wrong_version.code, wrong_version.given) == (Code.FAILURE_CODE_DISTRIBUTION_INVALID, "6.0.5")
    order.distribution.version = "6.0.5"
    with socket.create_server((machine.ip, MONGODB_PORT)):
        taken = await machine.refusal(start_mongod=order)
    assert taken.code == Code.FAILURE_CODE_MONGOD_START_FAILED
    assert "port is in use (exit code 48)" in taken.message
    assert not machine.paths.goal.exists()
    (machine.disk / "db").rename(machine.disk / "moved")
    (machine.disk / "db").write_text("in the way of the data directory")
    in_the_way = await machine.refusal(start_mongod=order)
    assert in_the_way.code == Code.FAILURE_CODE_VOLUME_UNUSABLE
    assert "db" in in_the_way.message
    (machine.disk / "db").unlink()
    assert (await machine.order(start_mongod=order)).start_mongod.version == "6.0.5"


async def test_a_command_that_waits_says_for_what_and_ends_at_its_deadline(machine: Machine, other_end: Wire) -> None:
    await machine.start_mongod()
    wait = command_pb2.AwaitReplicaSet(replica_set="rs0", healthy_voters=1)
    failure = await machine.refusal(within=1.5, await_replica_set=wait)
    assert failure.code == Code.FAILURE_CODE_NOT_HEALTHY_IN_TIME
    assert "rs0 to be initiated" in failure.message
    assert [p.waiting_for for p in other_end.peers[machine.id].said("command_progress")][-1] == "rs0 to be initiated"


async def test_a_running_command_answers_in_the_next_session(machine: Machine, other_end: Wire) -> None:
    await machine.start_mongod()
    peer = other_end.peers[machine.id]
    wait = command("wait", await_replica_set=command_pb2.AwaitReplicaSet(replica_set="rs0", healthy_voters=1))
    other_end.deliver(machine.id, wait)
    await eventually(lambda: peer.said("command_progress"), within=10)
    other_end.cut(machine.id)
    await eventually(lambda: peer.sessions == 2 and peer.connected, within=20)
    other_end.deliver(machine.id, wait)
    await machine.initiate()
    result = (await eventually(lambda: peer.results("wait"), within=20))[0]
    assert result.await_replica_set.primary == machine.address
    assert machine.log().count('"command begins", "command": "wait"') == 1


async def test_an_agent_killed_between_accepted_and_result_starts_mongod_once(
    machine: Machine, other_end: Wire
) -> None:
    await machine.order(prepare_volume=volume(machine))
    order = command("start", start_mongod=await machine.start_order())
    peer = other_end.peers[machine.id]
    other_end.deliver(machine.id, order)
    pid = await eventually(machine.mongod_pid, within=20, every=0.005)
    await machine.end_agent(signal.SIGKILL)
    assert peer.said("command_accepted")[-1].command_id == "start"
    assert not peer.results("start"), "the agent was quicker than the test"
    born = psutil.Process(pid).create_time()
    machine.start_agent()
    await eventually(lambda: peer.sessions == 2 and peer.connected, within=20)
    result = await other_end.order(machine.id, order)
    assert (result.start_mongod.pid, result.replayed) == (pid, False)
    assert psutil.Process(pid).create_time() == born
    repeat = await other_end.order(machine.id, order)
    assert (repeat.start_mongod.pid, repeat.replayed) == (pid, True)


@pytest.mark.parametrize("journal", ["kept", "lost"])
async def test_an_old_order_that_comes_again_does_not_undo_a_newer_one(
    machine: Machine, other_end: Wire, journal: str
) -> None:
    """The journal's answer is the protection: without the journal the old password is back."""
    await machine.start_mongod()
    await machine.initiate()
    roles = [command_pb2.DatabaseRole(role="root", database="admin")]
    old = command("old", ensure_user=command_pb2.EnsureUser(username="admin", password=FIRST, roles=roles))
    new = command("new", ensure_user=command_pb2.EnsureUser(username="admin", password=SECOND, roles=roles))
    for order in (old, new):
        assert code_of(await other_end.order(machine.id, order)) == ""
    await machine.end_agent(signal.SIGKILL)
    if journal == "lost":
        for path in machine.paths.state.glob("journal.db*"):
            path.unlink()
    machine.start_agent()
    peer = other_end.peers[machine.id]
    await eventually(lambda: peer.sessions == 2 and peer.connected, within=20)
    again = await other_end.order(machine.id, old)
    assert again.replayed == (journal == "kept")
    assert _may_log_in(machine, SECOND) == (journal == "kept")
    assert _may_log_in(machine, FIRST) == (journal == "lost")


def _may_log_in(machine: Machine, password: str) -> bool:
    with machine.client(username="admin", password=password) as client:
        try:
            client.admin.command("ping")
        except pymongo.errors.OperationFailure:
            return False
    return True


async def test_changes_wait_for_each_other_and_heartbeats_do_not(machine: Machine, other_end: Wire) -> None:
    await machine.order(prepare_volume=volume(machine))
    peer = other_end.peers[machine.id]
    start = command("first", start_mongod=await machine.start_order())
    other_end.deliver(machine.id, start)
    other_end.deliver(machine.id, command("second", create_member_key=command_pb2.CreateMemberKey()))
    async with asyncio.timeout(30):
        await eventually(lambda: peer.results("first") and peer.results("second"), within=30)
    ends = {m.command_result.command_id: at for at, m in peer.heard if m.HasField("command_result")}
    assert ends["first"] <= ends["second"]
    waits = {p.command_id: p.waiting_for for p in peer.said("command_progress")}
    assert waits["second"] == "another command of this node to end"
    assert peer.said("heartbeat")
