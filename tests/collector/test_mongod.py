"""mongod's figures against what serverStatus says when read directly, under load and through a restart."""

import signal
import threading
import time
from typing import Any

import pytest

from collector import catalog
from collector.mongod import Documents, MongodSampler, read
from scripts.workload import COLLECTION, DATABASE, Workload, run
from tests.collector.conftest import MakeMongod
from tests.collector.mongod import Client, Mongod
from tests.waiting import wait_until


def look(sampler: MongodSampler, documents: Documents, now_s: float) -> dict[str, float]:
    return sampler.sample(now_s, documents.server_status, documents.replset_status, documents.oplog)


def counter(documents: Documents, path: str) -> float:
    found: Any = documents.server_status
    for key in path.split("."):
        found = found[key]
    return float(found)


def test_under_load_every_rate_is_what_server_status_has_counted(mongod: Mongod) -> None:
    client, sampler = mongod.client(), MongodSampler()
    Workload(client[DATABASE][COLLECTION]).fill(2000)
    before = read(client)
    assert not [name for name in look(sampler, before, 100.0) if name.endswith("_per_second")]
    done = run(mongod.uri, seconds=3, rounds_per_second=10)
    after = read(client)
    values = look(sampler, after, 110.0)

    def counted(path: str) -> float:
        return (counter(after, path) - counter(before, path)) / 10.0

    for metric, path in {
        "mongod.opcounters.insert_per_second": "opcounters.insert",
        "mongod.opcounters.update_per_second": "opcounters.update",
        "mongod.opcounters.query_per_second": "opcounters.query",
        "mongod.opcounters.delete_per_second": "opcounters.delete",
        "mongod.opcounters.command_per_second": "opcounters.command",
        "mongod.documents.returned_per_second": "metrics.document.returned",
        "mongod.documents.updated_per_second": "metrics.document.updated",
        "mongod.query.scan_and_order_per_second": "metrics.operation.scanAndOrder",
        "mongod.query.docs_examined_per_second": "metrics.queryExecutor.scannedObjects",
        "mongod.query.collection_scans_per_second": "metrics.queryExecutor.collectionScans.total",
        "mongod.asserts.user_per_second": "asserts.user",
        "mongod.network.received_bytes_per_second": "network.bytesIn",
        "mongod.network.requests_per_second": "network.numRequests",
        "mongod.operations.reads_per_second": "opLatencies.reads.ops",
    }.items():
        assert values[metric] == pytest.approx(counted(path)), metric
        assert values[metric] > 0, metric
    # And mongod has counted what was done.
    assert done["failed"] == 0
    assert values["mongod.documents.inserted_per_second"] * 10 >= done["insert"]
    assert values["mongod.opcounters.update_per_second"] * 10 >= done["update"]
    assert values["mongod.asserts.user_per_second"] * 10 >= done["refused"] / 2
    reads = counted("opLatencies.reads.latency") / counted("opLatencies.reads.ops") / 1000
    assert values["mongod.latency.reads_milliseconds"] == pytest.approx(reads)
    examined = counted("metrics.queryExecutor.scannedObjects") / counted("metrics.document.returned")
    assert values["mongod.query.docs_examined_per_returned"] == pytest.approx(examined)


def test_levels_are_those_of_server_status(mongod: Mongod) -> None:
    client = mongod.client()
    documents = read(client)
    values = look(MongodSampler(), documents, 0.0)
    status = documents.server_status
    cache = status["wiredTiger"]["cache"]
    assert values["mongod.connections.current"] == status["connections"]["current"]
    assert values["mongod.cache.max_bytes"] == cache["maximum bytes configured"] == 256 * 1024 * 1024
    used = cache["bytes currently in the cache"]
    assert values["mongod.cache.used_percent"] == pytest.approx(100 * used / cache["maximum bytes configured"])
    assert values["mongod.tickets.read_available"] > 0
    assert values["mongod.memory.resident_bytes"] > 10_000_000
    assert values["mongod.cursors.open"] == status["metrics"]["cursor"]["open"]["total"]


def test_all_that_is_sampled_is_in_the_catalogue_and_nearly_all_of_the_catalogue_is_sampled(mongod: Mongod) -> None:
    client, sampler = mongod.client(), MongodSampler()
    Workload(client[DATABASE][COLLECTION]).fill(100)
    look(sampler, read(client), 0.0)
    work = Workload(client[DATABASE][COLLECTION])
    for kind in (work.insert, work.update, work.find, work.delete, work.refused, work.scan, work.sort):
        kind()
    values = look(sampler, read(client), 10.0)
    assert set(values) <= {*catalog.MONGOD, *catalog.REPLICA_SET, *catalog.SHARDING}
    missing = {*catalog.MONGOD, *catalog.REPLICA_SET} - set(values)
    # No transaction was made, the member is alone, and its oplog is too young.
    assert missing <= {
        "mongod.latency.transactions_milliseconds",
        "replica_set.lag_seconds",
        "replica_set.most_lag_seconds",
        "replica_set.ping_milliseconds",
        "replica_set.oplog_bytes_per_hour",
        "replica_set.oplog_full_window_seconds",
    }


