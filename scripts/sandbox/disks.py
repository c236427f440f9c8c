"""Volumes: a directory each, or, as root on Linux, a sparse file on a loop device, so that mkfs, mount, a full disk and
growing are real. A volume stays what it was made as.
"""

import os
import shutil
import subprocess
from pathlib import Path

from scripts.sandbox import loops
from scripts.sandbox.refusal import StartError

LINK = "nvme-Amazon_Elastic_Block_Store_"
GIB = 2**30


class Disks:
    """Volumes below one directory. `kind` is "directory", "loop", or "auto": loop where that works."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        able = kind != "directory" and os.geteuid() == 0 and loops.work_in(directory)
        if kind == "loop" and not able:
            raise StartError("loop devices do not work here (they need root on Linux); use --volumes directory")
        self.kind = "loop" if able else "directory"
        if not able and any(path.is_file() for path in directory.iterdir()):
            raise StartError(f"{directory} holds volumes that are loop devices; they need root and --volumes loop")

    def _path(self, volume_id: str) -> Path:
        return self._directory / volume_id

    def present(self, volume_id: str, size_gib: int, root: Path) -> None:
        """Show the volume to the instance whose root directory this is, as udev does on EC2; grow it if it is larger."""
        path, link = self._path(volume_id), _links(root) / _name(volume_id)
        if not path.exists() and self.kind == "directory":
            path.mkdir()
        target = path if path.is_dir() else loops.ensure(path, size_gib * GIB)
        if link.is_symlink() and link.readlink() == target:
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def withdraw(self, volume_id: str, root: Path) -> None:
        """The volume is detached: no link, no mount, no device."""
        (_links(root) / _name(volume_id)).unlink(missing_ok=True)
        self._release(volume_id)

    def withdraw_all(self, root: Path) -> None:
        """The instance is down: none of its volumes is in use."""
        if _links(root).is_dir():
            for link in list(_links(root).iterdir()):
                self.withdraw(_volume_id(link.name), root)

    def release_unused(self, used: set[str]) -> None:
        """Free what a sandbox that was killed left mounted, except volumes that are in use."""
        for volume_id in self.known() - used:
            self._release(volume_id)

    def _release(self, volume_id: str) -> None:
        path = self._path(volume_id)
        device = loops.device_of(path) if path.is_file() else None
        if device is not None:
            loops.release(device, path)

    def delete(self, volume_id: str) -> None:
        """Delete the volume's data."""
        path = self._path(volume_id)
        self._release(volume_id)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        """Copy all data, sparsely; for snapshots, whose instance stands still meanwhile."""
        if self._path(source).exists():
            options = ["-a", "--sparse=always", "--reflink=auto", "-T"]
            subprocess.run(["cp", *options, self._path(source), self._path(target)], check=True)

    def known(self) -> set[str]:
        """Ids that have data here."""
        return {path.name for path in self._directory.iterdir()}

    def devices(self) -> list[str]:
        """Loop devices that are in use."""
        found = [loops.device_of(path) for path in self._directory.iterdir() if path.is_file()]
        return [str(device) for device in found if device is not None]


def _links(root: Path) -> Path:
    return root / "dev" / "disk" / "by-id"


def _name(volume_id: str) -> str:
    return LINK + volume_id.replace("-", "")


def _volume_id(name: str) -> str:
    return f"vol-{name.removeprefix(LINK).removeprefix('vol')}"
