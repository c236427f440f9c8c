"""The data volume: formatted when it is blank, and never when it holds anything."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.failure import FailureCode, NodeFailure
from agent.settings import NodePaths
from agent.volume import ensure_volume

VOLUME = "vol-0123456789abcdef0"
DISK_BYTES = 64 * 1024 * 1024


def unheard(_: str) -> None:
    """Nobody waits."""


def show(paths: NodePaths, target: Path) -> None:
    """As udev would: the link by which the volume is found."""
    link = paths.device(VOLUME)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    return NodePaths(tmp_path / "root")


@pytest.fixture
def device(tmp_path: Path, paths: NodePaths) -> Iterator[Path]:
    """A blank block device, for root on Linux; unmounted and freed at the end."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    made = subprocess.run(["losetup", "--find", "--show", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip("loop devices need root")
    path = Path(made.stdout.strip())
    show(paths, path)
    yield path
    subprocess.run(["umount", paths.volume(VOLUME)], capture_output=True)
    subprocess.run(["losetup", "-d", path], check=True)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def contents(device: Path) -> bytes:
    return device.read_bytes()


async def test_a_blank_volume_is_formatted_once_and_keeps_its_data(device: Path, paths: NodePaths) -> None:
    first = await ensure_volume(paths, VOLUME, unheard, may_format=True)
    assert (first.formatted, first.path.is_mount()) == (True, True)
    assert 0 < first.free_bytes <= first.total_bytes <= DISK_BYTES
    (first.path / "data").write_text("precious")
    assert not (await ensure_volume(paths, VOLUME, unheard, may_format=True)).formatted
    run("umount", first.path)
    again = await ensure_volume(paths, VOLUME, unheard, may_format=True)
    assert not again.formatted
    assert (again.path / "data").read_text() == "precious"


async def test_a_volume_that_holds_something_else_is_left_as_it_is(device: Path, paths: NodePaths) -> None:
    run("mkswap", device)
    before = contents(device)
    with pytest.raises(NodeFailure) as failure:
        await ensure_volume(paths, VOLUME, unheard, may_format=True)
    assert (failure.value.code, failure.value.given) == (FailureCode.VOLUME_UNUSABLE, "swap")
    assert contents(device) == before
    run("mkfs.ext4", "-qF", device)  # the control: a file system that can be used is used
    assert not (await ensure_volume(paths, VOLUME, unheard, may_format=True)).formatted


async def test_a_blank_volume_where_data_should_be_is_not_formatted(device: Path, paths: NodePaths) -> None:
    before = contents(device)
    with pytest.raises(NodeFailure) as failure:
        await ensure_volume(paths, VOLUME, unheard, may_format=False)
    assert "no file system, though it should hold data" in failure.value.message
    assert contents(device) == before


async def test_a_directory_serves_as_volume(tmp_path: Path, paths: NodePaths) -> None:
    """Where the host shows volumes as directories; a machine that was replaced may show another one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        show(paths, tmp_path / name)
        volume = await ensure_volume(paths, VOLUME, unheard, may_format=False)
        assert volume.path.resolve() == tmp_path / name
        assert not volume.formatted


async def test_what_is_no_volume_is_refused(tmp_path: Path, paths: NodePaths) -> None:
    file = tmp_path / "file"
    file.write_text("neither device nor directory")
    show(paths, file)
    with pytest.raises(NodeFailure) as failure:
        await ensure_volume(paths, VOLUME, unheard, may_format=True)
    assert failure.value.code is FailureCode.VOLUME_UNUSABLE
    show(paths, tmp_path)
    in_the_way = paths.volume(VOLUME)
    in_the_way.mkdir(parents=True)
    (in_the_way / "file").write_text("data on the root disk")
    with pytest.raises(NodeFailure) as failure:
        await ensure_volume(paths, VOLUME, unheard, may_format=True)
    assert "in the way and not empty" in failure.value.message
