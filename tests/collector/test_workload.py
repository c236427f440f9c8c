"""The load for demonstrations and tests: of every kind, bounded in size and time, unmoved by a failing server."""

import signal
import threading

from typer.testing import CliRunner

from scripts import workload
from scripts.workload import COLLECTION, DATABASE, Workload
from tests.collector.mongod import Mongod
from tests.waiting import wait_until


def test_it_does_a_bit_of_everything_and_says_what(mongod: Mongod) -> None:
    shown = CliRunner().invoke(workload.app, ["--uri", mongod.uri, "--seconds", "2", "--fill", "500"])
    assert shown.exit_code == 0, shown.output
    done = dict(line.split() for line in shown.output.splitlines())
    assert set(done) == {"insert", "update", "find", "delete", "refused", "scan", "sort"}
    assert mongod.client()[DATABASE][COLLECTION].count_documents({}) > 500


def test_the_collection_stays_at_its_size(mongod: Mongod) -> None:
    orders = mongod.client()[DATABASE][COLLECTION]
    work = Workload(orders, most_documents=300)
    for _ in range(150):
        work.insert()
    assert orders.estimated_document_count() <= 300 + 50 * workload.BATCH


def test_it_ends_when_told_to_and_outlives_a_dead_server(mongod: Mongod) -> None:
    ended, done = threading.Event(), list[int]()
    options = {"serverSelectionTimeoutMS": 200}
    worker = threading.Thread(
        target=lambda: done.append(workload.run(mongod.uri, seconds=600, ended=ended, **options)["failed"])
    )
    worker.start()
    orders = mongod.client()[DATABASE][COLLECTION]
    wait_until(lambda: orders.find_one({}), within=20)
    mongod.end(signal.SIGKILL)
    mongod.start()
    wait_until(lambda: mongod.client().admin.command("hello")["isWritablePrimary"], within=60)
    before = orders.count_documents({})
    wait_until(lambda: orders.count_documents({}) > before, within=30)
    ended.set()
    worker.join(20)
    assert not worker.is_alive()
    assert done[0] > 0
