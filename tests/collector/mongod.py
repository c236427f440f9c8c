"""A bare mongod for tests of the collector: no agent, no TLS, on a free port."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from tests.waiting import wait_until

Client = pymongo.MongoClient[dict[str, Any]]


class Mongod:
    """One mongod in a directory. It can be ended and started again on the same data and port."""

    def __init__(self, directory: Path, mongodb_dir: Path, *options: str) -> None:
        self.data, self.log = directory / "data", directory / "mongod.log"
        self._binary, self._options = mongodb_dir / "bin" / "mongod", options
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self.data.mkdir(parents=True)

    @property
    def uri(self) -> str:
        """Connection string for this mongod alone."""
        return f"mongodb://{self.address}/?directConnection=true"

    @property
    def pid(self) -> int:
        """Its pid, 0 while it does not run."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def start(self) -> "Mongod":
        """Start it and wait until it answers."""
        arguments: list[str | Path] = [
            "--dbpath",
            self.data,
            "--logpath",
            self.log,
            "--logappend",
            "--bind_ip",
            "127.0.0.1",
        ]
        small = ["--port", str(self.port), "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "16"]
        quiet = ["--setParameter", "diagnosticDataCollectionEnabled=false", "--nounixsocket"]
        self.process = subprocess.Popen(
            [self._binary, *arguments, *small, *quiet, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, within=60)
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(60)

    def client(self, **options: Any) -> Client:
        """A client of this mongod alone; closed with the mongod's test."""
        self._clients.append(pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=5000, **options))
        return self._clients[-1]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it where it is, as a hung machine would, and let it go on."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def destroy(self) -> None:
        """End it for good."""
        if self.pid:
            os.kill(self.pid, signal.SIGCONT)  # closing a client says good-bye, and waits for the answer
        for client in self._clients:
            client.close()
        self.end(signal.SIGKILL)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:] if self.log.exists() else "mongod has no log"
        with pymongo.MongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=200) as client:
            try:
                return bool(client.admin.command("ping")["ok"])
            except PyMongoError:
                return False


def initiate(*members: Mongod) -> None:
    """Make one replica set of them, named "rs0", and wait until the first is primary and all others serve."""
    hosts = [{"_id": number, "host": mongod.address} for number, mongod in enumerate(members)]
    hosts[0]["priority"] = 2
    # Shorter than in production, so that elections and failovers fit into a test.
    settings = {"electionTimeoutMillis": 4000, "heartbeatIntervalMillis": 300}
    config = {"_id": "rs0", "members": [hosts[0]], "settings": settings, "version": 1}
    client = members[0].client()
    client.admin.command({"replSetInitiate": config})
    wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], within=30)
    for count in range(2, len(hosts) + 1):
        config = client.admin.command("replSetGetConfig")["config"]
        config |= {"version": config["version"] + 1, "members": hosts[:count]}
        wait_until(lambda config=config: _reconfigured(client, config), within=30)  # type: ignore[misc]
    wait_until(lambda: _all_serve(client, len(hosts)), within=60)


def _reconfigured(client: Client, config: dict[str, Any]) -> bool:
    try:
        return bool(client.admin.command({"replSetReconfig": config})["ok"])
    except PyMongoError:
        return False


def _all_serve(client: Client, count: int) -> bool:
    states = [member["state"] for member in client.admin.command("replSetGetStatus")["members"]]
    return states[0] == 1 and states[1:] == [2] * (count - 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
