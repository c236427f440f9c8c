"""A PostgreSQL of our own for the tests, from whatever binaries the machine has."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.waiting import wait_until


def binaries() -> Path | None:
    """Directory with initdb and postgres, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    if found:
        return found[0].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """One server with trust authentication on loopback. PostgreSQL refuses to run as root, so root lends it an account."""

    def __init__(self, binaries_dir: Path, directory: Path) -> None:
        self._bin, self._dir = binaries_dir, directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _account() if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(directory, self._user)
        self._run("initdb", "-D", str(directory / "data"), "-U", "wap", "-A", "trust", "--no-sync", "-E", "UTF8")

    def _run(self, program: str, *args: str) -> None:
        subprocess.run([self._bin / program, *args], check=True, capture_output=True, user=self._user, cwd=self._dir)

    def start(self) -> None:
        """Start and wait until it answers."""
        options = ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "max_connections=200"]
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", self._dir / "data", "-p", str(self.port), "-h", "127.0.0.1", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd=self._dir,
        )
        wait_until(self._answers, within=30)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), connect_timeout=2):
            return True
        return False

    def stop(self, *, immediate: bool = False) -> None:
        """Stop in order (fast shutdown), or as in a crash."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self._process.wait(30)

    def url(self, name: str) -> str:
        """URL of one of its databases."""
        return f"postgresql://wap@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """A new empty database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'create database "{name}"')
        return self.url(name)


def _account() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise RuntimeError("no account to run PostgreSQL under")


@contextlib.contextmanager
def running() -> Iterator[Postgres | None]:
    """A running server, or None when the machine has no PostgreSQL."""
    found = binaries()
    if found is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="wap-pg-", ignore_cleanup_errors=True) as directory:
        server = Postgres(found, Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop(immediate=True)  # its files are deleted: writing them out first would take as long as the tests
