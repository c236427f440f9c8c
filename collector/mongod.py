"""What mongod tells: serverStatus and replSetGetStatus as metrics.

`read` is the only part that talks to mongod; the sampler is a function of the documents and of the tick before. A value
that this version of MongoDB does not have, or that this kind of process has not (a router has no cache), is absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from collector.rates import Rates, known, percent, quotient
from collector.replica_set import Oplog, ReplicaSetSampler

Document = Mapping[str, Any]

# Sections that nothing below reads, some of them dear to build or to decode.
_NOT_READ = dict.fromkeys(
    (
        "Instance",
        "activeIndexBuilds",
        "batchedDeletes",
        "catalogStats",
        "defaultRWConcern",
        "freeMonitoring",
        "indexBulkBuilder",
        "indexStats",
        "internalTransactions",
        "logicalSessionRecordCache",
        "mirroredReads",
        "oplogTruncation",
        "queryAnalyzers",
        "readConcernCounters",
        "readPreferenceCounters",
        "scramCache",
        "security",
        "tcmalloc",
        "tenantMigrations",
        "trafficRecording",
        "transportSecurity",
        "twoPhaseCommitCoordinator",
    ),
    0,
)
# NoReplicationEnabled, InvalidReplicaSetConfig (removed from the set), NotYetInitialized.
_NO_REPLICA_SET = frozenset({76, 93, 94})
_SECONDS = 5.0

_CACHE = "wiredTiger.cache."
# The first path that is there counts: sections have moved between versions of MongoDB.
_LEVELS: dict[str, tuple[str, ...]] = {
    "mongod.uptime_seconds": ("uptime",),
    "mongod.connections.current": ("connections.current",),
    "mongod.connections.active": ("connections.active",),
    "mongod.connections.available": ("connections.available",),
    "mongod.queue.readers": ("globalLock.currentQueue.readers",),
    "mongod.queue.writers": ("globalLock.currentQueue.writers",),
    "mongod.queue.total": ("globalLock.currentQueue.total",),
    "mongod.active_clients.readers": ("globalLock.activeClients.readers",),
    "mongod.active_clients.writers": ("globalLock.activeClients.writers",),
    "mongod.tickets.read_in_use": ("queues.execution.read.out", "wiredTiger.concurrentTransactions.read.out"),
    "mongod.tickets.read_available": (
        "queues.execution.read.available",
        "wiredTiger.concurrentTransactions.read.available",
    ),
    "mongod.tickets.write_in_use": ("queues.execution.write.out", "wiredTiger.concurrentTransactions.write.out"),
    "mongod.tickets.write_available": (
        "queues.execution.write.available",
        "wiredTiger.concurrentTransactions.write.available",
    ),
    "mongod.cache.max_bytes": (_CACHE + "maximum bytes configured",),
    "mongod.cache.used_bytes": (_CACHE + "bytes currently in the cache",),
    "mongod.cache.dirty_bytes": (_CACHE + "tracked dirty bytes in the cache",),
    "mongod.checkpoint.last_milliseconds": (
        "wiredTiger.checkpoint.most recent time (msecs)",
        "wiredTiger.transaction.transaction checkpoint most recent time (msecs)",
    ),
    "mongod.cursors.open": ("metrics.cursor.open.total",),
    "mongod.cursors.pinned": ("metrics.cursor.open.pinned",),
    "mongod.cursors.without_timeout": ("metrics.cursor.open.noTimeout",),
    "mongod.transactions.open": ("transactions.currentOpen",),
    "mongod.transactions.active": ("transactions.currentActive",),
    "mongod.transactions.inactive": ("transactions.currentInactive",),
}
_COUNTERS = {
    "mongod.opcounters.insert_per_second": "opcounters.insert",
    "mongod.opcounters.query_per_second": "opcounters.query",
    "mongod.opcounters.update_per_second": "opcounters.update",
    "mongod.opcounters.delete_per_second": "opcounters.delete",
    "mongod.opcounters.getmore_per_second": "opcounters.getmore",
    "mongod.opcounters.command_per_second": "opcounters.command",
    "mongod.opcounters_repl.insert_per_second": "opcountersRepl.insert",
    "mongod.opcounters_repl.update_per_second": "opcountersRepl.update",
    "mongod.opcounters_repl.delete_per_second": "opcountersRepl.delete",
    "mongod.opcounters_repl.command_per_second": "opcountersRepl.command",
    "mongod.connections.created_per_second": "connections.totalCreated",
    "mongod.cache.read_bytes_per_second": _CACHE + "bytes read into cache",
    "mongod.cache.written_bytes_per_second": _CACHE + "bytes written from cache",
    "mongod.cache.pages_evicted_by_clients_per_second": _CACHE + "pages evicted by application threads",
    "mongod.page_faults_per_second": "extra_info.page_faults",
    "mongod.operations.reads_per_second": "opLatencies.reads.ops",
    "mongod.operations.writes_per_second": "opLatencies.writes.ops",
    "mongod.operations.commands_per_second": "opLatencies.commands.ops",
    "mongod.cursors.timed_out_per_second": "metrics.cursor.timedOut",
    "mongod.transactions.started_per_second": "transactions.totalStarted",
    "mongod.transactions.committed_per_second": "transactions.totalCommitted",
    "mongod.transactions.aborted_per_second": "transactions.totalAborted",
    "mongod.asserts.regular_per_second": "asserts.regular",
    "mongod.asserts.warning_per_second": "asserts.warning",
    "mongod.asserts.msg_per_second": "asserts.msg",
    "mongod.asserts.user_per_second": "asserts.user",
    "mongod.documents.inserted_per_second": "metrics.document.inserted",
    "mongod.documents.updated_per_second": "metrics.document.updated",
    "mongod.documents.deleted_per_second": "metrics.document.deleted",
    "mongod.documents.returned_per_second": "metrics.document.returned",
    "mongod.query.keys_examined_per_second": "metrics.queryExecutor.scanned",
    "mongod.query.docs_examined_per_second": "metrics.queryExecutor.scannedObjects",
    "mongod.query.collection_scans_per_second": "metrics.queryExecutor.collectionScans.total",
    "mongod.query.scan_and_order_per_second": "metrics.operation.scanAndOrder",
    "mongod.write_conflicts_per_second": "metrics.operation.writeConflicts",
    "mongod.ttl.deleted_per_second": "metrics.ttl.deletedDocuments",
    "mongod.network.received_bytes_per_second": "network.bytesIn",
    "mongod.network.sent_bytes_per_second": "network.bytesOut",
    "mongod.network.requests_per_second": "network.numRequests",
    "replica_set.applied_per_second": "metrics.repl.apply.ops",
    "replica_set.fetched_bytes_per_second": "metrics.repl.network.bytes",
    "sharding.donated_chunks_per_second": "shardingStatistics.countDonorMoveChunkStarted",
    "sharding.received_chunks_per_second": "shardingStatistics.countRecipientMoveChunkStarted",
    "sharding.stale_config_errors_per_second": "shardingStatistics.countStaleConfigErrors",
}
# Two counters and a factor: the rate of the one for each of the other.
_QUOTIENTS = {
    "mongod.latency.reads_milliseconds": ("opLatencies.reads.latency", "opLatencies.reads.ops", 0.001),
    "mongod.latency.writes_milliseconds": ("opLatencies.writes.latency", "opLatencies.writes.ops", 0.001),
    "mongod.latency.commands_milliseconds": ("opLatencies.commands.latency", "opLatencies.commands.ops", 0.001),
    "mongod.latency.transactions_milliseconds": (
        "opLatencies.transactions.latency",
        "opLatencies.transactions.ops",
        0.001,
    ),
}
_SUMS = {
    "mongod.cache.evicted_pages_per_second": (_CACHE + "modified pages evicted", _CACHE + "unmodified pages evicted"),
    "sharding.cloned_documents_per_second": (
        "shardingStatistics.countDocsClonedOnDonor",
        "shardingStatistics.countDocsClonedOnRecipient",
    ),
}
# What was examined for each document returned.
_EXAMINED = {
    "mongod.query.keys_examined_per_returned": "metrics.queryExecutor.scanned",
    "mongod.query.docs_examined_per_returned": "metrics.queryExecutor.scannedObjects",
}
_RETURNED = "metrics.document.returned"
_THROTTLED = "flowControl.isLaggedTimeMicros"
_LOCKS = {"global": "Global", "database": "Database", "collection": "Collection", "oplog": "oplog"}
_READ = {
    *_COUNTERS.values(),
    *(path for over, under, _ in _QUOTIENTS.values() for path in (over, under)),
    *(path for paths in _SUMS.values() for path in paths),
    _THROTTLED,
}


@dataclass(frozen=True, slots=True)
class Documents:
    """What one look at mongod found."""

    server_status: Document
    # None outside of a replica set, and before it is initiated.
    replset_status: Document | None
    oplog: Oplog | None


def read(client: MongoClient[dict[str, Any]]) -> Documents:
    """Look at mongod: three admin commands, a few milliseconds. Raises PyMongoError where it does not answer."""
    status = client.admin.command({"serverStatus": 1, "oplog": 1, **_NOT_READ, "maxTimeMS": int(_SECONDS * 1000)})
    try:
        replset = client.admin.command({"replSetGetStatus": 1, "maxTimeMS": int(_SECONDS * 1000)})
    except OperationFailure as error:
        if error.code not in _NO_REPLICA_SET and "repl" in status:
            raise
        return Documents(status, None, None)
    return Documents(status, replset, _read_oplog(client, status))


class MongodSampler:
    """The documents of one mongod as values, tick by tick."""

    def __init__(self) -> None:
        self._rates, self._replica_set = Rates(), ReplicaSetSampler()
        # Which run of mongod was seen last, how many runs before it, and how long it had been up.
        self._pid, self._run, self._uptime = None, 0, -1.0
        self._time_s = 0.0

    def sample(
        self,
        now_s: float,
        server_status: Document,
        replset_status: Document | None = None,
        oplog: Oplog | None = None,
    ) -> dict[str, float]:
        """Names of catalog.MONGOD, REPLICA_SET, and SHARDING as far as a shard knows; rates since the last call.

        `now_s` is any clock in seconds that ran on between the calls.
        """
        restarted = self._see_run(server_status)
        seconds, self._time_s = now_s - self._time_s, now_s
        rates = self._rates.per_second(now_s, _counters(server_status), boot=self._run)
        values = (
            {"mongod.restarts": restarted}
            | {name: _first(server_status, *paths) for name, paths in _LEVELS.items()}
            | _sizes(server_status)
            | {name: rates.get(path) for name, path in _COUNTERS.items()}
            | {name: _quotient(rates, *parts) for name, parts in _QUOTIENTS.items()}
            | {name: _sum(rates, paths) for name, paths in _SUMS.items()}
            | {name: _examined(rates, path, seconds) for name, path in _EXAMINED.items()}
            | _waits(rates)
        )
        return known(values) | self._replica_set.sample(server_status, replset_status, oplog)

    def _see_run(self, status: Document) -> float | None:
        """Whether mongod was started anew since the last tick (1 or 0); None at the first."""
        pid, uptime = status.get("pid"), _number(status.get("uptimeMillis")) or 0.0
        first = self._uptime < 0
        restarted = not first and (pid != self._pid or uptime < self._uptime)
        self._pid, self._uptime, self._run = pid, uptime, self._run + restarted
        return None if first else float(restarted)


def _read_oplog(client: MongoClient[dict[str, Any]], status: Document) -> Oplog | None:
    section = status.get("oplog") or {}
    earliest, latest = section.get("earliestOptime"), section.get("latestOptime")
    try:
        stats = client.local.command({"collStats": "oplog.rs", "maxTimeMS": int(_SECONDS * 1000)})
    except OperationFailure:
        return None  # an arbiter has none
    if "maxSize" not in stats:
        return None
    return Oplog(float(stats["maxSize"]), float(stats["size"]), _seconds(earliest), _seconds(latest))


def _seconds(optime: object) -> float | None:
    # In one version the section holds the bare timestamp, in another the document of an optime.
    stamp = optime.get("ts") if isinstance(optime, Mapping) else optime
    return float(stamp.time) if isinstance(stamp, Timestamp) and stamp.time else None


def _counters(status: Document) -> dict[str, float]:
    counters = {path: _at(status, path) for path in _READ}
    locks = status.get("locks")
    if isinstance(locks, Mapping):
        for name, resource in _LOCKS.items():
            # mongod leaves out what has not happened yet.
            found = locks.get(resource) or {}
            counters[f"waits {name}"] = _total(found.get("acquireWaitCount"))
            counters[f"micros {name}"] = _total(found.get("timeAcquiringMicros"))
    return known(counters)


def _waits(rates: Mapping[str, float]) -> dict[str, float | None]:
    values = {
        # Microseconds of lag in a second.
        "mongod.flow_control.throttled_percent": percent(rates.get(_THROTTLED), 1_000_000),
    }
    for name in _LOCKS:
        values[f"mongod.locks.{name}_waits_per_second"] = rates.get(f"waits {name}")
        waited = quotient(rates.get(f"micros {name}"), 1000.0)
        values[f"mongod.locks.{name}_waited_milliseconds_per_second"] = waited
    return values


def _sizes(status: Document) -> dict[str, float | None]:
    size = _at(status, _CACHE + "maximum bytes configured")
    current, available = _at(status, "connections.current"), _at(status, "connections.available")
    both = None if current is None or available is None else current + available
    return {
        "mongod.cache.used_percent": percent(_at(status, _CACHE + "bytes currently in the cache"), size),
        "mongod.cache.dirty_percent": percent(_at(status, _CACHE + "tracked dirty bytes in the cache"), size),
        "mongod.connections.used_percent": percent(current, both),
        "mongod.memory.resident_bytes": _mebibytes(status, "mem.resident"),
        "mongod.memory.virtual_bytes": _mebibytes(status, "mem.virtual"),
    }


def _mebibytes(status: Document, path: str) -> float | None:
    found = _at(status, path)
    return None if found is None else found * 1024 * 1024


def _quotient(rates: Mapping[str, float], over: str, under: str, factor: float) -> float | None:
    found = quotient(rates.get(over), rates.get(under))
    return None if found is None else found * factor


def _sum(rates: Mapping[str, float], paths: tuple[str, ...]) -> float | None:
    return sum(rates[path] for path in paths) if all(path in rates for path in paths) else None


def _examined(rates: Mapping[str, float], path: str, seconds: float) -> float | None:
    """A scan that finds nothing is the worst of all, so none returned counts as one."""
    examined, returned = rates.get(path), rates.get(_RETURNED)
    if examined is None or returned is None or (not examined and not returned):
        return None
    return examined / max(returned, 1 / seconds)


def _first(document: Document, *paths: str) -> float | None:
    return next((found for path in paths if (found := _at(document, path)) is not None), None)


def _at(document: Document, path: str) -> float | None:
    found: object = document
    for key in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return _number(found)


def _number(found: object) -> float | None:
    return float(found) if isinstance(found, int | float) else None


def _total(by_mode: Mapping[str, Any] | None) -> float:
    return float(sum((by_mode or {}).values()))
