"""Files that survive a crash: written beside, flushed, then renamed over the old one."""

import os
import secrets
from pathlib import Path

PRIVATE, PRIVATE_DIRECTORY = 0o600, 0o700


def write_private(path: Path, content: str) -> None:
    """Replace `path` (mode 0600) by `content` at once or not at all, also when the power fails."""
    make_private_directory(path.parent)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """`path` exists with mode 0700; directories that were there keep their mode."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make a rename or a removal in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """`path` is gone for good; it may be gone already."""
    if path.exists():
        path.unlink()
        sync_directory(path.parent)
