"""What the machine tells: CPU, memory, the data volume, the network, and the processes of mongod and agent.

Everything comes from psutil and from Linux' own tables; what a system does not have (no block device behind a
directory, no swap) is absent, not zero.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from collector.rates import Rates, known, percent, quotient

# Block devices by "major:minor"; their statistics are counted in sectors of this size whatever the disk has.
BLOCK_DEVICES = Path("/sys/dev/block")
SECTOR_BYTES = 512
OPEN_FILES = Path("/proc/sys/fs/file-nr")
LOOPBACK = "lo"

VolumePath = Path | Callable[[], Path | None]


class HostSampler:
    """One machine and the mongod on it. `volume_path` is where the data volume is mounted (None: nowhere yet);
    `mongod_pid` tells the pid of mongod, 0 for none.
    """

    def __init__(self, volume_path: VolumePath, mongod_pid: Callable[[], int]) -> None:
        self._volume_path, self._mongod_pid = volume_path, mongod_pid
        self._cores = psutil.cpu_count() or 1
        self._cpu, self._network, self._swap, self._disk = Rates(), Rates(), Rates(), Rates()
        self._mongod, self._agent = _ProcessSampler(), _ProcessSampler()

    def sample(self, now_s: float) -> dict[str, float]:
        """All values of this moment, rates since the last call. Takes about a millisecond; blocks on nothing but /proc."""
        path = self._volume_path() if callable(self._volume_path) else self._volume_path
        return known(
            self._cpu_shares(now_s)
            | _memory()
            | self._swapping(now_s)
            | (self._volume(path, now_s) if path is not None else {})
            | self._traffic(now_s)
            | {"host.file_descriptors.open": _open_files(), "host.uptime_seconds": time.time() - psutil.boot_time()}
            | self._mongod_process(now_s)
            | self._agent_process(now_s)
        )

    def _cpu_shares(self, now_s: float) -> dict[str, float | None]:
        times = psutil.cpu_times()
        # Guest time is part of user time already.
        counters = {name: value for name, value in times._asdict().items() if not name.startswith("guest")}
        rates = self._cpu.per_second(now_s, counters)
        whole = sum(rates.values())

        def share(*names: str) -> float | None:
            return percent(sum(rates.get(name, 0.0) for name in names), whole)

        return {
            "host.cpu.user_percent": share("user", "nice"),
            "host.cpu.system_percent": share("system", "irq", "softirq"),
            "host.cpu.iowait_percent": share("iowait") if "iowait" in counters else None,
            "host.cpu.steal_percent": share("steal") if "steal" in counters else None,
            "host.cpu.used_percent": share(*(counters.keys() - {"idle", "iowait"})),
            "host.cpu.cores": self._cores,
            "host.load.one_minute": os.getloadavg()[0],
        }

    def _swapping(self, now_s: float) -> dict[str, float | None]:
        swap = psutil.swap_memory()
        rates = self._swap.per_second(now_s, {"in": swap.sin, "out": swap.sout})
        return {
            "host.swap.total_bytes": swap.total,
            "host.swap.used_bytes": swap.used,
            "host.swap.used_percent": percent(swap.used, swap.total),
            "host.swap.in_bytes_per_second": rates.get("in"),
            "host.swap.out_bytes_per_second": rates.get("out"),
        }

    def _volume(self, path: Path, now_s: float) -> dict[str, float | None]:
        try:
            space, device = os.statvfs(path), os.stat(path).st_dev
        except OSError:
            return {}
        total, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        return {
            "host.disk.total_bytes": total,
            "host.disk.used_bytes": used,
            "host.disk.free_bytes": free,
            # What is reserved for root is neither used nor to be had, as df counts.
            "host.disk.used_percent": percent(used, used + free),
            "host.disk.inodes_used_percent": percent(space.f_files - space.f_favail, space.f_files),
        } | self._disk_use(device, now_s)

    def _disk_use(self, device: int, now_s: float) -> dict[str, float | None]:
        counters = _disk_counters(device)
        rates = self._disk.per_second(now_s, counters, boot=device)
        busy = rates.get("busy_ms")
        return {
            "host.disk.reads_per_second": rates.get("reads"),
            "host.disk.writes_per_second": rates.get("writes"),
            "host.disk.read_bytes_per_second": rates.get("read_bytes"),
            "host.disk.written_bytes_per_second": rates.get("written_bytes"),
            "host.disk.read_latency_milliseconds": quotient(rates.get("read_ms"), rates.get("reads")),
            "host.disk.write_latency_milliseconds": quotient(rates.get("write_ms"), rates.get("writes")),
            # Milliseconds of all requests together, in a second: as many requests as were under way at a time.
            "host.disk.queue_length": quotient(rates.get("queued_ms"), 1000.0),
            "host.disk.busy_percent": percent(busy, 1000.0),
        }

    def _traffic(self, now_s: float) -> dict[str, float | None]:
        # By interface, so that one that comes or goes is no jump in the sum.
        counters = {
            f"{field} {interface}": float(value)
            for interface, figures in psutil.net_io_counters(pernic=True).items()
            if interface != LOOPBACK
            for field, value in figures._asdict().items()
        }
        rates = self._network.per_second(now_s, counters)

        def total(*fields: str) -> float | None:
            found = [rate for key, rate in rates.items() if key.split(" ")[0] in fields]
            return sum(found) if found else None

        return {
            "host.network.received_bytes_per_second": total("bytes_recv"),
            "host.network.sent_bytes_per_second": total("bytes_sent"),
            "host.network.received_packets_per_second": total("packets_recv"),
            "host.network.sent_packets_per_second": total("packets_sent"),
            "host.network.errors_per_second": total("errin", "errout"),
            "host.network.dropped_packets_per_second": total("dropin", "dropout"),
        }

    def _mongod_process(self, now_s: float) -> dict[str, float | None]:
        use = self._mongod.use(self._mongod_pid(), now_s)
        if use is None:
            return {}
        return {
            "mongod.process.cpu_percent": percent(use.cores, self._cores),
            "mongod.process.resident_bytes": use.resident_bytes,
            "mongod.process.threads": use.threads,
            "mongod.process.file_descriptors_open": use.open_files,
            "mongod.process.file_descriptors_used_percent": percent(use.open_files, use.most_files),
        }

    def _agent_process(self, now_s: float) -> dict[str, float | None]:
        use = self._agent.use(os.getpid(), now_s)
        if use is None:
            return {}
        return {
            "agent.core_percent": None if use.cores is None else 100.0 * use.cores,
            "agent.resident_bytes": use.resident_bytes,
            "agent.uptime_seconds": use.age_seconds,
        }


@dataclass(frozen=True, slots=True)
class _Use:
    # Cores kept busy since the last sample.
    cores: float | None
    resident_bytes: float
    threads: float
    open_files: float | None
    most_files: float | None
    age_seconds: float


class _ProcessSampler:
    def __init__(self) -> None:
        self._rates = Rates()
        self._process: psutil.Process | None = None

    def use(self, pid: int, now_s: float) -> _Use | None:
        """What the process uses; None for no process."""
        if not pid:
            return None
        try:
            # psutil compares the start times, so a pid that was given out again counts as another process.
            if self._process is None or self._process.pid != pid or not self._process.is_running():
                self._process = psutil.Process(pid)
            return self._measure(self._process, now_s)
        except psutil.Error:
            self._process = None
            return None

    def _measure(self, process: psutil.Process, now_s: float) -> _Use:
        with process.oneshot():
            times, started = process.cpu_times(), process.create_time()
            rates = self._rates.per_second(now_s, {"cpu": times.user + times.system}, boot=(process.pid, started))
            open_files, most_files = _files_of(process)
            return _Use(
                rates.get("cpu"),
                process.memory_info().rss,
                process.num_threads(),
                open_files,
                most_files,
                max(0.0, time.time() - started),
            )


def _memory() -> dict[str, float | None]:
    memory = psutil.virtual_memory()
    return {
        "host.memory.total_bytes": memory.total,
        "host.memory.available_bytes": memory.available,
        "host.memory.used_percent": percent(memory.total - memory.available, memory.total),
    }


def _disk_counters(device: int) -> Mapping[str, float]:
    """Counters of one block device; empty for a file system without one (tmpfs, overlay)."""
    try:
        text = (BLOCK_DEVICES / f"{os.major(device)}:{os.minor(device)}" / "stat").read_text()
    except OSError:
        return {}
    # Linux' Documentation/block/stat.rst: requests, merged, sectors, milliseconds for reads and for writes; then
    # requests under way, milliseconds busy, milliseconds of all requests together.
    fields = [float(field) for field in text.split()]
    return {
        "reads": fields[0],
        "read_bytes": fields[2] * SECTOR_BYTES,
        "read_ms": fields[3],
        "writes": fields[4],
        "written_bytes": fields[6] * SECTOR_BYTES,
        "write_ms": fields[7],
        "busy_ms": fields[9],
        "queued_ms": fields[10],
    }


def _open_files() -> float | None:
    try:
        return float(OPEN_FILES.read_text().split()[0])
    except (OSError, ValueError):
        return None


def _files_of(process: psutil.Process) -> tuple[float | None, float | None]:
    """Open file descriptors of a process and its limit; None where they may not be seen."""
    with suppress(psutil.Error, OSError, AttributeError):
        soft, _ = process.rlimit(psutil.RLIMIT_NOFILE)
        return process.num_fds(), soft if soft > 0 else None
    return None, None
