"""The only owner of mongod's pid: spawn, adopt after a restart of the agent, signal, reap."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.files import remove, write_private
from agent.mongod import log as mongod_log
from agent.settings import NodePaths


@dataclass(frozen=True)
class Running:
    """A process, known by more than a pid that may be used again."""

    pid: int
    start_ticks: int  # field 22 of /proc/<pid>/stat: clock ticks since boot
    log_offset: int  # where this run begins in mongod's log


class MongodProcess:
    """At most one mongod, in a session of its own so that it outlives the agent."""

    def __init__(self, paths: NodePaths) -> None:
        self._paths = paths
        self._child: subprocess.Popen[bytes] | None = None
        self._running: Running | None = None
        self._since = time.monotonic()
        self._adopt()

    @property
    def pid(self) -> int:
        """Its pid while it lives, else 0."""
        return self._running.pid if self._running is not None and self.alive() else 0

    @property
    def uptime(self) -> float:
        """Seconds since it was spawned or adopted."""
        return time.monotonic() - self._since

    @property
    def log_offset(self) -> int:
        """Where the latest run begins in mongod's log, bytes."""
        return self._running.log_offset if self._running is not None else 0

    @property
    def known(self) -> bool:
        """Whether there was a run whose end nobody has taken note of yet."""
        return self._running is not None

    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        if self._running is None:
            return False
        if self._child is not None:
            return self._child.poll() is None
        return _start_ticks(self._running.pid) == self._running.start_ticks

    def exit_code(self) -> int | None:
        """How the latest run ended: exit code, negative signal, or None where it cannot be told."""
        if self._child is not None:
            return self._child.poll()
        return mongod_log.exit_code(self._paths.mongod_log, self.log_offset)

    def spawn(self, binary: Path) -> None:
        """Start it, detached. What it prints goes to a file; secrets are in files, never in argv or environment."""
        self.forget()
        offset = mongod_log.size(self._paths.mongod_log)
        with self._paths.mongod_output.open("wb") as output:
            self._child = subprocess.Popen(
                _command(binary, self._paths),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._paths.mongod,
            )
        self._remember(self._child.pid, offset)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self._running is not None and self.alive():
            os.kill(self._running.pid, number)

    def forget(self) -> None:
        """The latest run is over and dealt with."""
        self._child, self._running = None, None
        remove(self._paths.mongod_pid)

    def _remember(self, pid: int, offset: int) -> None:
        self._running = Running(pid, _start_ticks(pid) or 0, offset)
        self._since = time.monotonic()
        write_private(self._paths.mongod_pid, json.dumps(self._running.__dict__))

    def _adopt(self) -> None:
        """Find the mongod of an agent before this one: by its file, or, had that not been written yet, by its command."""
        if self._paths.mongod_pid.exists():
            stored = Running(**json.loads(self._paths.mongod_pid.read_text()))
            self._running = stored
            if _start_ticks(stored.pid) == stored.start_ticks and _is_ours(stored.pid, self._paths):
                return
        for process in psutil.process_iter():
            if _is_ours(process.pid, self._paths) and _start_ticks(process.pid) is not None:
                self._remember(process.pid, 0)
                return


def _command(binary: Path, paths: NodePaths) -> list[str]:
    return [str(binary), "--config", str(paths.mongod_config)]


def _is_ours(pid: int, paths: NodePaths) -> bool:
    try:
        arguments = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return len(arguments) == 3 and arguments[0].endswith("mongod") and arguments[2] == str(paths.mongod_config)


def _start_ticks(pid: int) -> int | None:
    """Start time of a live process; None for none or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] in {"Z", "X"} else int(fields[19])
