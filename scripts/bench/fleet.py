"""What one more connected agent costs a control plane, against a bare grpc.aio server with the same TLS and messages.

The servers run in the same run, one after the other, each in a process of its own with all agents in other processes:
the bare one, the control plane without the hot hour and the stores of telemetry (`streams`), and all of it (`wap`).
Memory is what the server's resident size grew by; CPU is what the server's process used while agents did what agents
do all day (a heartbeat every 5 s, 60 figures every 10 s). Fan-out is one command to each agent until every result is in:
for WAP that means sealed, stored, sent, and the result stored. At last the control plane is killed and started again.
"""

import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.clock import SystemClock
from controlplane.domain.cluster import ClusterState
from controlplane.domain.node import AgentState
from controlplane.fleet.authority import Authority
from controlplane.fleet.certificates import key_to_pem
from controlplane.store.database import Database
from controlplane.store.schema import migrate
from controlplane.store.tables import Cluster, Node
from controlplane.store.vault import Vault, key_from_file
from scripts.bench.fleet_messages import EPOCH, SAMPLE_SECONDS
from scripts.bench.fleet_server import HOST, INSTALL
from scripts.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
AGENT_PROCESSES = 2
CONNECT_SECONDS, RECONNECT_SECONDS = 180.0, 120.0
# After the last agent has connected: the first reports and the first samples are through.
SETTLE_SECONDS = SAMPLE_SECONDS + 5.0
FAN_OUTS = 3
POLL_SECONDS = 0.25


def run(agents: int, seconds: float) -> dict[str, float]:
    """All figures of the servers and the ratios to the bare one; `seconds` is the time over which CPU is measured."""
    with tempfile.TemporaryDirectory(prefix="wap-bench-") as name:
        directory = Path(name)
        asyncio.run(_prepare(directory, agents))
        bare = _measure("bare", directory, agents, seconds)
        streams = _measure("streams", directory, agents, seconds)
        ours = _measure("wap", directory, agents, seconds)
    figures = {"agents": float(agents)}
    for prefix, measured in (("streams_", streams), ("", ours)):
        for title in ("memory_kib_per_agent", "cpu_ms_per_agent_second", "fanout_seconds"):
            figures[f"{prefix}{title.partition('_')[0]}_ratio"] = measured[title] / bare[title]
    for kind, measured in (("wap", ours), ("streams", streams), ("bare", bare)):
        figures |= {f"{kind}_{title}": value for title, value in measured.items() if not title.startswith("reconnect")}
    return figures | {title: value for title, value in ours.items() if title.startswith("reconnect")}


async def _prepare(directory: Path, agents: int) -> None:
    """A store with that many enrolled nodes, and the files that servers and agents read."""
    database, clock = Database(f"sqlite:///{directory / 'wap.db'}"), SystemClock()
    await asyncio.to_thread(migrate, database.engine)
    authority = await Authority.load(database, Vault(key_from_file(directory / "master.key")), clock, INSTALL, 24)
    key, chain = authority.issue_listener([HOST])
    for name, content in (("server.key", key), ("server.pem", chain), ("ca.pem", authority.ca_pem.encode())):
        (directory / name).write_bytes(content)
    made = [_identity(authority) for _ in range(agents)]

    def work(tx: Session) -> None:
        tx.add(_cluster())
        for agent, serial in made:
            tx.add(_node(agent["node_id"], serial))

    await database.write(work)
    await database.close()
    (directory / "agents.json").write_text(json.dumps([agent for agent, _ in made]))


def _identity(authority: Authority) -> tuple[dict[str, str], str]:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    node_id = ids.node_id()
    leaf = authority.issue_agent(node_id, request.public_bytes(serialization.Encoding.PEM).decode())
    return {"node_id": node_id, "key": key_to_pem(key).decode(), "certificate": leaf.pem}, leaf.serial


def _cluster() -> Cluster:
    return Cluster(
        id="cl-bench",
        project_id="pr-bench",
        name="bench",
        name_key="bench",
        spec={},
        generation=1,
        state=ClusterState.AVAILABLE,
        network_slot=0,
        usd_per_month=0.0,
        created_at=SystemClock().now(),
        epoch=EPOCH,
    )


