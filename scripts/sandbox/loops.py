"""Loop devices and what is mounted from them. Needs root on Linux; everything is looked up in the kernel, never kept."""

import contextlib
import re
import subprocess
from pathlib import Path

SYS, MOUNTS = Path("/sys/block"), Path("/proc/self/mounts")


def work_in(directory: Path) -> bool:
    """Whether files of this directory can be loop devices here: tried with a small one."""
    probe = directory / "probe"
    try:
        grow(probe, 2**20)
        release(_attach(probe), probe)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def device_of(file: Path) -> Path | None:
    """The loop device of a file."""
    for entry in SYS.glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached just now
            if entry.read_text().removesuffix("\n") == str(file):
                return Path("/dev") / entry.parent.parent.name
    return None


def ensure(file: Path, size: int) -> Path:
    """The device of a sparse file of at least `size` bytes; a file that is smaller grows, and its device with it."""
    grown = grow(file, size)
    device = device_of(file)
    if device is None:
        return _attach(file)
    if grown:
        _run("losetup", "--set-capacity", str(device))
    return device


def grow(file: Path, size: int) -> bool:
    """Make the file at least so long, without filling it."""
    with file.open("ab") as handle:
        if handle.tell() >= size:
            return False
        handle.truncate(size)
    return True


def _attach(file: Path) -> Path:
    return Path(_run("losetup", "--find", "--show", str(file)))


def release(device: Path, file: Path) -> None:
    """Unmount what is mounted from the device and detach it."""
    for place in mounted_from(device):
        # What still has files open there keeps them until it ends, as on a disk that is pulled.
        if subprocess.run(["umount", place], check=False, capture_output=True).returncode:
            _run("umount", "--lazy", str(place))
    if device_of(file) == device:
        _run("losetup", "--detach", str(device))


def mounted_from(device: Path) -> list[Path]:
    """Where the device is mounted, the last mount first."""
    return [place for source, place in _mounts() if source == str(device)]


def mounted_below(directory: Path) -> list[Path]:
    """Mounts in a directory, the deepest first."""
    return [place for _, place in _mounts() if place.is_relative_to(directory)]


def _mounts() -> list[tuple[str, Path]]:
    lines = [line.split()[:2] for line in MOUNTS.read_text().splitlines()]
    return [(_plain(source), Path(_plain(place))) for source, place in reversed(lines)]


def _plain(text: str) -> str:
    """The kernel writes spaces and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), text)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
