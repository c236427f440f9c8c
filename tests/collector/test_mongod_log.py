"""The log of a real mongod: rotated while it is written, with slow queries, and with nothing of a user's in what is read."""

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId
from pymongo.errors import PyMongoError

from collector import logs, slow
from collector.follow import Follower
from collector.redaction import redacted
from tests.collector.conftest import MakeMongod
from tests.collector.mongod import Client, Mongod
from tests.waiting import wait_until

CANARY, NUMBER = "CANARY", 777_777
MOMENT = datetime(1977, 7, 7, 7, 7, 7)
# The canaries as mongod may print them: as text, in hexadecimal and in base64.
PRINTED = ("CANARY", "777777", "1977-07-07", "43414E415259", "Q0FOQVJZ")


@pytest.fixture
def server(make_mongod: MakeMongod) -> Mongod:
    """A mongod for which each operation is slow."""
    return make_mongod("--slowms", "0")


def read_all(follower: Follower) -> list[bytes]:
    lines: list[bytes] = []
    while True:
        batch = follower.read()
        lines += batch.lines
        if not batch.more:
            return lines


def rotated(log: Path) -> list[Path]:
    """Rotated files, the oldest first."""
    return sorted(log.parent.glob("mongod.log.*"), key=lambda path: path.stat().st_mtime_ns)


def is_due(log: Path) -> bool:
    """Whether mongod rotates again: it ignores a signal that comes too soon after the last."""
    return all(time.time() > path.stat().st_mtime + 2.2 for path in rotated(log))


def on_disk(log: Path) -> list[bytes]:
    """The lines of all files, the rotated ones first."""
    return [line for path in [*rotated(log), log] for line in path.read_bytes().splitlines() if line]


@contextmanager
def busy(server: Mongod) -> Iterator[None]:
    """Operations, and so log lines, until the block ends."""
    done = threading.Event()

    def work() -> None:
        with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
            while not done.is_set():
                client.shop.orders.insert_one({"a": 1})

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()


def insert(server: Mongod) -> None:
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        client.shop.orders.insert_one({"a": 1})


def by_command(server: Mongod) -> None:
    """Rotate by the logRotate command."""
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        client.admin.command({"logRotate": "server"})


def by_signal(server: Mongod) -> None:
    """Rotate by SIGUSR1."""
    before = len(rotated(server.log))
    os.kill(server.pid, signal.SIGUSR1)
    wait_until(lambda: len(rotated(server.log)) > before, within=10)


def by_restart(server: Mongod) -> None:
    """End mongod and start it again: it appends to its log."""
    server.end(signal.SIGKILL)
    server.start()


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("rotate", [by_command, by_signal])
def test_rotation_under_load(server: Mongod, rotate: Any, is_restarted: bool) -> None:
    follower, read = Follower(server.log), []
    with busy(server):
        for _ in range(3):
            batch = follower.read(50)
            read += batch.lines
            wait_until(lambda: is_due(server.log), within=10)
            rotate(server)
            if is_restarted:
                position = batch.position
                assert position is not None
                follower.close()
                follower = Follower(server.log, position=position.dumps())
    read += read_all(follower)
    server.end()
    read += read_all(follower)
    assert len(rotated(server.log)) == 3
    assert len(read) > 100
    assert read == on_disk(server.log)
    assert follower.gaps == 0


def test_mongod_dies_and_comes_back(server: Mongod) -> None:
    follower = Follower(server.log)
    read = read_all(follower)
    by_restart(server)
    read += read_all(follower)
    server.end()
    read += read_all(follower)
    assert read == on_disk(server.log)


def test_the_log_is_copied_and_truncated(server: Mongod) -> None:
    follower = Follower(server.log)
    read = read_all(follower)
    insert(server)
    with server.frozen():  # so that the copy is complete: what is written in between is lost to everybody
        shutil.copyfile(server.log, server.log.with_name("mongod.log.1"))
        os.truncate(server.log, 0)
    insert(server)
    server.end()
    read += read_all(follower)
    assert read == on_disk(server.log)
    assert follower.gaps == 0


def test_each_line_is_understood(server: Mongod) -> None:
    insert(server)
    server.end()
    lines = read_all(Follower(server.log))
    parsed = [logs.parse(line) for line in lines]
    assert len(parsed) > 50
    assert all(line.time and line.component and line.message_id and line.context and line.text for line in parsed)
    assert [(line.severity, line.time.timestamp()) for line in parsed if line.time] == [
        logs.glance(line) for line in lines
    ]
    assert {line.component for line in parsed} >= {"NETWORK", "STORAGE", "CONTROL", "COMMAND"}
    assert not any(line.cut for line in parsed)


def test_no_value_of_a_user_is_in_what_is_read(server: Mongod) -> None:
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        client.admin.command(
            {"setParameter": 1, "logComponentVerbosity": {"verbosity": 2, "network": {"verbosity": 0}}}
        )
        use(client)
    server.end()
    lines = read_all(Follower(server.log))
    plain = [leaks for line in lines if (leaks := told(logs.parse(line)))]
    assert len(plain) > 30, "the control: the canaries are in the log itself"
    leaked = [text for line in lines if (text := told(redacted(logs.parse(line))))]
    assert leaked == []