def test_a_scan_that_finds_nothing_counts_as_badly_targeted(mongod: Mongod) -> None:
    client, sampler = mongod.client(), MongodSampler()
    work = Workload(client[DATABASE][COLLECTION])
    work.fill(1000)
    look(sampler, read(client), 0.0)
    work.scan()
    values = look(sampler, read(client), 10.0)
    assert values["mongod.query.docs_examined_per_returned"] >= 500


def test_a_restart_is_no_spike(mongod: Mongod) -> None:
    client, sampler = mongod.client(), MongodSampler()
    look(sampler, read(client), 0.0)
    assert look(sampler, read(client), 10.0)["mongod.restarts"] == 0
    before = read(client)
    mongod.end(signal.SIGKILL)
    mongod.start()
    wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], within=60)
    # More than it had counted before: a reader of the counters alone cannot see that they began anew.
    more = int(counter(before, "opcounters.insert")) + 500
    client[DATABASE][COLLECTION].insert_many([{"number": number} for number in range(more)])
    after = read(client)
    values = look(sampler, after, 20.0)
    assert values["mongod.restarts"] == 1
    assert not [name for name in values if name.endswith("_per_second")]
    assert "mongod.latency.writes_milliseconds" not in values
    # From here on it is measured again.
    values = look(sampler, read(client), 30.0)
    assert values["mongod.restarts"] == 0
    assert values["mongod.opcounters.insert_per_second"] < 1
    assert naive(before, after, 10.0) >= 50, "the control: a plain difference is a spike"


def naive(before: Documents, after: Documents, seconds: float) -> float:
    """What a plain difference would have made of it."""
    return (counter(after, "opcounters.insert") - counter(before, "opcounters.insert")) / seconds


def test_locks_and_queues_show_clients_that_wait(mongod: Mongod) -> None:
    client, sampler = mongod.client(), MongodSampler()
    client[DATABASE][COLLECTION].insert_one({})
    client.admin.command({"fsync": 1, "lock": True})
    writer = threading.Thread(target=client[DATABASE][COLLECTION].insert_one, args=({},))
    try:
        look(sampler, read(client), 0.0)
        writer.start()
        wait_until(lambda: look(sampler, read(client), time.monotonic()).get("mongod.queue.writers"), within=20)
    finally:
        client.admin.command({"fsyncUnlock": 1})
        writer.join(20)
    values = look(sampler, read(client), time.monotonic())
    assert values["mongod.locks.global_waited_milliseconds_per_second"] > 0


def test_the_oplog_has_a_size_and_a_window(mongod: Mongod) -> None:
    client = mongod.client()
    client[DATABASE][COLLECTION].insert_many([{"number": number} for number in range(100)])
    documents = read(client)
    assert documents.oplog is not None
    values = look(MongodSampler(), documents, 0.0)
    oldest, newest = _ends_of_oplog(client)
    assert values["replica_set.oplog_max_bytes"] == 16 * 1024 * 1024
    assert values["replica_set.oplog_used_bytes"] > 1000
    assert values["replica_set.oplog_window_seconds"] == pytest.approx(newest - oldest, abs=11)


def _ends_of_oplog(client: Client) -> tuple[int, int]:
    oplog = client.local["oplog.rs"]
    first, last = oplog.find_one(sort=[("$natural", 1)]), oplog.find_one(sort=[("$natural", -1)])
    assert first is not None
    assert last is not None
    return first["ts"].time, last["ts"].time


def test_a_mongod_outside_of_a_set_and_one_without_its_configuration_have_no_replica_set(
    make_mongod: MakeMongod,
) -> None:
    for options in ((), ("--replSet", "rs0")):
        documents = read(make_mongod(*options).client())
        assert documents.replset_status is None
        values = look(MongodSampler(), documents, 0.0)
        assert values["mongod.connections.current"] >= 1
        assert not [name for name in values if name in catalog.REPLICA_SET]


def test_one_look_is_cheap(mongod: Mongod) -> None:
    client, sampler = mongod.client(), MongodSampler()
    look(sampler, read(client), 0.0)
    began = time.process_time()
    for tick in range(1, 11):
        look(sampler, read(client), float(tick))
    # 10 ms every 10 s is a thousandth of a core; it takes about 4.
    assert (time.process_time() - began) / 10 < 0.02
