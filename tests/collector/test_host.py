"""The host's figures against what the machine itself says, and what is not there."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from collector import catalog, host
from collector.host import HostSampler
from tests.waiting import wait_until

BUSY = [sys.executable, "-c", "while True: pass"]


def nothing() -> int:
    return 0


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses one core."""
    process = subprocess.Popen(BUSY)
    yield process
    process.kill()
    process.wait(10)


def test_shares_of_the_cpu_add_up_and_a_busy_process_shows(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    sampler = HostSampler(tmp_path, lambda: busy.pid)
    first = sampler.sample(time.time())
    assert not [name for name in first if name.endswith("_per_second") or name.startswith("host.cpu.u")]
    values = wait_until(lambda: _with(sampler.sample(time.time()), "mongod.process.cpu_percent"), within=20, every=0.5)
    kinds = ("user", "system", "iowait", "steal")
    shares = {kind: values[f"host.cpu.{kind}_percent"] for kind in kinds if f"host.cpu.{kind}_percent" in values}
    assert 0 < sum(shares.values()) <= 100.001
    assert values["host.cpu.used_percent"] == pytest.approx(sum(shares.values()) - shares.get("iowait", 0), abs=0.1)
    assert values["host.cpu.cores"] == psutil.cpu_count()
    # One core at most.
    assert 0 < values["mongod.process.cpu_percent"] <= 120 / (psutil.cpu_count() or 1)
    assert values["mongod.process.resident_bytes"] > 1_000_000
    assert values["mongod.process.threads"] == 1
    assert values["mongod.process.file_descriptors_open"] >= 3
    assert 0 < values["mongod.process.file_descriptors_used_percent"] < 100


def _with(values: dict[str, float], name: str) -> dict[str, float]:
    return values if values.get(name, 0) > 0 else {}


def test_another_process_under_the_same_role_begins_without_a_rate(tmp_path: Path) -> None:
    pids = [os.getpid()]
    sampler = HostSampler(tmp_path, lambda: pids[0])
    sampler.sample(0.0)
    assert "mongod.process.cpu_percent" in sampler.sample(1.0)
    pids[0] = os.getppid()
    values = sampler.sample(2.0)
    assert "mongod.process.cpu_percent" not in values
    assert values["mongod.process.resident_bytes"] > 0
    pids[0] = 0
    assert not [name for name in sampler.sample(3.0) if name.startswith("mongod.")]


def test_space_is_what_df_says(tmp_path: Path) -> None:
    values, usage = HostSampler(tmp_path, nothing).sample(0.0), shutil.disk_usage(tmp_path)
    near = 64 * 1024 * 1024
    assert values["host.disk.total_bytes"] == usage.total
    assert values["host.disk.free_bytes"] == pytest.approx(usage.free, abs=near)
    assert values["host.disk.used_bytes"] == pytest.approx(usage.used, abs=near)
    assert values["host.disk.used_percent"] == pytest.approx(100 * usage.used / (usage.used + usage.free), abs=1)


def test_writes_to_the_volume_are_counted_with_their_latency(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    if not (host.BLOCK_DEVICES / f"{os.major(device)}:{os.minor(device)}").exists():
        pytest.skip("no block device behind the temporary directory")
    sampler, size, began = HostSampler(tmp_path, nothing), 8 * 1024 * 1024, time.monotonic()
    sampler.sample(began)
    with (tmp_path / "written").open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    ended = time.monotonic()
    values = sampler.sample(ended)
    assert values["host.disk.written_bytes_per_second"] * (ended - began) >= size
    assert values["host.disk.writes_per_second"] > 0
    assert values["host.disk.write_latency_milliseconds"] > 0
    assert values["host.disk.queue_length"] > 0
    assert 0 < values["host.disk.busy_percent"] <= 100


def test_a_volume_that_is_not_there_yet_has_no_figures_and_the_rest_has(tmp_path: Path) -> None:
    for volume in (tmp_path / "missing", lambda: None):
        values = HostSampler(volume, nothing).sample(0.0)
        assert not [name for name in values if name.startswith("host.disk.")]
        assert values["host.memory.total_bytes"] > 0


def test_a_volume_that_is_swapped_for_another_begins_without_a_rate(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or os.stat(shm).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second file system")
    volumes = [shm]
    sampler = HostSampler(lambda: volumes[0], nothing)
    sampler.sample(0.0)
    volumes[0] = tmp_path
    values = sampler.sample(10.0)
    assert "host.disk.writes_per_second" not in values
    assert values["host.disk.total_bytes"] == shutil.disk_usage(tmp_path).total


def test_loopback_is_no_network(tmp_path: Path) -> None:
    sampler, size = HostSampler(tmp_path, nothing), 32 * 1024 * 1024
    before = sampler.sample(0.0)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        sender.setblocking(False)
        sent = 0
        while sent < size:
            with suppress(BlockingIOError):
                sent += sender.send(bytes(1024 * 1024))
            receiver.recv(1024 * 1024)
        receiver.close()
    others = {name: io for name, io in psutil.net_io_counters(pernic=True).items() if name != "lo"}
    if not others:
        pytest.skip("no interface but loopback")
    values = sampler.sample(1.0)
    assert not [name for name in before if name.startswith("host.network.")]
    assert values["host.network.sent_bytes_per_second"] < size


def test_all_that_is_sampled_is_in_the_catalogue_and_a_sample_is_cheap(tmp_path: Path) -> None:
    sampler, seen = HostSampler(tmp_path, os.getpid), set[str]()
    began = time.process_time()
    for tick in range(10):
        seen |= set(sampler.sample(float(tick)))
    # Of a core every 10 s: a fifth of a thousandth; the agent may use 15 thousandths in all.
    assert (time.process_time() - began) / 10 < 0.02
    assert seen <= {*catalog.HOST, *catalog.AGENT}
    assert {"host.memory.used_percent", "host.load.one_minute", "agent.core_percent", "agent.resident_bytes"} <= seen