def told(parsed: logs.Parsed) -> str:
    """What a line shows, if a canary is in it."""
    query = slow.slow_query(parsed)
    shapes = f"{query.predicate_shape} {query.sort_shape}" if query else ""
    text = f"{parsed.severity} {parsed.message_id} {parsed.text} {logs.attributes_json(parsed)} {shapes}"
    return text if any(printed in text for printed in PRINTED) else ""


def use(client: Client) -> None:
    """Put canaries into each kind of command, with success and without."""
    orders = client.shop.orders
    values = {"name": CANARY, "n": NUMBER, "at": MOMENT, "b": Binary(CANARY.encode()), "d": Decimal128(str(NUMBER))}
    orders.insert_many([{**values, "i": number, "u": f"{CANARY}{number}"} for number in range(20)])
    orders.create_index("u", unique=True, partialFilterExpression={"name": CANARY})
    predicates: list[dict[str, Any]] = [
        values,
        {"n": {"$gt": NUMBER, "$in": [NUMBER, Int64(NUMBER)]}, "$or": [{"name": CANARY}, {"name": re.compile(CANARY)}]},
        {"$expr": {"$eq": ["$name", CANARY]}},
        {"$where": f"this.name == '{CANARY}'"},
        {"tags": {"$elemMatch": {"a": CANARY}}},
        {"_id": ObjectId(CANARY.encode() * 2)},
        {"name": {"$regex": f"{CANARY}(("}},
        {"name": {"$gt": f'"{CANARY}" }} , n: "{CANARY}'}},
    ]
    for predicate in predicates:
        tried(lambda predicate=predicate: list(orders.find(predicate, comment=CANARY).sort("n", -1)))
        tried(lambda predicate=predicate: orders.update_many(predicate, {"$set": {"x": CANARY}, "$inc": {"y": NUMBER}}))
        tried(
            lambda predicate=predicate: orders.update_one(predicate, [{"$set": {"x": {"$concat": ["$name", CANARY]}}}])
        )
        tried(lambda predicate=predicate: orders.count_documents(predicate))
        tried(lambda predicate=predicate: orders.distinct("name", predicate))
        tried(lambda predicate=predicate: orders.find_one_and_update(predicate, {"$push": {"l": CANARY}}))
        tried(lambda predicate=predicate: list(orders.find(predicate, max_time_ms=1)))
    pipeline: list[dict[str, Any]] = [
        {"$match": {"name": CANARY}},
        {"$group": {"_id": "$name", "l": {"$push": CANARY}}},
        {"$sort": {"l": 1}},
    ]
    tried(lambda: list(orders.aggregate(pipeline)))
    tried(lambda: list(orders.aggregate([{"$project": {"x": {"$toInt": "$name"}}}])))
    tried(lambda: client.shop.command({"explain": {"find": "orders", "filter": {"name": CANARY}}}))
    tried(lambda: client.shop.command({"mapReduce": "orders", "map": Code(f"emit('{CANARY}', 1)"), "out": CANARY}))
    tried(lambda: orders.insert_one({"name": CANARY, "u": f"{CANARY}1"}))  # a duplicate
    tried(lambda: orders.replace_one({"u": f"{CANARY}2"}, {"name": CANARY, "u": f"{CANARY}1"}))
    tried(lambda: orders.delete_many({"name": CANARY, "n": {"$lt": NUMBER}}))
    schema = {"$jsonSchema": {"properties": {"a": {"enum": [CANARY]}}}}
    tried(lambda: client.shop.create_collection("checked", validator=schema))
    tried(lambda: client.shop.checked.insert_one({"a": f"{CANARY} is not allowed"}))


def tried(operation: Any) -> None:
    with contextlib.suppress(PyMongoError):
        operation()


def test_the_index_that_is_advised_helps(server: Mongod) -> None:
    orders = server.client().shop.orders
    orders.insert_many([{"status": number % 50, "created": -number, "n": number % 7} for number in range(5000)])

    def query() -> slow.SlowQuery:
        list(orders.find({"status": 7, "n": {"$gt": 4}}).sort("created", 1).limit(10))
        found = [slow.slow_query(redacted(logs.parse(line))) for line in read_all(follower)]
        return next(found for found in reversed(found) if found is not None and found.operation == "find")

    follower = Follower(server.log)
    before = query()
    assert (before.namespace, before.collection_scan, before.sorted_in_memory) == ("shop.orders", True, True)
    assert (before.docs_examined, before.docs_returned) == (5000, 10)
    advice = slow.advise(totals(before))
    assert advice is not None
    assert advice.keys == '{"status": 1, "created": 1, "n": 1}'
    orders.create_index(list(json.loads(advice.keys).items()))
    after = query()
    assert (after.predicate_shape, after.sort_shape) == (before.predicate_shape, before.sort_shape)
    assert not after.collection_scan
    assert not after.sorted_in_memory
    assert after.docs_examined <= 2 * after.docs_returned
    assert slow.advise(totals(after)) is None


def totals(query: slow.SlowQuery) -> slow.Shape:
    """One query as a group."""
    return slow.Shape(
        query.namespace,
        query.operation,
        query.predicate_shape,
        query.sort_shape,
        count=1,
        docs_examined=query.docs_examined,
        docs_returned=query.docs_returned,
        collection_scans=int(query.collection_scan),
        sorts_in_memory=int(query.sorted_in_memory),
        plan_summary=query.plan_summary,
    )
