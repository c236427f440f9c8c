"""Staying in touch: enrolment once, heartbeats, reconnecting, refusals, and certificates that change while all goes on."""

import itertools
import json
import signal
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2, report_pb2, stream_pb2

from agent import identity as identities
from agent.failure import NodeFailure
from agent.settings import load_config
from controlplane.domain.failure import AgentFailure, FailureCode, Refused
from controlplane.store import nodes
from tests.agent.conftest import MakeMachine
from tests.agent.control import ControlPlane, control_plane
from tests.agent.machine import Machine
from tests.agent.wire import HEARTBEAT_SECONDS, Wire
from tests.waiting import eventually

SHORT_LIFE = timedelta(seconds=5)


async def test_enrolment_leaves_an_identity_and_no_token(machine: Machine, other_end: Wire) -> None:
    assert "join_token" not in json.loads(machine.paths.config.read_text())
    assert machine.paths.config.parent.exists()
    identity = identities.load(machine.paths.identity)
    assert identity is not None
    assert identity.enrolled
    assert not identity.problem()
    for path in (machine.paths.identity, machine.paths.config, machine.paths.journal, machine.paths.lock):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(machine.paths.state.stat().st_mode) == 0o700
    hello = other_end.peers[machine.id].said("hello")[0]
    assert (hello.protocol, hello.epoch) == (1, 0)
    assert hello.agent_version
    assert hello.host_name


async def test_a_second_use_of_a_join_token_is_refused_and_not_tried_on_and_on(
    control: ControlPlane, make_machine: MakeMachine
) -> None:
    first, thief = make_machine(control), make_machine(control, 1)
    await first.boot()
    await first.connected()
    await thief.boot(**first.joined_with)
    await eventually(lambda: "this node cannot enrol" in thief.log(), within=20)
    assert "JOIN_REFUSED" in thief.log()
    assert first.joined_with["join_token"] not in first.log() + thief.log()
    assert thief.log().count("cannot enrol") == 1
    assert thief.agent is not None
    assert thief.agent.poll() is None, "it waits, rather than being started again and again"
    assert (await control.node(first.id)).agent_state == "CONNECTED"


@pytest.mark.parametrize("status", ["passing", "final"])
async def test_only_a_final_refusal_ends_the_attempts_to_enrol(
    other_end: Wire, make_machine: MakeMachine, status: str
) -> None:
    code = FailureCode.UNAVAILABLE if status == "passing" else FailureCode.JOIN_REFUSED
    other_end.join_refusal = Refused(code, "not now")
    machine = make_machine(other_end)
    await machine.boot()
    event = "enrolment has to wait" if status == "passing" else "this node cannot enrol"
    await eventually(lambda: event in machine.log(), within=20)
    other_end.join_refusal = None
    if status == "passing":
        await machine.connected()
    else:
        assert not other_end.peers[machine.id].connected
        assert json.loads(machine.paths.config.read_text())["join_token"], "a token that was not spent is kept"


async def test_one_agent_per_node(machine: Machine) -> None:
    first = machine.agent
    assert first is not None
    machine.start_agent()
    second = machine.agent
    machine.agent = first
    assert second is not None
    assert await eventually(second.poll, within=20) == 1
    assert "another agent already runs" in (machine.root / "console.log").read_text()
    assert first.poll() is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ({"node_id": "../x"}, "has a bad field node_id"),
        ({"enroll_endpoint": "nowhere"}, "has a bad field enroll_endpoint"),
        ({"ca_pem": ""}, "has a bad field ca_pem"),
        ({"join_token": 7}, "has a bad field join_token"),
        ({"colour": "blue"}, "has an unknown field colour"),
    ],
)
def test_a_bad_agent_json_is_named(tmp_path: Path, content: Any, complaint: str) -> None:
    path = tmp_path / "agent.json"
    good = {"node_id": "n0", "enroll_endpoint": "host:8443", "ca_pem": Wire().authority.ca_pem, "join_token": "t"}
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(good | content))
    with pytest.raises(NodeFailure) as failure:
        load_config(path)
    assert failure.value.message.startswith(f"{path} {complaint}")
    path.write_text(json.dumps(good))
    assert load_config(path).node_id == "n0"


async def test_without_agent_json_it_ends_with_one_sentence(other_end: Wire, make_machine: MakeMachine) -> None:
    machine = make_machine(other_end)
    machine.root.mkdir()
    machine.start_agent()
    assert machine.agent is not None
    assert await eventually(machine.agent.poll, within=20) == 1
    last = (machine.root / "console.log").read_text().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "agent.json cannot be read: No such file or directory" in last


async def test_heartbeats_come_in_time_and_changes_at_once(machine: Machine, other_end: Wire) -> None:
    peer = other_end.peers[machine.id]
    assert peer.report.mongod_state == report_pb2.MONGOD_STATE_ABSENT
    await eventually(lambda: len(peer.said("heartbeat")) >= 6, within=10)
    await machine.start_mongod()
    await eventually(lambda: peer.report.mongod_state == report_pb2.MONGOD_STATE_RUNNING, within=15)
    await machine.initiate()
    await eventually(lambda: peer.report.member_state == "PRIMARY", within=15)
    assert peer.report.mongodb_version == "6.0.5"
    assert peer.report.replica_set == "rs0"
    _check_gaps(peer.heard, HEARTBEAT_SECONDS * 2)
    assert peer.telemetry.samples()[0]["host.memory.total_bytes"] == psutil.virtual_memory().total