def _node(node_id: str, serial: str) -> Node:
    return Node(
        id=node_id,
        cluster_id="cl-bench",
        name=node_id,
        replica_set="rs0",
        ordinal=0,
        zone_wish="a",
        instance_type="m6i.large",
        disk_gib=20,
        agent_state=AgentState.WAITING,
        certificate_serial=serial,
        created_at=SystemClock().now(),
    )


@dataclass
class Child:
    """A process that answers each line with one line of JSON."""

    process: subprocess.Popen[str]
    log: Path

    def ask(self, order: str) -> Any:
        """The answer. RuntimeError with the end of the log when the process ended instead."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.log.stem} ended: {self.log.read_text()[-2000:]}")
        return json.loads(line)

    def end(self) -> None:
        """SIGKILL: nothing of it is wanted any more."""
        self.process.kill()
        self.process.wait()


def _measure(kind: str, directory: Path, agents: int, seconds: float) -> dict[str, float]:
    port, pause = free_port(), threading.Event()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_child(directory, "fleet_server", kind, str(directory), str(port)))
        watched = psutil.Process(server.process.pid)
        before = watched.memory_info().rss
        fleet = _start_agents(stack, directory, port, agents)
        _await_all(server, fleet, agents, CONNECT_SECONDS)
        pause.wait(SETTLE_SECONDS)
        cpu, began = _cpu(watched), time.monotonic()
        pause.wait(seconds)
        used, took = _cpu(watched) - cpu, time.monotonic() - began
        grown = watched.memory_info().rss - before
        if server.ask("connected") != agents:
            raise RuntimeError(f"{kind}: agents were lost while nothing happened")
        server.ask("fan_out")  # the first one fills caches
        fan_outs = [float(server.ask("fan_out")) for _ in range(FAN_OUTS)]
        figures = {
            "memory_kib_per_agent": grown / 1024 / agents,
            "cpu_ms_per_agent_second": used * 1000 / took / agents,
            "fanout_seconds": statistics.median(fan_outs),
        }
        return figures | _restart(stack, directory, port, server, fleet, agents) if kind == "wap" else figures


def _restart(
    stack: contextlib.ExitStack, directory: Path, port: int, server: Child, fleet: list[Child], agents: int
) -> dict[str, float]:
    """Kill the server, start it again on its port: how long until all agents are back, and how they came."""
    server.end()
    killed = time.monotonic()
    again = stack.enter_context(_child(directory, "fleet_server", "wap", str(directory), str(port)))
    up, listening_since = time.monotonic(), int(time.time())
    _await_all(again, fleet, agents, RECONNECT_SECONDS)
    back = time.monotonic()
    attempts: Counter[int] = Counter()
    for child in fleet:
        attempts.update({int(second): count for second, count in child.ask("counts")["attempts"].items()})
    # Before, nobody listened: an attempt was refused by the kernel and cost the control plane nothing.
    heard = [count for second, count in attempts.items() if second >= listening_since]
    return {
        "reconnect_seconds": back - killed,
        "reconnect_seconds_after_start": back - up,
        "reconnect_peak_percent_per_second": 100 * max(heard, default=0) / agents,
        "reconnect_attempts_per_agent": sum(attempts.values()) / agents,
    }


@contextlib.contextmanager
def _child(directory: Path, module: str, *arguments: str) -> Iterator[Child]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto' / 'gen'}"}
    path = directory / f"{module}.log"
    with path.open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"scripts.bench.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    child = Child(process, path)
    try:
        child.answer()  # it says when it is ready
        yield child
    finally:
        child.end()


def _start_agents(stack: contextlib.ExitStack, directory: Path, port: int, agents: int) -> list[Child]:
    bounds = [agents * share // AGENT_PROCESSES for share in range(AGENT_PROCESSES + 1)]
    return [
        stack.enter_context(_child(directory, "fleet_agents", str(directory), str(port), str(first), str(last)))
        for first, last in itertools.pairwise(bounds)
    ]


def _await_all(server: Child, fleet: list[Child], agents: int, within: float) -> None:
    """Return when the server and the agents agree that all are connected."""
    deadline, pause = time.monotonic() + within, threading.Event()
    while True:
        there, here = server.ask("connected"), sum(child.ask("counts")["connected"] for child in fleet)
        if there == here == agents:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{there} of {agents} agents connected within {within:.0f} s ({here} think they are)")
        pause.wait(POLL_SECONDS)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
