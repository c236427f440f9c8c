"""Volumes hold their data, whatever happens to instances; on loop devices they are real file systems."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.sandbox import StartError, loops
from tests.sandbox.conftest import OTHER_ZONE, Lab, lab_in
from tests.waiting import wait_until

# Waits for its volume as an agent does: makes a file system where there is none, mounts it, and says how large it is.
MOUNTS = """#!/bin/bash
export PATH="$PATH:/usr/sbin:/sbin"
cd "$WAP_ROOT"
until device=$(ls -d dev/disk/by-id/* 2>/dev/null) && [ -e "$device" ]; do sleep 0.02; done
if [ -d "$device" ]; then
  ln -sfn "$(readlink -f "$device")" data
else
  mkdir -p data
  blkid -p "$device" > /dev/null || mkfs.ext4 -q "$device"
  mount "$device" data
fi
echo "$WAP_INSTANCE_ID" >> data/written
sync
rm -f filled; echo ready > ready
until [ -e fill ]; do sleep 0.02; done
dd if=/dev/zero of=data/filling bs=1M count=2000 2> filled.new; mv filled.new filled
exec sleep 600
"""


@pytest.fixture(params=["directory", "loop"])
def disks(request: pytest.FixtureRequest, state: Path) -> Iterator[Lab]:
    """A sandbox with volumes of either kind."""
    if request.param == "loop":
        _need_loops(state)
    running = lab_in(state, volumes=request.param)
    yield running
    running.sandbox.stop()
    assert not loops.mounted_below(state)
    assert not _devices_of(state)


@pytest.fixture
def loop(state: Path) -> Iterator[Lab]:
    """A sandbox with volumes on loop devices."""
    _need_loops(state)
    running = lab_in(state, volumes="loop")
    yield running
    running.sandbox.stop()
    assert not loops.mounted_below(state)
    assert not _devices_of(state)


def _need_loops(state: Path) -> None:
    state.mkdir(parents=True)
    if os.geteuid() != 0 or not loops.work_in(state):
        pytest.skip("needs root and loop devices")


def _devices_of(state: Path) -> list[Path]:
    return [device for file in (state / "volumes").iterdir() if (device := loops.device_of(file)) is not None]


def ready(lab: Lab, instance: str) -> None:
    lab.wrote(instance, "ready")


def written(lab: Lab, instance: str) -> list[str]:
    return (lab.root(instance) / "data" / "written").read_text().split()


def test_a_volume_moves_with_its_data_from_instance_to_instance(disks: Lab) -> None:
    volume, first, second = disks.volume(), disks.launch(MOUNTS), disks.launch(MOUNTS)
    disks.attach(volume, first)
    ready(disks, first)
    disks.ec2.detach_volume(VolumeId=volume, InstanceId=first)
    assert not os.path.lexists(disks.link(first, volume))
    disks.attach(volume, second)
    ready(disks, second)
    assert written(disks, second) == [first, second]


def test_a_data_volume_outlives_its_instance_and_the_root_volume_does_not(disks: Lab) -> None:
    volume, first = disks.volume(), disks.launch(MOUNTS)
    disks.attach(volume, first)
    ready(disks, first)
    assert len(disks.sandbox.inventory()["volumes"]) == 2
    disks.ec2.terminate_instances(InstanceIds=[first])
    assert disks.sandbox.inventory()["volumes"] == [volume]
    (shown,) = disks.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert (shown["State"], shown["Attachments"]) == ("available", [])
    second = disks.launch(MOUNTS)
    disks.attach(volume, second)
    ready(disks, second)
    assert written(disks, second) == [first, second]


def test_a_deleted_volume_leaves_nothing(disks: Lab, state: Path) -> None:
    volume, instance = disks.volume(), disks.launch(MOUNTS)
    disks.attach(volume, instance)
    ready(disks, instance)
    disks.ec2.terminate_instances(InstanceIds=[instance])
    disks.ec2.delete_volume(VolumeId=volume)
    assert list((state / "volumes").iterdir()) == list((state / "instances").iterdir()) == []
    assert not any(disks.sandbox.inventory().values())


def test_a_snapshot_keeps_what_was_synced_when_it_was_taken(disks: Lab) -> None:
    volume, first = disks.volume(), disks.launch(MOUNTS)
    disks.attach(volume, first)
    ready(disks, first)
    snapshot = disks.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    (disks.root(first) / "data" / "written").write_text("changed afterwards\n")
    copy = disks.volume(SnapshotId=snapshot, Size=2)
    second = disks.launch(MOUNTS)
    disks.attach(copy, second)
    ready(disks, second)
    assert written(disks, second) == [first, second]
    disks.ec2.delete_snapshot(SnapshotId=snapshot)
    assert disks.sandbox.inventory()["snapshots"] == []


def test_stop_unmounts_and_start_mounts_again(disks: Lab) -> None:
    volume, instance = disks.volume(), disks.launch(MOUNTS)
    disks.attach(volume, instance)
    ready(disks, instance)
    disks.stop(instance)
    assert not loops.mounted_below(disks.root(instance))
    assert disks.sandbox.inventory()["loop_devices"] == []
    (disks.root(instance) / "ready").unlink()
    disks.ec2.start_instances(InstanceIds=[instance])
    ready(disks, instance)
    assert written(disks, instance) == [instance, instance]


def size_of(file_system: Path) -> int:
    stat = os.statvfs(file_system)
    return stat.f_blocks * stat.f_frsize


def test_a_full_disk_is_full_and_its_device_grows_while_mounted(loop: Lab) -> None:
    volume, instance = loop.volume(Size=1), loop.launch(MOUNTS)
    loop.attach(volume, instance)
    ready(loop, instance)
    assert 0.8 * 2**30 < size_of(loop.root(instance) / "data") < 2**30
    (loop.root(instance) / "fill").touch()
    assert "No space left on device" in loop.wrote(instance, "filled")
    loop.ec2.modify_volume(VolumeId=volume, Size=2)
    device = loop.link(instance, volume).resolve()
    assert int(subprocess.check_output(["blockdev", "--getsize64", device])) == 2 * 2**30


def test_a_file_system_grows_into_a_larger_volume(loop: Lab) -> None:
    volume, instance = loop.volume(Size=1), loop.launch(MOUNTS)
    loop.attach(volume, instance)
    ready(loop, instance)
    loop.ec2.modify_volume(VolumeId=volume, Size=2)
    device, data = loop.link(instance, volume).resolve(), loop.root(instance) / "data"
    grown = subprocess.run(["resize2fs", device], check=False, capture_output=True, text=True)
    if "Permission denied" in grown.stderr:
        pytest.skip("growing a mounted ext4 needs CAP_SYS_RESOURCE")
    assert grown.returncode == 0, grown.stderr
    assert size_of(data) > 1.8 * 2**30


def test_auto_takes_loop_devices_where_they_work(state: Path) -> None:
    state.mkdir(parents=True)
    works = os.geteuid() == 0 and loops.work_in(state)
    running = lab_in(state)
    assert running.sandbox.volumes == ("loop" if works else "directory")
    running.sandbox.stop()


def test_a_volume_stays_what_it_was_made_as(state: Path) -> None:
    _need_loops(state)
    before = lab_in(state, volumes="directory")
    volume, instance = before.volume(), before.launch(MOUNTS)
    before.attach(volume, instance)
    ready(before, instance)
    before.sandbox.stop()
    after = lab_in(state, volumes="loop")
    try:
        wait_until(lambda: written(after, instance) == [instance] * 2, within=10)
        newer, other = (
            after.volume(AvailabilityZone=OTHER_ZONE),
            after.launch(MOUNTS, Placement={"AvailabilityZone": OTHER_ZONE}),
        )
        after.attach(newer, other)
        ready(after, other)
        assert after.link(other, newer).resolve().is_block_device()
    finally:
        after.sandbox.stop()
    with pytest.raises(StartError, match="holds volumes that are loop devices"):
        lab_in(state, volumes="directory")
