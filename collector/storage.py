"""Sizes and use of collections and databases, under a time budget.

Statistics of a collection are cheap, those of thousands are not: monitoring that reads them all at every tick has taken
whole cores from the databases it watched. So: rounds, a share of one core, and the largest collections only.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from collector.budget import Budget
from collector.rates import Rates, known, quotient

EVERY_SECONDS = 60.0
MOST_IN_A_ROUND = 200
# Namespaces that are reported: the largest ones. The control plane takes no more objects than 500 of a node.
MOST_NAMESPACES = 400
# mongod's own.
_OWN = frozenset({"admin", "config", "local"})
# The least that a call needs to be worth beginning.
_LEAST_SECONDS = 0.002

_LEVELS = {
    "collection.documents": "count",
    "collection.data_bytes": "size",
    "collection.average_document_bytes": "avgObjSize",
    "collection.storage_bytes": "storageSize",
    "collection.free_bytes": "freeStorageSize",
    "collection.index_bytes": "totalIndexSize",
    "collection.indexes": "nindexes",
}
_TOTALS = {
    "mongod.storage.data_bytes": "dataSize",
    "mongod.storage.storage_bytes": "storageSize",
    "mongod.storage.index_bytes": "indexSize",
    "mongod.storage.free_bytes": "totalFreeStorageSize",
    "mongod.storage.documents": "objects",
    "mongod.storage.collections": "collections",
    "mongod.storage.indexes": "indexes",
}
_PIPELINE: list[dict[str, Any]] = [
    {"$collStats": {"storageStats": {}, "latencyStats": {}}},
    {"$project": {"latencyStats": 1, **{f"storageStats.{field}": 1 for field in _LEVELS.values()}}},
]

Client = MongoClient[dict[str, Any]]


class StorageSampler:
    """The data of one mongod. `budget` is the share of one core that the questions may take, mongod's part included.

    `most_in_a_round` namespaces are asked at most at once, and the `most_namespaces` largest are reported.
    """

    def __init__(
        self,
        budget: float = 0.01,
        *,
        most_in_a_round: int = MOST_IN_A_ROUND,
        most_namespaces: int = MOST_NAMESPACES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_in_a_round, self._most_namespaces = most_in_a_round, most_namespaces
        self._budget = Budget(budget, EVERY_SECONDS, clock)
        # Namespaces still to be asked in this turn; a turn over all may take several rounds.
        self._waiting: deque[tuple[str, str]] = deque()
        self._sizes: dict[str, float] = {}
        self._rates: dict[str, Rates] = {}

    def sample(self, client: Client, now_s: float) -> dict[str, dict[str, float]]:
        """Values by namespace (names of catalog.COLLECTION); under "" the sums over all databases (catalog.STORAGE),
        which belong into the node's own frame.

        Empty while the next round is not due. A collection that is gone or too slow is left out. Raises
        ConnectionFailure where mongod does not answer.
        """
        if not self._budget.due():
            return {}
        with self._budget.round():
            found: dict[str, dict[str, float]] = {}
            databases = [name for name in client.list_database_names() if name not in _OWN]
            totals = self._totals(client, databases)
            if totals:
                found[""] = totals
            if not self._waiting:
                self._begin_turn(client, databases)
            for _ in range(min(self._most_in_a_round, len(self._waiting))):
                if self._budget.left_s() < _LEAST_SECONDS:
                    break
                database, collection = self._waiting.popleft()
                values = self._collection(client, database, collection, now_s)
                if values:
                    found[f"{database}.{collection}"] = values
        return self._largest(found)

    def _totals(self, client: Client, databases: list[str]) -> dict[str, float]:
        """Sums over all databases; none at all rather than sums over some."""
        sums = dict.fromkeys(_TOTALS, 0.0)
        for database in databases:
            try:
                stats = client[database].command({"dbStats": 1, "freeStorage": 1, "maxTimeMS": self._millis()})
            except OperationFailure:
                return {}
            for name, field in _TOTALS.items():
                sums[name] += float(stats.get(field, 0))
        return sums

    def _begin_turn(self, client: Client, databases: list[str]) -> None:
        for database in databases:
            listed = client[database].list_collection_names(filter={"type": "collection"})
            # The other collections of "system." are mongod's own; buckets are the data of time series.
            wanted = (name for name in listed if not name.startswith("system.") or name.startswith("system.buckets."))
            self._waiting.extend((database, name) for name in sorted(wanted))
        names = {f"{database}.{collection}" for database, collection in self._waiting}
        self._sizes = {name: size for name, size in self._sizes.items() if name in names}
        self._rates = {name: rates for name, rates in self._rates.items() if name in names}

    def _collection(self, client: Client, database: str, collection: str, now_s: float) -> dict[str, float]:
        try:
            rows = list(client[database][collection].aggregate(_PIPELINE, maxTimeMS=self._millis()))
        except ConnectionFailure:
            raise
        except OperationFailure:
            return {}
        if not rows:
            return {}
        stats, name = rows[0].get("storageStats", {}), f"{database}.{collection}"
        self._sizes[name] = float(stats.get("storageSize", 0) + stats.get("totalIndexSize", 0))
        rates = self._rates.setdefault(name, Rates())
        return known({metric: stats.get(field) for metric, field in _LEVELS.items()}) | _use(
            rates, rows[0].get("latencyStats", {}), now_s
        )

    def _largest(self, found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        if len(self._sizes) <= self._most_namespaces:
            return found
        by_size = sorted(self._sizes, key=lambda name: (-self._sizes[name], name))
        kept = {"", *itertools.islice(by_size, self._most_namespaces)}
        return {name: values for name, values in found.items() if name in kept}

    def _millis(self) -> int:
        return max(1, int(self._budget.left_s() * 1000))


def _use(rates: Rates, latency: Mapping[str, Any], now_s: float) -> dict[str, float]:
    counters = {
        f"{kind} {field}": float(figures[field])
        for kind in ("reads", "writes")
        if isinstance(figures := latency.get(kind), Mapping)
        for field in ("ops", "latency")
        if field in figures
    }
    found = rates.per_second(now_s, counters)
    values: dict[str, float | None] = {}
    for kind in ("read", "write"):
        operations, micros = found.get(f"{kind}s ops"), found.get(f"{kind}s latency")
        values[f"collection.{kind}s_per_second"] = operations
        each = quotient(micros, operations)
        values[f"collection.{kind}_latency_milliseconds"] = None if each is None else each / 1000
    return known(values)
