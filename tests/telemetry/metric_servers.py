"""Real servers of metrics, run from their packages without a service: Prometheus and VictoriaMetrics."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.waiting import wait_until


@dataclass(frozen=True)
class MetricServer:
    """Where a running server takes and answers."""

    write_url: str
    read_url: str


@contextmanager
def prometheus(directory: Path, out_of_order: str = "3h") -> Iterator[MetricServer]:
    """Prometheus that takes samples so much older than its newest ("0s": none, as it comes)."""
    config = directory / "prometheus.yml"
    config.write_text(f"storage:\n  tsdb:\n    out_of_order_time_window: {out_of_order}\n")
    port = _free_port()
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
    ]
    with _running("prometheus", options, f"http://127.0.0.1:{port}/-/ready"):
        url = f"http://127.0.0.1:{port}"
        yield MetricServer(f"{url}/api/v1/write", url)


@contextmanager
def victoria_metrics(directory: Path, port: int = 0) -> Iterator[MetricServer]:
    """VictoriaMetrics that shows at once what it took in; with the port of an earlier one, it goes on with its data."""
    port = port or _free_port()
    options = [
        f"-storageDataPath={directory / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-search.latencyOffset=0s",
        "-dedup.minScrapeInterval=1ms",
    ]
    with _running("victoria-metrics", options, f"http://127.0.0.1:{port}/health"):
        url = f"http://127.0.0.1:{port}"
        yield MetricServer(f"{url}/api/v1/write", url)


@contextmanager
def _running(program: str, options: list[str], ready_url: str) -> Iterator[None]:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    with subprocess.Popen([path, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(ready_url), within=30)
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
