"""What monitoring costs: the control plane that takes samples in, the agent that makes them, the store that keeps them.

Ingest is compared with a bare grpc.aio server that throws the same messages away. The agent is the real one, on a member
under load from `scripts.workload`. The flood writes thousands of lines a second into one member's log; the longest
silence between heartbeats of its agent stands beside the longest one of the same agent before the flood.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from wap.control.v1 import cluster_pb2, node_pb2, project_pb2

from console.client import Client
from scripts import workload
from scripts.bench import fleet, telemetry_store
from scripts.stack import Stack

LIMIT_SECONDS = 120.0
SETTLE_SECONDS = 15.0
FLOOD_LINES_PER_SECOND = 5000
FLOOD_BATCHES_PER_SECOND = 10
POLL_SECONDS = 0.5


def run(nodes: int, seconds: float) -> dict[str, float]:
    """All figures; `seconds` is the time over which CPU is measured and the flood lasts."""
    ingest = fleet.run(nodes, seconds)
    figures = {f"ingest_{name}": ingest[name] for name in ("agents", "cpu_ratio", "memory_ratio")}
    return figures | _node(seconds) | telemetry_store.run()


def _node(seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="wap-bench-") as directory:
        stack = Stack(Path(directory))
        try:
            stack.start_sandbox()
            stack.start_server()
            with stack.client() as client:
                client.login("admin", stack.admin_password())
                client.projects.CreateProject(project_pb2.CreateProjectRequest(name="bench"))
                client.wait(client.create_cluster("bench", "bench", members=3, disk_gib=20).id, timeout=LIMIT_SECONDS)
                return _agent(stack, client, seconds) | _flood(stack, client, seconds)
        finally:
            stack.stop()


def _agent(stack: Stack, client: Client, seconds: float) -> dict[str, float]:
    """Percent of one core and resident MiB of the busiest of the three agents, while their cluster works."""
    agents = [one for one in psutil.process_iter() if _is_agent(one, stack.state)]
    uri, ca_file = _connection(stack, client)
    with _Beside(lambda ended: workload.run(uri, seconds=LIMIT_SECONDS, ended=ended, tlsCAFile=ca_file)):
        threading.Event().wait(SETTLE_SECONDS)
        before, began = [_cpu(one) for one in agents], time.monotonic()
        threading.Event().wait(seconds)
        took = time.monotonic() - began
        used = [_cpu(one) - earlier for one, earlier in zip(agents, before, strict=True)]
        memory = [one.memory_full_info() for one in agents]
    return {
        "agent_core_percent": 100 * max(used) / took,
        "agent_rss_mib": max(one.rss for one in memory) / 2**20,
        "agent_own_mib": max(one.uss for one in memory) / 2**20,
    }


def _flood(stack: Stack, client: Client, seconds: float) -> dict[str, float]:
    log = next(iter(sorted(stack.state.glob("sandbox/instances/*/root/var/log/wap/mongod.log"))))
    instance = log.relative_to(stack.state / "sandbox" / "instances").parts[0]
    quiet = _longest_silence(client, instance, seconds)
    with _Beside(lambda ended: _write_lines(log, ended)):
        flooded = _longest_silence(client, instance, seconds)
    return {
        "flood_lines_per_second": float(FLOOD_LINES_PER_SECOND),
        "heartbeat_longest_silence_seconds": quiet,
        "heartbeat_longest_silence_in_flood_seconds": flooded,
        "flood_heartbeat_ratio": flooded / quiet,
    }


def _longest_silence(client: Client, instance: str, seconds: float) -> float:
    """How old the agent's last heartbeat grew, as the control plane tells it."""
    longest, deadline = 0.0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        nodes = client.nodes.ListNodes(node_pb2.ListNodesRequest()).nodes
        seen = next(node.last_seen_time.ToDatetime(UTC) for node in nodes if node.instance_id == instance)
        longest = max(longest, (datetime.now(UTC) - seen).total_seconds())
        threading.Event().wait(POLL_SECONDS)
    return longest


def _write_lines(log: Path, ended: threading.Event) -> None:
    """As mongod writes them, from beside it."""
    count = FLOOD_LINES_PER_SECOND // FLOOD_BATCHES_PER_SECOND
    while not ended.wait(1 / FLOOD_BATCHES_PER_SECOND):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {
            "t": {"$date": now},
            "s": "I",
            "c": "NETWORK",
            "id": 22943,
            "ctx": "listener",
            "msg": "Connection accepted",
        }
        with log.open("ab") as file:
            file.write((json.dumps(line) + "\n").encode() * count)


class _Beside(AbstractContextManager[None]):
    """Work in a thread of its own, which is told when to end."""

    def __init__(self, work: Callable[[threading.Event], Any]) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=work, args=[self._ended], daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _connection(stack: Stack, client: Client) -> tuple[str, str]:
    cluster = client.cluster("bench", "bench")
    connection = client.clusters.GetConnection(cluster_pb2.GetConnectionRequest(cluster_id=cluster.id))
    ca_file = stack.state / "bench-ca.pem"
    ca_file.write_text(connection.ca_pem)
    return connection.uri, str(ca_file)


def _is_agent(process: psutil.Process, state: Path) -> bool:
    try:
        return "agent" in process.cmdline() and any(str(state) in part for part in process.cmdline())
    except psutil.Error:
        return False


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
