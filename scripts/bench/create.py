"""How long a 3-node replica set takes from intent to ready, and where the time goes.

Baseline, in the same run: what one would do by hand, which is to start three mongods, send one replSetInitiate with
all three, and wait until the primary takes a majority write and two secondaries are there. It has no EC2 calls, no
agents, no TLS, no keyfile and no users; WAP's time includes them all.
"""

import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern
from wap.control.v1 import cluster_pb2, operation_pb2, project_pb2

from console.client import Client
from scripts.stack import CACHE_GIB, OPLOG_MIB, Stack, mongodb_directory

HOSTS = ("127.78.0.1", "127.78.0.2", "127.78.0.3")
LIMIT_SECONDS = 120.0
POLL_SECONDS = 0.05


def run(runs: int) -> dict[str, float]:
    """Seconds of both ways (medians over pairs of runs), their ratio, and seconds per stage of ours."""
    naive, ours = [], []
    stages: dict[str, list[float]] = {}
    for _ in range(runs):
        naive.append(_naive())
        seconds, parts = _ours()
        ours.append(seconds)
        for name, part in parts.items():
            stages.setdefault(name, []).append(part)
    figures = {
        "create_ratio": statistics.median(o / n for o, n in zip(ours, naive, strict=True)),
        "create_seconds": statistics.median(ours),
        "naive_seconds": statistics.median(naive),
    }
    return figures | {f"stage_{name}_seconds": statistics.median(parts) for name, parts in stages.items()}


def _naive() -> float:
    with tempfile.TemporaryDirectory(prefix="wap-bench-") as directory:
        began = time.monotonic()
        mongods = [_mongod(Path(directory), host) for host in HOSTS]
        try:
            _initiate()
            return time.monotonic() - began
        finally:
            for mongod in mongods:
                mongod.kill()
                mongod.wait()


def _mongod(directory: Path, host: str) -> subprocess.Popen[bytes]:
    data = directory / host
    data.mkdir()
    options = ["--dbpath", str(data), "--bind_ip", host, "--port", "27017", "--replSet", "rs0"]
    options += [
        "--wiredTigerCacheSizeGB",
        str(CACHE_GIB),
        "--oplogSize",
        str(OPLOG_MIB),
        "--logpath",
        str(data / "log"),
    ]
    return subprocess.Popen([mongodb_directory() / "bin" / "mongod", *options], stdout=subprocess.DEVNULL)


def _initiate() -> None:
    members = [{"_id": number, "host": f"{host}:27017"} for number, host in enumerate(HOSTS)]
    with pymongo.MongoClient[Any](HOSTS[0], directConnection=True, serverSelectionTimeoutMS=30_000) as first:
        for host in HOSTS:  # by hand one waits until all three answer
            with pymongo.MongoClient[Any](host, directConnection=True, serverSelectionTimeoutMS=30_000) as each:
                each.admin.command("ping")
        first.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        _until(lambda: _states(first) == ["PRIMARY", "SECONDARY", "SECONDARY"])
    with pymongo.MongoClient[Any](list(HOSTS), replicaSet="rs0") as whole:
        whole["bench"].get_collection("proof", write_concern=WriteConcern("majority")).insert_one({})


def _states(client: "pymongo.MongoClient[Any]") -> list[str]:
    status = client.admin.command("replSetGetStatus")
    return sorted(member["stateStr"] for member in status["members"])


def _until(check: Any) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except PyMongoError:
            pass  # not initiated yet, or electing
        pause.wait(POLL_SECONDS)
    raise TimeoutError("the replica set did not become healthy")


def _ours() -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="wap-bench-") as directory:
        stack = Stack(Path(directory))
        try:
            stack.start_sandbox()
            stack.start_server()
            with stack.client() as client:
                client.login("admin", stack.admin_password())
                client.projects.CreateProject(project_pb2.CreateProjectRequest(name="bench"))
                return _create(client)
        finally:
            stack.stop()


def _create(client: Client) -> tuple[float, dict[str, float]]:
    """Seconds from the call to ready (every voter healthy, a majority write accepted, the user made), and per stage."""
    began = time.time()
    operation = client.create_cluster("bench", "bench", members=3, disk_gib=20)
    final = client.wait(operation.id, timeout=LIMIT_SECONDS)
    if final.state != operation_pb2.OPERATION_STATE_SUCCEEDED:
        raise RuntimeError(final.summary)
    ready = max(
        step.end_time.ToMilliseconds() / 1000
        for step in final.steps
        if step.plan.name.startswith(("healthy:", "user:"))
    )
    parts = {"queue": final.start_time.ToMilliseconds() / 1000 - began}
    for number in sorted({step.plan.stage for step in final.steps}):
        steps = [step for step in final.steps if step.plan.stage == number]
        name = "+".join(sorted({step.plan.name.partition(":")[0] for step in steps}))
        first, last = min(s.start_time.ToMilliseconds() for s in steps), max(s.end_time.ToMilliseconds() for s in steps)
        parts[f"{number}_{name}"] = (last - first) / 1000
    cluster = client.cluster("bench", "bench")
    deletion = client.clusters.DeleteCluster(
        cluster_pb2.DeleteClusterRequest(cluster_id=cluster.id, confirm_name=cluster.name)
    )
    client.wait(deletion.operation.id, timeout=LIMIT_SECONDS)
    return ready - began, parts
