"""What the fake's nodes seem to do: for each metric a curve over time, the same whenever it is asked for.

A failover 25 minutes before the fake started and a gap of one member half an hour before that are part of every curve,
so that charts have something to mark.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30
DAY = 86400.0
FAILOVER_AGO = 25 * 60.0
GAP_AGO = (58 * 60.0, 53 * 60.0)
"""From and to, in seconds before the fake started."""

PRIMARY, SECONDARY = 1.0, 2.0


@dataclass(frozen=True)
class Curve:
    """A level with a slow wave and noise. `secondary` is the level of members that take no writes, as a share."""

    level: float
    wave: float = 0.3
    noise: float = 0.08
    secondary: float = 1.0
    highest: float = math.inf
    growing: float = 0.0
    """Share of the level that is added per day."""


CURVES: Mapping[str, Curve] = {
    "host.cpu.used_percent": Curve(38, 0.35, 0.1, 0.6, 100),
    "host.cpu.user_percent": Curve(31, 0.35, 0.12, 0.6, 100),
    "host.cpu.system_percent": Curve(7, 0.3, 0.15, 0.7, 100),
    "host.cpu.iowait_percent": Curve(4, 0.5, 0.4, 0.8, 100),
    "host.cpu.steal_percent": Curve(0.6, 0.5, 0.6, 1, 100),
    "host.memory.available_bytes": Curve(2.9 * GIB, 0.05, 0.01, 1.1),
    "host.memory.total_bytes": Curve(8 * GIB, 0, 0),
    "host.memory.used_percent": Curve(63, 0.05, 0.01, 0.92, 100),
    "host.swap.used_bytes": Curve(0, 0, 0),
    "host.swap.used_percent": Curve(0, 0, 0),
    "host.disk.used_percent": Curve(58, 0.0, 0.0, 0.97, 100, 0.01),
    "host.disk.used_bytes": Curve(11.6 * GIB, 0, 0, 0.97, growing=0.01),
    "host.disk.total_bytes": Curve(20 * GIB, 0, 0),
    "host.disk.reads_per_second": Curve(410, 0.4, 0.2, 0.5),
    "host.disk.writes_per_second": Curve(690, 0.35, 0.15, 0.8),
    "host.disk.read_bytes_per_second": Curve(6.3e6, 0.4, 0.2, 0.5),
    "host.disk.written_bytes_per_second": Curve(1.4e7, 0.35, 0.15, 0.8),
    "host.disk.read_latency_milliseconds": Curve(0.9, 0.4, 0.25),
    "host.disk.write_latency_milliseconds": Curve(1.6, 0.4, 0.25),
    "host.disk.queue_length": Curve(1.2, 0.5, 0.4),
    "host.disk.busy_percent": Curve(34, 0.4, 0.2, 0.8, 100),
    "host.network.received_bytes_per_second": Curve(3.4e6, 0.35, 0.1, 0.8),
    "host.network.sent_bytes_per_second": Curve(9.2e6, 0.35, 0.1, 0.3),
    "mongod.process.file_descriptors_open": Curve(2100, 0.1, 0.02, 0.6),
    "mongod.opcounters.query_per_second": Curve(3900, 0.4, 0.08, 0.12),
    "mongod.opcounters.insert_per_second": Curve(1050, 0.35, 0.08, 0.0),
    "mongod.opcounters.update_per_second": Curve(2150, 0.35, 0.08, 0.0),
    "mongod.opcounters.delete_per_second": Curve(140, 0.3, 0.15, 0.0),
    "mongod.opcounters.getmore_per_second": Curve(610, 0.3, 0.1, 0.1),
    "mongod.opcounters.command_per_second": Curve(320, 0.25, 0.1, 0.7),
    "mongod.connections.current": Curve(1480, 0.15, 0.06, 0.33),
    "mongod.connections.active": Curve(46, 0.3, 0.25, 0.3),
    "mongod.connections.used_percent": Curve(3, 0.15, 0.06, 0.33, 100),
    "mongod.latency.reads_milliseconds": Curve(1.1, 0.3, 0.15),
    "mongod.latency.writes_milliseconds": Curve(2.3, 0.3, 0.15),
    "mongod.latency.commands_milliseconds": Curve(0.6, 0.3, 0.2),
    "mongod.queue.readers": Curve(0.8, 0.6, 0.9, 0.4),
    "mongod.queue.writers": Curve(1.5, 0.6, 0.9, 0.1),
    "mongod.queue.total": Curve(2.3, 0.6, 0.9, 0.2),
    "mongod.tickets.read_available": Curve(122, 0.02, 0.02, 1.03, 128),
    "mongod.tickets.write_available": Curve(119, 0.03, 0.03, 1.06, 128),
    "mongod.cache.used_percent": Curve(79.5, 0.01, 0.004, 0.98, 100),
    "mongod.cache.dirty_percent": Curve(4.2, 0.4, 0.2, 0.7, 100),
    "mongod.cache.evicted_pages_per_second": Curve(240, 0.5, 0.3, 0.6),
    "mongod.page_faults_per_second": Curve(6, 0.5, 0.5, 0.6),
    "mongod.query.docs_examined_per_returned": Curve(3.4, 0.3, 0.2),
    "mongod.query.collection_scans_per_second": Curve(2, 0.5, 0.4, 0.2),
    "mongod.query.scan_and_order_per_second": Curve(12, 0.5, 0.3, 0.2),
    "mongod.cursors.open": Curve(64, 0.3, 0.2, 0.4),
    "mongod.transactions.open": Curve(11, 0.4, 0.3, 0.0),
    "mongod.asserts.user_per_second": Curve(1.4, 0.6, 0.6, 0.5),
    "replica_set.lag_seconds": Curve(0.4, 0.4, 0.5),
    "replica_set.oplog_window_seconds": Curve(71 * 3600, 0.05, 0.0),
    "replica_set.state": Curve(2, 0, 0),
    "agent.core_percent": Curve(0.6, 0.2, 0.4, 1, 100),
    "agent.resident_bytes": Curve(47e6, 0.01, 0.01),
    "agent.buffer_bytes": Curve(0, 0, 0),
}
"""Of the catalogue, what the fake has figures for."""

STORAGE: Mapping[str, tuple[float, float, float, float]] = {
    "shop.orders": (41_200_000, 18.2 * GIB, 6.1 * GIB, 1.9 * GIB),
    "shop.customers": (2_900_000, 1.4 * GIB, 0.6 * GIB, 0.2 * GIB),
    "shop.carts": (780_000, 0.9 * GIB, 0.5 * GIB, 0.1 * GIB),
    "audit.events": (96_000_000, 22.8 * GIB, 4.9 * GIB, 3.3 * GIB),
}
"""Namespace -> documents, data, storage and index size in bytes."""

STORAGE_METRICS = (
    "collection.documents",
    "collection.data_bytes",
    "collection.storage_bytes",
    "collection.index_bytes",
)


def value(metric: str, node_id: str, at: float, *, born: float, is_primary: bool, was_primary: bool) -> float | None:
    """What was measured at `at` (seconds since the epoch); None in the gap. `born` is when the fake started."""
    if was_primary and born - GAP_AGO[0] <= at < born - GAP_AGO[1] and metric != "replica_set.state":
        return None
    leads = is_primary if at >= born - FAILOVER_AGO else was_primary
    if metric == "replica_set.state":
        return PRIMARY if leads else SECONDARY
    curve = CURVES[metric]
    if metric == "replica_set.lag_seconds":
        if leads:
            return None
        # The members catch up with the new primary.
        since = at - (born - FAILOVER_AGO)
        return abs(_level(curve, metric, node_id, at)) + (9 * math.exp(-since / 70) if 0 <= since < 600 else 0.0)
    share = 1.0 if leads else curve.secondary
    return max(0.0, min(curve.highest, share * _level(curve, metric, node_id, at)))


def _level(curve: Curve, metric: str, node_id: str, at: float) -> float:
    seed = zlib.crc32(f"{metric}/{node_id}".encode()) % 10_000
    slow = math.sin(at / 3100 + seed % 7 / 9) * 0.6 + math.sin(at / 14_000 + seed % 3) * 0.4
    rough = math.sin(at * 12.9898 + seed * 78.233) * 43758.5453
    own = 0.9 + (seed % 100) / 500
    grown = 1 + curve.growing * (at % (10 * DAY)) / DAY
    return curve.level * own * grown * (1 + curve.wave * slow + curve.noise * (rough - math.floor(rough) - 0.5) * 2)
