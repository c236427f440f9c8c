"""Processes of an instance: every one that carries its id in its environment, however it was started."""

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "WAP_INSTANCE_ID"
LOOK_SECONDS = 0.05


def all_marked() -> dict[str, list[int]]:
    """Pids by instance id, of all marked processes that this user may look at. Zombies have no environment left."""
    found: dict[str, list[int]] = {}
    mark = f"{MARK}=".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(mark):
                    found.setdefault(variable.partition(b"=")[2].decode(), []).append(int(entry.name))
    return found


def of_instance(instance_id: str) -> list[int]:
    """Pids of one instance."""
    return all_marked().get(instance_id, [])


def send(instance_id: str, number: signal.Signals) -> None:
    """Signal every process of the instance."""
    for pid in of_instance(instance_id):
        _kill(pid, number)


def end(instance_id: str, *, grace: float) -> None:
    """SIGTERM, up to `grace` seconds, then SIGKILL, until none is left.

    Both go to late comers too: a process that is told to end can still start another one.
    """
    told: set[int] = set()
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        pids = set(of_instance(instance_id))
        if not pids:
            return
        for pid in pids - told:
            _kill(pid, signal.SIGTERM)
            _kill(pid, signal.SIGCONT)  # a frozen process could not obey
        told |= pids
        time.sleep(LOOK_SECONDS)
    while of_instance(instance_id):
        send(instance_id, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
