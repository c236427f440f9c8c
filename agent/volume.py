"""The data volume: found by its id, given a file system if it has none, mounted where mongod expects it."""

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.failure import FailureCode, NodeFailure
from agent.settings import NodePaths

APPEAR_SECONDS = 30.0
POLL_SECONDS = 0.05
COMMAND_SECONDS = 300.0
FILE_SYSTEMS = ("ext4", "xfs")
LABEL = "wap-data"
MKFS = ("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-L", LABEL)
BLKID_NOTHING_FOUND = 2


@dataclass(frozen=True)
class Volume:
    """A volume that can be used. Sizes in bytes."""

    path: Path
    total_bytes: int
    free_bytes: int
    formatted: bool


async def ensure_volume(
    paths: NodePaths, volume_id: str, progress: Callable[[str], None], *, may_format: bool
) -> Volume:
    """Mount the volume; make a file system only where there is nothing at all and `may_format`.

    Where the host presents the volume as a directory (containers, sandboxes without root) the mount is a link to it.
    Raises VOLUME_UNUSABLE.
    """
    device, mount = paths.device(volume_id), paths.volume(volume_id)
    await _appears(device, progress)
    formatted = False
    mount.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = device.resolve()
    if target.is_dir():
        _link(mount, target)
    elif stat.S_ISBLK(target.stat().st_mode):
        formatted = await _mount(target, mount, may_format)
    else:
        raise _unusable(volume_id, f"{device} is neither a block device nor a directory")
    if not os.access(mount, os.W_OK | os.X_OK):
        raise _unusable(volume_id, "the agent may not write to it")
    usage = psutil.disk_usage(str(mount))
    return Volume(mount, usage.total, usage.free, formatted)


async def _appears(device: Path, progress: Callable[[str], None]) -> None:
    """EBS attaches asynchronously: the link comes seconds after the instance has started."""
    deadline = asyncio.get_running_loop().time() + APPEAR_SECONDS
    appeared = device.exists
    while not appeared():
        if asyncio.get_running_loop().time() > deadline:
            raise NodeFailure(
                FailureCode.VOLUME_UNUSABLE,
                f"the volume is not attached: {device} did not appear within {APPEAR_SECONDS:.0f} s",
                field="volume_id",
                given=device.name,
                retryable=True,
            )
        progress("the volume to be attached")
        await asyncio.sleep(POLL_SECONDS)


def _link(mount: Path, target: Path) -> None:
    if mount.is_symlink():
        if mount.resolve() == target:
            return
        mount.unlink()
    elif mount.exists():
        if any(mount.iterdir()):
            raise _unusable(mount.name, f"{mount} is in the way and not empty")
        mount.rmdir()
    mount.symlink_to(target, target_is_directory=True)


async def _mount(device: Path, mount: Path, may_format: bool) -> bool:
    if _mounted(device, mount):
        return False
    _make_mount_point(mount)
    formatted = False
    found = await _file_system(mount.name, device)
    if not found:
        if not may_format:
            raise _unusable(mount.name, "it has no file system, though it should hold data")
        await _run(mount.name, *MKFS, str(device))
        formatted = True
    elif found not in FILE_SYSTEMS:
        raise _unusable(mount.name, f"it holds {found}; it is not formatted over", given=found)
    await _run(mount.name, "mount", "-o", "noatime", str(device), str(mount))
    return formatted


def _mounted(device: Path, mount: Path) -> bool:
    if not mount.is_mount():
        return False
    if mount.stat().st_dev != device.stat().st_rdev:
        raise _unusable(mount.name, f"another device is mounted at {mount}")
    return True


def _make_mount_point(mount: Path) -> None:
    if mount.is_symlink():
        mount.unlink()
    mount.mkdir(mode=0o700, exist_ok=True)


async def _file_system(volume_id: str, device: Path) -> str:
    """Type of what the device holds; empty when there is nothing, not even a partition table."""
    code, output = await _execute("blkid", "-p", "-o", "export", str(device))
    if code == BLKID_NOTHING_FOUND:
        return ""
    if code != 0:
        raise _unusable(volume_id, f"blkid cannot read it: {output}")
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return values.get("TYPE") or values.get("PTTYPE") or "something unknown"


async def _run(volume_id: str, *command: str) -> None:
    code, output = await _execute(*command)
    if code != 0:
        raise _unusable(volume_id, f"{command[0]} failed: {output[-160:]}")


async def _execute(*command: str) -> tuple[int, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    output, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    return process.returncode or 0, output.decode(errors="replace").strip()


def _unusable(volume_id: str, message: str, given: str = "") -> NodeFailure:
    return NodeFailure(
        FailureCode.VOLUME_UNUSABLE,
        f"volume {volume_id}: {message}",
        field="volume_id",
        given=given or volume_id,
        allowed=f"an empty volume or one with {' or '.join(FILE_SYSTEMS)}",
    )
