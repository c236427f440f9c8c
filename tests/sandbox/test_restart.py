"""The sandbox as a program: its state survives it, and it leaves nothing behind that it was not told to leave."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.sandbox import Sandbox, StartError, loops
from tests.sandbox.conftest import SLEEP, Lab, ec2_at, lab_in
from tests.sandbox.test_machines import BOOTS, ORDERLY, alive, running_pids
from tests.sandbox.test_volumes import MOUNTS, ready, written
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


class Program:
    """`python -m scripts.sandbox` on a state directory."""

    def __init__(self, state: Path, *options: str) -> None:
        arguments = ["-m", "scripts.sandbox", "--state", str(state), "--port", "0", "--ready", "json", *options]
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert self.process.stdout is not None
        self.ready: dict[str, str] = json.loads(self.process.stdout.readline() or "{}")
        self.ec2 = ec2_at(self.ready["endpoint"])

    def report(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self.ready['endpoint']}/sandbox/{what}", timeout=10) as reply:
            return json.load(reply)

    def pids(self) -> list[int]:
        return [pid for item in self.report("instances") for pid in item["pids"]]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Programs that a test started; those that run still are ended."""
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            program.end(signal.SIGTERM)


def launch(program: Program, script: str) -> str:
    wish = {"ImageId": "ami-12c6146b", "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1, "UserData": script}
    return str(program.ec2.run_instances(**wish)["Instances"][0]["InstanceId"])


def test_everything_comes_back_as_it_was(state: Path) -> None:
    before = lab_in(state, volumes="directory")
    running, stopped, gone = before.launch(MOUNTS), before.launch(), before.launch()
    volume = before.volume()
    before.attach(volume, running)
    ready(before, running)
    before.stop(stopped)
    before.ec2.terminate_instances(InstanceIds=[gone])
    address, inventory = before.machine(running)["address"], before.sandbox.inventory()
    before.sandbox.stop()

    after = lab_in(state, volumes="directory")
    try:
        assert [after.state(id) for id in (running, stopped, gone)] == ["running", "stopped", "terminated"]
        assert after.machine(running)["address"] == address
        assert after.pids(stopped) == []
        wait_until(lambda: written(after, running) == [running, running], within=10)
        assert after.sandbox.inventory() | {"processes": 0} == inventory | {"processes": 0}
        assert after.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["InstanceId"] == running
        new = after.launch()
        assert after.state(new) == "running"
    finally:
        after.sandbox.stop()


def test_sigterm_ends_all_instances_in_order_and_leaves_no_process(state: Path, programs: list[Program]) -> None:
    programs.append(program := Program(state))
    launch(program, ORDERLY), launch(program, BOOTS)
    roots = [Path(item["root"]) for item in program.report("instances")]
    wait_until(lambda: (roots[0] / "up").exists() and len(program.pids()) >= 3, within=10)
    pids = program.pids()
    assert program.end(signal.SIGTERM) == 0
    assert alive(pids) == []
    assert (roots[0] / "end").read_text() == "orderly\n"


def test_sigterm_leaves_nothing_mounted(state: Path, programs: list[Program]) -> None:
    state.mkdir()
    if os.geteuid() != 0 or not loops.work_in(state):
        pytest.skip("needs root and loop devices")
    programs.append(program := Program(state, "--volumes", "loop"))
    instance = launch(program, MOUNTS)
    volume = program.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, VolumeType="gp3")["VolumeId"]
    program.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    wait_until(lambda: (state / "instances" / instance / "root" / "ready").exists(), within=10)
    assert loops.mounted_below(state)
    assert program.end(signal.SIGTERM) == 0
    assert not loops.mounted_below(state)
    assert loops.device_of(state / "volumes" / volume) is None


def test_after_a_kill_the_next_one_adopts_what_runs(state: Path, programs: list[Program]) -> None:
    programs.append(first := Program(state))
    instance = launch(first, BOOTS)
    wait_until(lambda: len(first.pids()) >= 2, within=10)
    pids = first.pids()
    first.end(signal.SIGKILL)
    assert alive(pids) == pids
    programs.append(second := Program(state))
    assert second.pids() == pids
    boots = (state / "instances" / instance / "root" / "boots").read_text()
    main = int((state / "instances" / instance / "pid").read_text())
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: (state / "instances" / instance / "root" / "boots").read_text() != boots, within=10)
    second.ec2.terminate_instances(InstanceIds=[instance])
    assert alive(pids) == []


def test_instances_are_left_running_when_told_so(state: Path) -> None:
    before = lab_in(state, volumes="directory")
    instance = before.launch(SLEEP)
    pids = running_pids(before, instance, 1)
    before.sandbox.stop(leave_instances=True)
    assert alive(pids) == pids
    after = lab_in(state, volumes="directory")
    assert after.pids(instance) == pids
    after.sandbox.stop()
    assert alive(pids) == []


def test_what_was_launched_but_never_saved_is_ended(state: Path) -> None:
    """A sandbox that was killed between starting a process and saving its account."""
    before = lab_in(state, volumes="directory")
    saved = (state / "account").read_bytes()
    instance = before.launch(BOOTS)
    pids = running_pids(before, instance, 2)
    before.sandbox.stop(leave_instances=True)
    (state / "account").write_bytes(saved)
    after = lab_in(state, volumes="directory")
    assert alive(pids) == []
    assert not any(after.sandbox.inventory().values())
    after.sandbox.stop()


def test_an_instance_that_was_stopping_is_stopped_after_a_restart(state: Path) -> None:
    before = lab_in(state, volumes="directory")
    instance = before.launch(ORDERLY)
    before.wrote(instance, "up")
    before.ec2.stop_instances(InstanceIds=[instance])
    saved = (state / "account").read_bytes()
    before.sandbox.stop()
    (state / "account").write_bytes(saved)
    after = lab_in(state, volumes="directory")
    wait_until(lambda: after.state(instance) == "stopped", within=10)
    assert after.pids(instance) == []
    after.sandbox.stop()


def refused(state: Path, *options: str) -> str:
    """What the program says when it does not start."""
    arguments = ["-m", "scripts.sandbox", "--state", str(state), *options]
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=REPOSITORY, timeout=30, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    return line.removeprefix("wap sandbox: ")


def test_a_taken_port_is_said_in_one_sentence(tmp_path: Path) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(tmp_path / "state", "--port", str(port))
    assert said == f"cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_state_directory_belongs_to_one_sandbox(lab: Lab, state: Path) -> None:
    assert refused(state, "--port", "0") == f"another sandbox already runs on {state}"
    assert lab.ec2.describe_instances()["Reservations"] == []


def test_a_process_has_one_sandbox(lab: Lab, tmp_path: Path) -> None:
    instance = lab.launch()
    with pytest.raises(StartError, match="has a sandbox already"):
        Sandbox(tmp_path / "second")
    assert lab.state(instance) == "running"


def test_a_damaged_account_is_refused_and_kept(state: Path) -> None:
    state.mkdir()
    (state / "account").write_bytes(b"not an account")
    with pytest.raises(StartError, match="is damaged or of another version"):
        Sandbox(state)
    assert (state / "account").read_bytes() == b"not an account"
    (state / "account").unlink()
    Sandbox(state).start().stop()  # nothing of the failed start is in the way


def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be used: Not a directory"):
        Sandbox(tmp_path / "file" / "state")
