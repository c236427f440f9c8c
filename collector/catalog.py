"""Every metric that WAP measures: the one list of names, units, kinds and help that agents, stores, alerts and pages share.

A name is `group.thing_unit`, and says its unit where it has one. Rates are values already when they leave the node:
what is charted, stored and compared with thresholds is per second, never a counter. Sizes are bytes, percentages 0 to 100.

Add a metric: one row here, one read in the sampler of its group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a metric's values are to be read."""

    # A level, such as memory in use or a share of time.
    GAUGE = "gauge"
    # Per second, computed from a counter on the node.
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. `unit` is "" for a plain number; `group` is the first word of the name."""

    name: str
    unit: str
    kind: Kind
    help: str
    group: str


# By the end of a name: its unit, and whether it is a rate. The first that fits counts.
_ENDINGS = {
    "_bytes_per_second": ("bytes/s", Kind.RATE),
    "_milliseconds_per_second": ("ms/s", Kind.RATE),
    "_per_second": ("1/s", Kind.RATE),
    "_bytes": ("bytes", Kind.GAUGE),
    "_bytes_per_hour": ("bytes/h", Kind.GAUGE),
    "_percent": ("percent", Kind.GAUGE),
    "_milliseconds": ("ms", Kind.GAUGE),
    "_seconds": ("seconds", Kind.GAUGE),
}

_HOST = {
    "host.cpu.used_percent": "CPU in use, of all cores: everything but idle and waiting for I/O",
    "host.cpu.user_percent": "CPU in programs, of all cores",
    "host.cpu.system_percent": "CPU in the kernel, interrupts included, of all cores",
    "host.cpu.iowait_percent": "CPU idle while waiting for I/O, of all cores",
    "host.cpu.steal_percent": "CPU that the hypervisor gave to others, of all cores; burstable instances out of credit",
    "host.cpu.cores": "Logical cores",
    "host.load.one_minute": "Processes running or waiting, averaged over one minute",
    "host.uptime_seconds": "Time since the machine's boot",
    "host.memory.total_bytes": "Memory of the machine",
    "host.memory.available_bytes": "Memory that programs could still get without swapping",
    "host.memory.used_percent": "Memory that is not available, of the total",
    "host.swap.total_bytes": "Swap space",
    "host.swap.used_bytes": "Swap space in use",
    "host.swap.used_percent": "Swap space in use, of the total",
    "host.swap.in_bytes_per_second": "Read back from swap",
    "host.swap.out_bytes_per_second": "Written out to swap",
    "host.disk.total_bytes": "Size of the data volume's file system",
    "host.disk.used_bytes": "Space in use on the data volume",
    "host.disk.free_bytes": "Space that mongod can still use on the data volume",
    "host.disk.used_percent": "Space in use on the data volume, of what mongod can use",
    "host.disk.inodes_used_percent": "Inodes in use on the data volume",
    "host.disk.reads_per_second": "Read operations of the data volume (read IOPS)",
    "host.disk.writes_per_second": "Write operations of the data volume (write IOPS)",
    "host.disk.read_bytes_per_second": "Read from the data volume",
    "host.disk.written_bytes_per_second": "Written to the data volume",
    "host.disk.read_latency_milliseconds": "Time per read of the data volume, waiting in its queue included",
    "host.disk.write_latency_milliseconds": "Time per write of the data volume, waiting in its queue included",
    "host.disk.queue_length": "Requests under way on the data volume, averaged over the sample",
    "host.disk.busy_percent": "Share of the time in which the data volume had a request under way",
    "host.network.received_bytes_per_second": "Received on all interfaces but loopback",
    "host.network.sent_bytes_per_second": "Sent on all interfaces but loopback",
    "host.network.received_packets_per_second": "Packets received on all interfaces but loopback",
    "host.network.sent_packets_per_second": "Packets sent on all interfaces but loopback",
    "host.network.errors_per_second": "Packets with errors, both ways, on all interfaces but loopback",
    "host.network.dropped_packets_per_second": "Packets dropped, both ways, on all interfaces but loopback",
    "host.file_descriptors.open": "File descriptors open on the machine",
}

# Of the process, as the machine sees it: known also while mongod does not answer.
_PROCESS = {
    "mongod.process.cpu_percent": "CPU that mongod uses, of all cores",
    "mongod.process.resident_bytes": "Memory that mongod holds",
    "mongod.process.threads": "Threads of mongod",
    "mongod.process.file_descriptors_open": "File descriptors that mongod has open",
    "mongod.process.file_descriptors_used_percent": "File descriptors that mongod has open, of its limit",
}

_MONGOD = {
    "mongod.uptime_seconds": "Time since mongod's start",
    "mongod.restarts": "1 in the first sample after a restart of mongod, else 0",
    "mongod.opcounters.insert_per_second": "Documents inserted by clients",
    "mongod.opcounters.query_per_second": "Queries of clients",
    "mongod.opcounters.update_per_second": "Updates by clients",
    "mongod.opcounters.delete_per_second": "Deletes by clients",
    "mongod.opcounters.getmore_per_second": "Further batches fetched by clients",
    "mongod.opcounters.command_per_second": "Other commands",
    "mongod.opcounters_repl.insert_per_second": "Inserts applied from the oplog",
    "mongod.opcounters_repl.update_per_second": "Updates applied from the oplog",
    "mongod.opcounters_repl.delete_per_second": "Deletes applied from the oplog",
    "mongod.opcounters_repl.command_per_second": "Commands applied from the oplog",
    "mongod.connections.current": "Connections open",
    "mongod.connections.active": "Connections with an operation under way",
    "mongod.connections.available": "Connections that mongod would still accept",
    "mongod.connections.used_percent": "Connections open, of the limit",
    "mongod.connections.created_per_second": "Connections opened",
    "mongod.queue.readers": "Operations waiting for a lock or ticket to read",
    "mongod.queue.writers": "Operations waiting for a lock or ticket to write",
    "mongod.queue.total": "Operations waiting for a lock or ticket",
    "mongod.active_clients.readers": "Clients reading right now",
    "mongod.active_clients.writers": "Clients writing right now",
    "mongod.tickets.read_in_use": "Read tickets of WiredTiger in use",
    "mongod.tickets.read_available": "Read tickets of WiredTiger left; none left means that reads queue",
    "mongod.tickets.write_in_use": "Write tickets of WiredTiger in use",
    "mongod.tickets.write_available": "Write tickets of WiredTiger left; none left means that writes queue",
    "mongod.cache.max_bytes": "Size of WiredTiger's cache",
    "mongod.cache.used_bytes": "Data in WiredTiger's cache",
    "mongod.cache.dirty_bytes": "Data in the cache that is not yet on disk",
    "mongod.cache.used_percent": "Data in the cache, of its size; WiredTiger evicts from 80 on",
    "mongod.cache.dirty_percent": "Dirty data in the cache, of its size; from 20 on clients have to evict themselves",
    "mongod.cache.read_bytes_per_second": "Read into the cache",
    "mongod.cache.written_bytes_per_second": "Written out of the cache",
    "mongod.cache.evicted_pages_per_second": "Pages evicted from the cache",
    "mongod.cache.pages_evicted_by_clients_per_second": "Pages that clients' own threads had to evict: the cache is too small",
    "mongod.checkpoint.last_milliseconds": "Length of the newest checkpoint",
    "mongod.page_faults_per_second": "Page faults that needed the disk",
    "mongod.memory.resident_bytes": "Memory that mongod says it holds",
    "mongod.memory.virtual_bytes": "Address space of mongod",
    "mongod.latency.reads_milliseconds": "Time per read operation inside mongod",
    "mongod.latency.writes_milliseconds": "Time per write operation inside mongod",
    "mongod.latency.commands_milliseconds": "Time per other command inside mongod",
    "mongod.latency.transactions_milliseconds": "Time per transaction inside mongod",
    "mongod.operations.reads_per_second": "Read operations completed",
    "mongod.operations.writes_per_second": "Write operations completed",
    "mongod.operations.commands_per_second": "Other commands completed",
    "mongod.locks.global_waits_per_second": "Times that an operation had to wait for the global lock",
    "mongod.locks.database_waits_per_second": "Times that an operation had to wait for a database's lock",
    "mongod.locks.collection_waits_per_second": "Times that an operation had to wait for a collection's lock",
    "mongod.locks.oplog_waits_per_second": "Times that an operation had to wait for the oplog's lock",
    "mongod.locks.global_waited_milliseconds_per_second": "Waited for the global lock, by all operations together",
    "mongod.locks.database_waited_milliseconds_per_second": "Waited for databases' locks, by all operations together",
    "mongod.locks.collection_waited_milliseconds_per_second": "Waited for collections' locks, by all operations together",
    "mongod.locks.oplog_waited_milliseconds_per_second": "Waited for the oplog's lock, by all operations together",
    "mongod.cursors.open": "Cursors open",
    "mongod.cursors.pinned": "Cursors open with an operation under way",
    "mongod.cursors.without_timeout": "Cursors open that never time out",
    "mongod.cursors.timed_out_per_second": "Cursors closed because nobody used them",
    "mongod.transactions.open": "Transactions open",
    "mongod.transactions.active": "Transactions with an operation under way",
    "mongod.transactions.inactive": "Transactions open without an operation under way",
    "mongod.transactions.started_per_second": "Transactions started",
    "mongod.transactions.committed_per_second": "Transactions committed",
    "mongod.transactions.aborted_per_second": "Transactions aborted",
    "mongod.asserts.regular_per_second": "Regular asserts: mongod's own errors",
    "mongod.asserts.warning_per_second": "Warning asserts",
    "mongod.asserts.msg_per_second": "Message asserts: internal errors, see the log",
    "mongod.asserts.user_per_second": "User asserts: errors returned to clients, such as duplicate keys",
    "mongod.documents.inserted_per_second": "Documents inserted",
    "mongod.documents.updated_per_second": "Documents updated",
    "mongod.documents.deleted_per_second": "Documents deleted",
    "mongod.documents.returned_per_second": "Documents returned by queries",
    "mongod.query.keys_examined_per_second": "Index keys examined by queries",
    "mongod.query.docs_examined_per_second": "Documents examined by queries",
    "mongod.query.keys_examined_per_returned": "Index keys examined for each document returned",
    "mongod.query.docs_examined_per_returned": "Documents examined for each document returned; high values want an index",
    "mongod.query.collection_scans_per_second": "Queries that read a whole collection",
    "mongod.query.scan_and_order_per_second": "Queries that sorted in memory, since no index gave the order",
    "mongod.write_conflicts_per_second": "Writes that met another write to the same document and were tried again",
    "mongod.ttl.deleted_per_second": "Documents deleted by TTL indexes",
    "mongod.network.received_bytes_per_second": "Received by mongod from clients and members",
    "mongod.network.sent_bytes_per_second": "Sent by mongod to clients and members",
    "mongod.network.requests_per_second": "Requests taken by mongod",
    "mongod.flow_control.throttled_percent": "Share of the time in which the primary held back writes for a lagging majority",
}

# Sums over all databases; from the storage sampler, so they come less often than the rest.
_STORAGE = {
    "mongod.storage.data_bytes": "Documents of all databases, uncompressed",
    "mongod.storage.storage_bytes": "Collections of all databases on disk",
    "mongod.storage.index_bytes": "Indexes of all databases on disk",
    "mongod.storage.free_bytes": "Space inside the files of all databases that mongod can use again",
    "mongod.storage.documents": "Documents of all databases",
    "mongod.storage.collections": "Collections of all databases",
    "mongod.storage.indexes": "Indexes of all databases",
}

_REPLICA_SET = {
    "replica_set.state": "State by MongoDB's numbers: 1 primary, 2 secondary, 3 recovering, 5 initial sync, 7 arbiter",
    "replica_set.is_primary": "1 while this member is primary, else 0",
    "replica_set.has_primary": "1 while this member knows a primary, else 0",
    "replica_set.lag_seconds": "How far this member is behind the newest write it knows of; absent on a primary",
    "replica_set.most_lag_seconds": "How far the last of the other data-bearing members is behind, as this member sees it",
    "replica_set.commit_lag_seconds": "How far the majority's writes are behind this member's own",
    "replica_set.term": "Term of the set: each election makes it larger",
    "replica_set.elections": "Terms begun since the last sample: elections held, also those without a winner",
    "replica_set.elections_won": "Elections that this member has won since its mongod's start",
    "replica_set.members": "Members of the set, this one included",
    "replica_set.healthy_members": "Members that this one reaches and that serve: primary, secondaries, arbiters",
    "replica_set.ping_milliseconds": "Round trip to the member that answers slowest",
    "replica_set.oplog_max_bytes": "Size that the oplog may have",
    "replica_set.oplog_used_bytes": "Size of the oplog",
    "replica_set.oplog_window_seconds": "Time between the oldest and the newest entry of the oplog",
    "replica_set.oplog_full_window_seconds": (
        "Time that the oplog reaches back once it is full, at the pace of what is in it; the figure to watch, since the "
        "oplog of a new set is young without being small"
    ),
    "replica_set.oplog_bytes_per_hour": "Growth of the oplog, averaged over its window",
    "replica_set.applied_per_second": "Operations applied from the oplog of another member",
    "replica_set.apply_buffer_bytes": "Operations fetched and not yet applied",
    "replica_set.fetched_bytes_per_second": "Read from the oplog of another member",
}

# One object for each namespace.
_COLLECTION = {
    "collection.documents": "Documents",
    "collection.data_bytes": "Documents, uncompressed",
    "collection.average_document_bytes": "Average size of a document",
    "collection.storage_bytes": "Size on disk without indexes",
    "collection.free_bytes": "Space inside the collection's file that mongod can use again",
    "collection.index_bytes": "Size of all indexes on disk",
    "collection.indexes": "Number of indexes",
    "collection.reads_per_second": "Read operations of clients",
    "collection.writes_per_second": "Write operations of clients",
    "collection.read_latency_milliseconds": "Time per read operation",
    "collection.write_latency_milliseconds": "Time per write operation",
}

_SHARDING = {
    "sharding.shards": "Shards of the cluster",
    "sharding.collections": "Sharded collections",
    "sharding.chunks": "Chunks; of one shard where the series has an object",
    "sharding.jumbo_chunks": "Chunks that are too large to be moved",
    "sharding.balancer_enabled": "1 while the balancer is switched on, else 0",
    "sharding.migrations_per_second": "Chunk migrations completed, as the config server logs them",
    "sharding.failed_migrations_per_second": "Chunk migrations failed or given up, as the config server logs them",
    "sharding.donated_chunks_per_second": "Chunk migrations begun away from this shard",
    "sharding.received_chunks_per_second": "Chunk migrations begun to this shard",
    "sharding.cloned_documents_per_second": "Documents copied from or to this shard by migrations",
    "sharding.stale_config_errors_per_second": "Requests refused because a router knew an old distribution",
}

_AGENT = {
    "agent.core_percent": "CPU that the agent uses, of one core",
    "agent.resident_bytes": "Memory that the agent holds",
    "agent.buffer_bytes": "Samples and log lines on disk that the control plane has not acknowledged",
    "agent.dropped_frames": "Frames dropped since the agent's start",
    "agent.dropped_logs": "Log lines dropped since the agent's start",
    "agent.connection_losses": "Times that the agent has lost the control plane since its start",
    "agent.uptime_seconds": "Time since the agent's start",
}


def _metrics(*rows: dict[str, str]) -> Iterator[Metric]:
    for row in rows:
        for name, text in row.items():
            fitting = (found for ending, found in _ENDINGS.items() if name.endswith(ending))
            unit, kind = next(fitting, ("", Kind.GAUGE))
            yield Metric(name, unit, kind, text, name.partition(".")[0])


CATALOG: dict[str, Metric] = {
    metric.name: metric
    for metric in _metrics(_HOST, _PROCESS, _MONGOD, _STORAGE, _REPLICA_SET, _COLLECTION, _SHARDING, _AGENT)
}

# What each sampler may return, in the order of the catalogue.
HOST = tuple(_HOST) + tuple(_PROCESS)
MONGOD = tuple(_MONGOD)
STORAGE = tuple(_STORAGE)
REPLICA_SET = tuple(_REPLICA_SET)
COLLECTION = tuple(_COLLECTION)
SHARDING = tuple(_SHARDING)
AGENT = tuple(_AGENT)
# Of the node itself (object ""): one metric set for each tick.
NODE = HOST + MONGOD + STORAGE + REPLICA_SET + SHARDING + AGENT
