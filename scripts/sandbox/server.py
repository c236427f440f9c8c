"""The sandbox as one object: account, hypervisor and HTTP server, with its state in one directory."""

import contextlib
import fcntl
import logging
import os
import socket
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server

from scripts.sandbox.account import Account
from scripts.sandbox.control import Control
from scripts.sandbox.faults import Faults
from scripts.sandbox.hypervisor import Hypervisor
from scripts.sandbox.modifications import Modifications
from scripts.sandbox.refusal import StartError
from scripts.sandbox.shim import Shim
from scripts.sandbox.tokens import Tokens

# moto keeps its account in the process: a second sandbox in it would wipe the first one's.
_ONE_A_PROCESS = threading.Lock()


class Sandbox:
    """Start it, point AWS_ENDPOINT_URL at `endpoint`, stop it. One in a process and one on a state directory.

    `volumes`: "directory", "loop" (root on Linux), or "auto": loop where that works. Raises StartError.
    """

    def __init__(
        self,
        state: Path,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        region: str = "us-east-1",
        volumes: str = "auto",
    ) -> None:
        with contextlib.ExitStack() as undo:
            state = state.absolute()
            self._file = state / "account"
            self._lock = _lock(state)
            undo.callback(os.close, self._lock)
            listener = undo.enter_context(_listen(host, port))
            if not _ONE_A_PROCESS.acquire(blocking=False):
                raise StartError("this process has a sandbox already")
            undo.callback(_ONE_A_PROCESS.release)
            self._account = Account(region)
            tokens, modifications = self._load()
            self._extra = (tokens, modifications)
            self.faults = Faults()
            self._hypervisor = Hypervisor(self._account, state, volumes, self._save)
            self._shim = Shim(self._account, self._hypervisor, self.faults, tokens, modifications, self._save)
            control = Control(self._shim, self._hypervisor, self.faults, modifications, self.inventory)
            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            # werkzeug makes a socket of its own of the descriptor.
            self._server: BaseWSGIServer = make_server(host, port, control, threaded=True, fd=listener.fileno())
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
            listener.close()
            undo.pop_all()

    def _load(self) -> tuple[Tokens, Modifications]:
        if not self._file.exists():
            self._account.reset()
            return Tokens(), Modifications()
        tokens, modifications = self._account.load(self._file)
        return tokens, modifications

    def _save(self) -> None:
        self._account.save(self._file, self._extra)

    @property
    def endpoint(self) -> str:
        """URL for AWS_ENDPOINT_URL."""
        return f"http://{self._server.host}:{self._server.port}"

    @property
    def volumes(self) -> str:
        """What volumes are here: "loop" or "directory"."""
        return self._hypervisor.disks.kind

    @property
    def calls(self) -> deque[dict[str, Any]]:
        """The EC2 calls so far: time, action, ids of the resources named, outcome ("ok" or EC2's error code)."""
        return self._shim.calls

    def inventory(self) -> dict[str, Any]:
        """What is there, by kind, the loop devices in use, and the number of live processes."""
        running = sum(len(pids) for pids in self._hypervisor.processes().values())
        return self._account.inventory() | {"loop_devices": self._hypervisor.disks.devices(), "processes": running}

    def instances(self) -> list[dict[str, Any]]:
        """Every live instance: id, state, type, address, pids, root."""
        return self._hypervisor.report()

    def start(self) -> "Sandbox":
        """Answer calls; adopt or boot what should run."""
        self._hypervisor.start()
        self._save()
        self._thread.start()
        return self

    def stop(self, *, leave_instances: bool = False) -> None:
        """Answer no more calls and end all instances in order, unless they are to be left running."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._hypervisor.stop(leave_instances=leave_instances)
        os.close(self._lock)
        _ONE_A_PROCESS.release()

    def __enter__(self) -> "Sandbox":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _lock(state: Path) -> int:
    """The state directory is ours until the descriptor is closed or the process ends."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"the state directory {state} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StartError(f"another sandbox already runs on {state}") from None
    return handle


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener
