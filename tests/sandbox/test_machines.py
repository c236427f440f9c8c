"""An instance is a group of processes that runs the real user data; EC2's calls act on it."""

import os
import signal
from pathlib import Path

import pytest

from tests.sandbox.conftest import SLEEP, Lab
from tests.waiting import wait_until

# Counts its boots, and has a child in a session of its own, as an agent has a mongod.
BOOTS = """#!/bin/bash
echo boot >> "$WAP_ROOT/boots"
echo "${WAP_BOOT:-first}" > "$WAP_ROOT/boot"
setsid sleep 600 &
exec sleep 600
"""
# Writes down how it was ended, and takes its time.
ORDERLY = """#!/bin/bash
trap 'sleep 0.3; echo orderly > "$WAP_ROOT/end"; exit' TERM
echo up > "$WAP_ROOT/up"
while :; do sleep 0.05; done
"""
STUBBORN = """#!/bin/bash
trap '' TERM
echo up > "$WAP_ROOT/up"
while :; do sleep 0.05; done
"""


def alive(pids: list[int]) -> list[int]:
    """Those that run; a zombie does not."""
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists() and os.path.lexists(f"/proc/{pid}/cwd")]


def running_pids(lab: Lab, instance: str, at_least: int) -> list[int]:
    wait_until(lambda: len(lab.pids(instance)) >= at_least, within=10)
    return lab.pids(instance)


def test_it_runs_the_user_data_with_its_own_address_and_root(lab: Lab) -> None:
    instance = lab.launch('#!/bin/bash\necho "$HOME|$WAP_ROOT|$PWD" > "$WAP_ROOT/where"\nexec sleep 600\n')
    root = str(lab.root(instance))
    assert lab.wrote(instance, "where") == f"{root}|{root}|{root}"
    assert " " in root
    assert lab.instance(instance)["PrivateIpAddress"] == lab.machine(instance)["address"]


def test_it_knows_nothing_of_its_hosts_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-host")
    monkeypatch.setenv("WAP_MASTER_KEY", "canary-of-the-host")
    handed_down, host_only = os.open("/dev/null", os.O_RDONLY), os.open(__file__, os.O_RDONLY)
    instance = lab.launch(
        '#!/bin/bash\nenv > "$WAP_ROOT/env.new"; mv "$WAP_ROOT/env.new" "$WAP_ROOT/env"\nexec sleep 600\n'
    )
    seen = lab.wrote(instance, "env")
    assert "canary" not in seen
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert names <= {"PATH", "HOME", "TMPDIR", "LANG", "WAP_ROOT", "WAP_INSTANCE_ID", "PWD", "SHLVL", "_", "OLDPWD"}
    (pid, *_) = lab.pids(instance)
    held = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    assert __file__ not in held
    os.close(handed_down)
    os.close(host_only)


def test_a_dead_main_process_is_booted_again_and_told_so(lab: Lab) -> None:
    instance = lab.launch(BOOTS)
    assert lab.wrote(instance, "boot") == "first"
    before = running_pids(lab, instance, 2)
    main = int((lab.root(instance).parent / "pid").read_text())
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: (lab.root(instance) / "boot").read_text().strip() == "again", within=10)
    assert len(alive(before)) == len(before) - 1  # what the main process had started lives on


def test_stop_is_orderly_and_start_brings_it_back_at_its_address(lab: Lab) -> None:
    instance = lab.launch(ORDERLY)
    lab.wrote(instance, "up")
    address, pids = lab.machine(instance)["address"], lab.pids(instance)
    lab.ec2.stop_instances(InstanceIds=[instance])
    assert lab.state(instance) == "stopping"
    wait_until(lambda: lab.state(instance) == "stopped", within=10)
    assert (lab.root(instance) / "end").read_text() == "orderly\n"
    assert alive(pids) == lab.pids(instance) == []

    lab.ec2.start_instances(InstanceIds=[instance])
    assert set(running_pids(lab, instance, 1)).isdisjoint(pids)
    assert lab.state(instance) == "running"
    assert lab.machine(instance)["address"] == address


def test_a_changed_type_takes_effect_with_new_processes(lab: Lab) -> None:
    instance = lab.launch()
    before = running_pids(lab, instance, 1)
    lab.stop(instance)
    lab.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "r6i.xlarge"})
    lab.ec2.start_instances(InstanceIds=[instance])
    assert set(running_pids(lab, instance, 1)).isdisjoint(before)
    assert lab.machine(instance)["type"] == lab.instance(instance)["InstanceType"] == "r6i.xlarge"


def test_reboot_ends_everything_in_order_and_boots_again(lab: Lab) -> None:
    instance = lab.launch(ORDERLY)
    lab.wrote(instance, "up")
    before = lab.pids(instance)
    lab.ec2.reboot_instances(InstanceIds=[instance])
    assert lab.wrote(instance, "end") == "orderly"
    wait_until(lambda: set(lab.pids(instance)) - set(before), within=10)
    assert alive(before) == []
    assert lab.state(instance) == "running"


@pytest.mark.parametrize("script", [BOOTS, STUBBORN])
def test_terminate_leaves_no_process_and_no_file(lab: Lab, script: str) -> None:
    instance = lab.launch(script)
    pids, home = running_pids(lab, instance, 1), lab.root(instance).parent
    lab.ec2.terminate_instances(InstanceIds=[instance])
    assert alive(pids) == []
    assert not home.exists()
    assert lab.state(instance) == "terminated"
    assert not any(lab.sandbox.inventory().values())


def test_a_frozen_instance_can_be_stopped_too(lab: Lab) -> None:
    instance = lab.launch(SLEEP)
    for pid in running_pids(lab, instance, 1):
        os.kill(pid, signal.SIGSTOP)
    lab.stop(instance)
    assert lab.pids(instance) == []


def test_others_go_on_while_one_takes_long_to_stop(lab: Lab) -> None:
    slow = lab.launch(ORDERLY.replace("sleep 0.3", "sleep 6"))
    lab.wrote(slow, "up")
    lab.ec2.stop_instances(InstanceIds=[slow])
    other = lab.launch()
    assert running_pids(lab, other, 1)
    assert lab.state(slow) == "stopping"
    wait_until(lambda: lab.state(slow) == "stopped", within=30)
