"""A small, bounded load for a mongod: inserts, updates, finds, deletes, refused inserts, whole scans, sorts in memory.

    python -m scripts.workload --uri mongodb://127.0.0.1:27017 --seconds 60

For demonstrations and tests, where charts and slow queries need something to show; it measures nothing.
"""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pymongo
import typer
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, PyMongoError

DATABASE, COLLECTION = "wap_workload", "orders"
# The collection stays at about this size: 1 kB a document.
MOST_DOCUMENTS = 20_000
BATCH = 20
CITIES = ("Basel", "Bergen", "Bologna", "Bordeaux", "Bremen", "Bristol", "Brno", "Bruges")
# Both backtrack over the whole text of each document: about 100 ms with a few thousand documents.
NEVER_FOUND, FOUND_LATE = "^the.*[#%]", "^the.*[#%]|quarry"
# Scans and sorts take long, so they come in one round of so many.
ROUNDS_PER_SCAN = 5
ONE_KILOBYTE = "the quick brown fox quietly quits the quite quaint quarry " * 17
app = typer.Typer(add_completion=False)

Documents = Collection[dict[str, Any]]


class Workload:
    """One worker on one collection. Each method is one kind of work, and says how many operations it sent."""

    def __init__(self, documents: Documents, *, seed: int = 0, most_documents: int = MOST_DOCUMENTS) -> None:
        self._documents, self._most = documents, most_documents
        self._random = random.Random(seed)
        self._inserted = 0

    def fill(self, count: int) -> int:
        """Insert so many documents: what scans and sorts need to be slow."""
        for begin in range(0, count, 1000):
            self._documents.insert_many([self._order() for _ in range(min(1000, count - begin))])
        return count

    def insert(self) -> int:
        """Insert one batch, and delete the oldest documents where there are too many."""
        self._documents.insert_many([self._order() for _ in range(BATCH)])
        self._inserted += BATCH
        if self._inserted >= 50 * BATCH:
            self._inserted = 0
            self._thin_out()
        return BATCH

    def update(self) -> int:
        """Change single documents by a filter without an index, which ends at the first that fits."""
        for _ in range(BATCH):
            self._documents.update_one({"city": self._city()}, {"$inc": {"changes": 1}})
        return BATCH

    def find(self) -> int:
        """Read single documents by their key."""
        keys = [found["_id"] for found in self._documents.find({}, {"_id": 1}, limit=BATCH)]
        for key in keys:
            self._documents.find_one({"_id": key})
        return len(keys) + 1

    def delete(self) -> int:
        """Delete single documents."""
        for _ in range(2):
            self._documents.delete_one({"city": self._city()})
        return 2

    def refused(self) -> int:
        """Insert a key that is there: a user assert."""
        found = self._documents.find_one({}, {"_id": 1})
        if found is not None:
            try:
                self._documents.insert_one(found)
            except DuplicateKeyError:
                pass
        return 2

    def scan(self) -> int:
        """Read the whole collection and find nothing: a slow query that an index would not help."""
        list(self._documents.find({"text": {"$regex": NEVER_FOUND}}))
        return 1

    def sort(self) -> int:
        """Filter and sort without an index: a slow query that `{status: 1, amount: -1}` would help."""
        filters = {"status": "open", "text": {"$regex": FOUND_LATE}}
        list(self._documents.find(filters).sort("amount", -1).limit(10))
        return 1

    def _thin_out(self) -> None:
        surplus = self._documents.estimated_document_count() - self._most
        if surplus > 0:
            oldest = [found["_id"] for found in self._documents.find({}, {"_id": 1}).sort("_id", 1).limit(surplus)]
            self._documents.delete_many({"_id": {"$in": oldest}})

    def _order(self) -> dict[str, Any]:
        return {
            "city": self._city(),
            "status": "open" if self._random.random() < 0.9 else "shipped",
            "amount": self._random.randint(1, 10_000),
            "changes": 0,
            "text": ONE_KILOBYTE,
        }

    def _city(self) -> str:
        return self._random.choice(CITIES)


def run(
    uri: str,
    *,
    seconds: float,
    workers: int = 2,
    rounds_per_second: float = 5.0,
    ended: threading.Event | None = None,
    **options: Any,
) -> Counter[str]:
    """Load the mongod at `uri` until `seconds` have passed or `ended` is set; what was done, by kind.

    Each worker does at most `rounds_per_second` rounds, each of one call of every kind. Failures (a failover, say) are
    counted as "failed", and the work goes on. `options` go to the client.
    """
    ended = ended or threading.Event()
    with pymongo.MongoClient[dict[str, Any]](uri, appname="wap-workload", **options) as client:
        documents = client[DATABASE][COLLECTION]
        with ThreadPoolExecutor(workers) as pool:
            works = [
                pool.submit(
                    _work, Workload(documents, seed=seed), time.monotonic() + seconds, 1 / rounds_per_second, ended
                )
                for seed in range(workers)
            ]
        return sum((work.result() for work in works), Counter())


def _work(work: Workload, until: float, pause: float, ended: threading.Event) -> Counter[str]:
    done = Counter[str]()
    for round_number in itertools.count():
        if time.monotonic() >= until or ended.is_set():
            return done
        began = time.monotonic()
        for kind in _kinds(work, with_scans=round_number % ROUNDS_PER_SCAN == 0):
            try:
                done[kind.__name__] += kind()
            except PyMongoError:
                done["failed"] += 1
        ended.wait(max(0.0, min(pause - (time.monotonic() - began), until - time.monotonic())))
    return done


def _kinds(work: Workload, *, with_scans: bool) -> tuple[Callable[[], int], ...]:
    quick = (work.insert, work.update, work.find, work.delete, work.refused)
    return (*quick, work.scan, work.sort) if with_scans else quick


@app.command()
def main(
    uri: Annotated[str, typer.Option(help="Connection string of the mongod or cluster.")],
    seconds: Annotated[float, typer.Option(min=0, max=86_400, help="How long.")] = 60,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Connections that work at a time.")] = 2,
    rounds: Annotated[float, typer.Option(min=0.1, max=100, help="Rounds per second and worker, at most.")] = 5,
    fill: Annotated[int, typer.Option(min=0, max=1_000_000, help="Documents of 1 kB to insert first.")] = 5000,
) -> None:
    """Put a bounded load on a mongod."""
    try:
        with pymongo.MongoClient[dict[str, Any]](uri, appname="wap-workload") as client:
            Workload(client[DATABASE][COLLECTION]).fill(fill)
        done = run(uri, seconds=seconds, workers=workers, rounds_per_second=rounds)
    except PyMongoError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    for kind, count in sorted(done.items()):
        typer.echo(f"{kind:10} {count}")


if __name__ == "__main__":
    app()