def _check_gaps(heard: list[tuple[float, stream_pb2.ConnectRequest]], longest: float) -> None:
    beats = [at for at, message in heard if message.HasField("heartbeat")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
    assert gaps
    assert max(gaps) < longest, gaps


async def test_it_comes_back_when_the_control_plane_does(machine: Machine, other_end: Wire) -> None:
    peer = other_end.peers[machine.id]
    await other_end.down()
    await eventually(lambda: machine.log().count("not connected") >= 3, within=20)
    await other_end.up()
    await eventually(lambda: peer.sessions >= 2 and peer.connected, within=30)
    assert (await machine.order(create_member_key=command_pb2.CreateMemberKey())).create_member_key.csr_pem


@pytest.mark.parametrize(
    ("code", "gives_up"),
    [
        (FailureCode.AGENT_BANNED, True),
        (FailureCode.CERTIFICATE_NOT_ACTIVE, True),
        (FailureCode.UNAVAILABLE, False),
        (FailureCode.SESSION_SUPERSEDED, False),
    ],
)
async def test_a_final_refusal_is_not_answered_by_dialling_on(
    machine: Machine, other_end: Wire, code: FailureCode, gives_up: bool
) -> None:
    peer = other_end.peers[machine.id]
    other_end.refusal, other_end.attempts = AgentFailure(code, "no"), 0
    other_end.cut(machine.id)
    await eventually(lambda: other_end.attempts >= 1, within=20)
    if gives_up:
        await eventually(lambda: code in machine.log(), within=10)
        entry = next(json.loads(line) for line in machine.log().splitlines() if code in line)
        assert entry["next_attempt_seconds"] > 60
    else:
        await eventually(lambda: other_end.attempts >= 3, within=20)
    assert not peer.connected
    assert machine.agent is not None
    assert machine.agent.poll() is None


async def test_a_banned_agent_is_out_within_five_seconds_and_mongod_runs_on(
    control: ControlPlane, make_machine: MakeMachine
) -> None:
    machine = make_machine(control)
    await machine.boot()
    await machine.connected()
    pid = await machine.start_mongod()

    def ban(tx: Session) -> None:
        nodes.ban(tx, machine.id, control.clock.now())

    await control.database.write(ban)
    await eventually(lambda: "AGENT_BANNED" in machine.log(), within=5)
    assert psutil.pid_exists(pid)


async def test_renew_now_gives_a_new_key_and_a_new_session(machine: Machine, other_end: Wire) -> None:
    peer, before = other_end.peers[machine.id], identities.load(machine.paths.identity)
    peer.send(stream_pb2.ConnectResponse(renew_now=stream_pb2.RenewNow()))
    await eventually(lambda: peer.sessions == 2 and peer.connected, within=10)
    after = identities.load(machine.paths.identity)
    assert before is not None
    assert after is not None
    assert [f"{after.certificate.serial_number:x}"] == peer.serials
    assert after.key_pem != before.key_pem
    await eventually(lambda: len(peer.said("heartbeat")) >= 4, within=10)  # some of them of the new session
    _check_gaps(peer.heard, HEARTBEAT_SECONDS * 2)
    wait = command_pb2.CreateMemberKey()
    assert (await machine.order(create_member_key=wait)).create_member_key.csr_pem


async def test_certificates_change_while_the_agent_is_never_silent(tmp_path: Path, make_machine: MakeMachine) -> None:
    """Three lives of certificates; each new one is activated by its first use and retires the one before."""
    async with control_plane(tmp_path, SHORT_LIFE) as control:
        machine = make_machine(control)
        await machine.boot()
        await machine.connected()
        serials: set[str] = set()

        async def renewed_often() -> bool:
            node = await control.node(machine.id)
            serials.add(node.certificate_serial)
            assert node.agent_state == "CONNECTED"
            return len(serials) >= 4

        ends = datetime.now(UTC) + 2 * SHORT_LIFE
        await eventually(renewed_often, within=30)
        await eventually(lambda: datetime.now(UTC) > ends, within=15)
        assert "CERTIFICATE" not in machine.log()
        assert machine.log().count("not connected") == 0
        assert (await machine.order(create_member_key=command_pb2.CreateMemberKey())).create_member_key.csr_pem


async def test_a_certificate_that_was_not_renewed_in_time_is_named(tmp_path: Path, make_machine: MakeMachine) -> None:
    """The control: an agent that stood still past its certificate's life is refused, and its log says why."""
    async with control_plane(tmp_path, SHORT_LIFE) as control:
        machine = make_machine(control)
        await machine.boot()
        await machine.connected()
        assert machine.agent is not None
        machine.agent.send_signal(signal.SIGSTOP)
        identity = identities.load(machine.paths.identity)
        assert identity is not None
        expires = identity.certificate.not_valid_after_utc
        await eventually(lambda: datetime.now(UTC) > expires + timedelta(seconds=1), within=15)
        machine.agent.send_signal(signal.SIGCONT)
        await eventually(lambda: "this agent's certificate expired at" in machine.log(), within=20)
        assert machine.agent.poll() is None
