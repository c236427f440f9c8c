"""mongod without the control plane: it comes back when it dies, outlives its agent, and stays down when it should."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pymongo.errors
import pytest
from wap.agent.v1 import command_pb2, report_pb2

from tests.agent.conftest import MakeMachine
from tests.agent.machine import Machine
from tests.agent.wire import Wire
from tests.waiting import eventually, wait_until

State = report_pb2.MongodState
BACK_SECONDS = 15.0
TMPFS_MIB, MIB = 800, 1024 * 1024


async def state_is(other_end: Wire, machine: Machine, state: int, within: float = 10.0) -> report_pb2.NodeReport:
    """Wait for a report with this state of mongod."""
    peer = other_end.peers[machine.id]
    await eventually(lambda: peer.report.mongod_state == state, within=within)
    return peer.report


@pytest.mark.parametrize("goal", ["kept", "lost"])
async def test_a_killed_mongod_is_back_with_the_control_plane_down(
    machine: Machine, other_end: Wire, goal: str
) -> None:
    """The goal on disk is the protection: without it nobody starts mongod again."""
    first = await machine.start_mongod()
    await other_end.down()
    await machine.end_agent(signal.SIGKILL)
    assert psutil.pid_exists(first)
    if goal == "lost":
        machine.paths.goal.unlink()
    machine.start_agent()  # finds neither a control plane nor, a moment later, its mongod
    wait_until(lambda: machine.log().count("agent begins") == 2, within=20)
    os.kill(first, signal.SIGKILL)
    if goal == "kept":
        again = await eventually(lambda: _another(machine, first), within=BACK_SECONDS)
        assert again != first
        await eventually(lambda: _answers(machine), within=BACK_SECONDS)
    await other_end.up()
    wanted = State.MONGOD_STATE_RUNNING if goal == "kept" else State.MONGOD_STATE_ABSENT
    await eventually(lambda: other_end.peers[machine.id].sessions == 2, within=30)
    report = await state_is(other_end, machine, wanted)
    assert report.mongod_restarts == (1 if goal == "kept" else 0)
    assert bool(machine.mongod_pid()) == (goal == "kept")


def _another(machine: Machine, first: int) -> int:
    pid = machine.mongod_pid()
    return pid if pid != first else 0


def _answers(machine: Machine) -> bool:
    with machine.client() as client:
        try:
            return bool(client.admin.command("hello")["ok"])
        except pymongo.errors.PyMongoError:
            return False


async def test_a_stopped_agent_says_goodbye_and_leaves_mongod(machine: Machine, other_end: Wire) -> None:
    pid = await machine.start_mongod()
    await machine.initiate()
    assert await machine.end_agent(signal.SIGTERM) == 0
    peer = other_end.peers[machine.id]
    assert [goodbye.reason for goodbye in peer.said("goodbye")] == ["the agent was told to stop"]
    assert _answers(machine)
    machine.start_agent()
    await eventually(lambda: peer.sessions == 2 and peer.connected, within=20)
    report = await state_is(other_end, machine, State.MONGOD_STATE_RUNNING)
    assert (report.mongod_pid, report.mongod_restarts) == (pid, 0)
    first, second = (hello.boot_id for hello in peer.said("hello"))
    assert first != second


async def test_a_stopped_mongod_stays_stopped(machine: Machine, other_end: Wire) -> None:
    await machine.start_mongod()
    await machine.order(stop_mongod=command_pb2.StopMongod())
    await state_is(other_end, machine, State.MONGOD_STATE_STOPPED)
    await machine.end_agent()
    machine.start_agent()
    await eventually(lambda: other_end.peers[machine.id].sessions == 2, within=20)
    await state_is(other_end, machine, State.MONGOD_STATE_STOPPED)
    assert machine.mongod_pid() == 0
    order = await machine.start_order()
    assert (await machine.order(start_mongod=order)).start_mongod.pid == machine.mongod_pid()


async def test_after_a_reboot_the_volume_is_mounted_and_mongod_runs_again(machine: Machine, other_end: Wire) -> None:
    before = await machine.start_mongod()
    await machine.end_agent()
    os.kill(before, signal.SIGKILL)
    device, mount = machine.paths.device(machine.volume_id), machine.paths.volume(machine.volume_id)
    device.unlink()
    mount.unlink()
    machine.start_agent()
    peer = other_end.peers[machine.id]
    await eventually(lambda: "mongod died" in peer.report.problem, within=10)
    assert peer.report.mongod_state == State.MONGOD_STATE_RESTARTING
    device.symlink_to(machine.disk)  # EBS attaches seconds after the instance has started
    running = await state_is(other_end, machine, State.MONGOD_STATE_RUNNING, within=BACK_SECONDS)
    assert running.mongod_pid not in {0, before}
    assert mount.resolve() == machine.disk
    assert not running.problem


async def test_the_same_order_leaves_a_running_mongod_alone(machine: Machine) -> None:
    first = await machine.start_mongod()
    order = await machine.start_order()  # a new certificate for the same key, as a retried operation brings
    again = await machine.order(start_mongod=order)
    assert again.start_mongod.pid == first
    assert order.certificate_pem.strip() in machine.paths.member_pem.read_text()
    assert _answers(machine)
    order.oplog_mib = 64
    changed = await machine.order(start_mongod=order)
    assert changed.start_mongod.pid != first
    assert '"oplogSizeMB": 64' in machine.paths.mongod_config.read_text()


async def test_a_frozen_mongod_is_reported(machine: Machine, other_end: Wire) -> None:
    pid = await machine.start_mongod()
    await machine.initiate()
    await state_is(other_end, machine, State.MONGOD_STATE_RUNNING)
    os.kill(pid, signal.SIGSTOP)
    try:
        report = await state_is(other_end, machine, State.MONGOD_STATE_UNRESPONSIVE, within=10)
        assert report.problem == "mongod does not answer"
    finally:
        os.kill(pid, signal.SIGCONT)
    report = await state_is(other_end, machine, State.MONGOD_STATE_RUNNING)
    assert not report.problem
    peer = other_end.peers[machine.id]
    await eventually(lambda: peer.report.member_state == "PRIMARY", within=20)
    assert [member.host for member in peer.report.members] == [machine.address]
    assert peer.report.members[0].healthy
    assert peer.report.disk_total_bytes > peer.report.disk_used_bytes > 0
    assert peer.report.memory_total_bytes > peer.report.memory_used_bytes > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred MiB, for root on Linux."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    path = tmp_path / "n0-disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m", "tmpfs", path], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


async def test_on_a_full_disk_it_gives_up_and_comes_back_when_there_is_space(
    small_disk: Path, other_end: Wire, make_machine: MakeMachine
) -> None:
    machine = make_machine(other_end)
    await machine.boot()
    await machine.connected()
    await machine.start_mongod()
    await machine.initiate()
    ballast = small_disk / "ballast"
    _fill(ballast)
    os.kill(machine.mongod_pid(), signal.SIGKILL)
    peer = other_end.peers[machine.id]

    def given_up() -> bool:
        _fill(ballast)  # a mongod that starts frees some of its own journal first
        return peer.report.mongod_state == State.MONGOD_STATE_FAILED

    await eventually(given_up, within=40)
    assert "disk full" in peer.report.problem
    tries = machine.log().count("mongod started again")
    assert tries <= 3
    told = len(peer.said("heartbeat"))
    await eventually(lambda: len(peer.said("heartbeat")) > told + 4, within=10)
    assert machine.log().count("mongod started again") == tries, "it does not try while the disk is full"
    ballast.unlink()
    report = await state_is(other_end, machine, State.MONGOD_STATE_RUNNING, within=BACK_SECONDS)
    assert not report.problem
    await eventually(lambda: peer.report.member_state == "PRIMARY", within=20)


def _fill(path: Path) -> None:
    """Write until there is no space left, whatever mongod writes at the same time."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))
