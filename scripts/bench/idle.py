"""What a control plane costs when nothing happens: one cluster, its three agents connected, a console open to nobody."""

import tempfile
import time
from pathlib import Path

import psutil
from wap.control.v1 import project_pb2

from scripts.stack import Stack

SETTLE_SECONDS = 10.0


def run(seconds: float) -> dict[str, float]:
    """Percent of one core over `seconds`, and resident MiB, of the server process."""
    with tempfile.TemporaryDirectory(prefix="wap-bench-") as directory:
        stack = Stack(Path(directory), console=True)
        try:
            stack.start_sandbox()
            server = stack.start_server()
            with stack.client() as client:
                client.login("admin", stack.admin_password())
                client.projects.CreateProject(project_pb2.CreateProjectRequest(name="bench"))
                client.wait(client.create_cluster("bench", "bench", members=3, disk_gib=20).id, timeout=120)
            process = psutil.Process(server.process.pid)
            time.sleep(SETTLE_SECONDS)  # what the creation left to do is not idling
            before, began = process.cpu_times(), time.monotonic()
            time.sleep(seconds)
            after, ended = process.cpu_times(), time.monotonic()
            used = after.user + after.system - before.user - before.system
            memory = process.memory_info().rss / 2**20
        finally:
            stack.stop()
    return {"idle_core_percent": 100 * used / (ended - began), "idle_rss_mib": memory}
