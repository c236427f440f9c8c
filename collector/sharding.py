"""What a config server knows of its sharded cluster: shards, chunks and where they lie, the balancer, migrations.

What a shard itself counts of migrations comes with its serverStatus, see `collector.mongod`.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from collector.budget import Budget

EVERY_SECONDS = 60.0
# Shards that are reported one by one.
MOST_SHARDS = 100
_COMMITTED, _FAILED = "moveChunk.commit", ("moveChunk.error", "moveChunk.abort")

Client = MongoClient[dict[str, Any]]


class ShardingSampler:
    """The config database of one node. `budget` is the share of one core that the questions may take."""

    def __init__(self, budget: float = 0.005, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = Budget(budget, EVERY_SECONDS, clock)
        # Up to where the log of changes has been counted, by its own clock, and when that was.
        self._counted: datetime | None = None
        self._counted_s = 0.0

    def sample(self, client: Client, now_s: float) -> dict[str, dict[str, float]]:
        """Names of catalog.SHARDING: under "" of the cluster, which belongs into the node's own frame; under the id of
        each shard its chunks.

        Empty on a node that is no config server, and while the next round is not due. Raises ConnectionFailure where
        mongod does not answer.
        """
        if not self._budget.due():
            return {}
        with self._budget.round():
            try:
                return self._look(client, now_s)
            except ConnectionFailure:
                raise
            except OperationFailure:
                return {}  # too slow for the budget, or not allowed: the next round comes

    def _look(self, client: Client, now_s: float) -> dict[str, dict[str, float]]:
        config = client.config
        shards = [str(row["_id"]) for row in config.shards.find({}, {"_id": 1}, max_time_ms=self._millis())]
        if not shards:
            return {}
        chunks, jumbo = self._chunks(client)
        settings = config.settings.find_one({"_id": "balancer"}, max_time_ms=self._millis()) or {}
        cluster = {
            "sharding.shards": float(len(shards)),
            "sharding.collections": float(config.collections.count_documents({}, maxTimeMS=self._millis())),
            "sharding.chunks": float(sum(chunks.values())),
            "sharding.jumbo_chunks": float(jumbo),
            "sharding.balancer_enabled": float(not settings.get("stopped") and settings.get("mode", "full") != "off"),
        }
        of_shards = {shard: {"sharding.chunks": float(chunks.get(shard, 0))} for shard in sorted(shards)[:MOST_SHARDS]}
        return {"": cluster | self._migrations(client, now_s), **of_shards}

    def _chunks(self, client: Client) -> tuple[dict[str, int], int]:
        jumbo = {"$sum": {"$cond": ["$jumbo", 1, 0]}}
        group = {"$group": {"_id": "$shard", "chunks": {"$sum": 1}, "jumbo": jumbo}}
        rows = list(client.config.chunks.aggregate([group], maxTimeMS=self._millis()))
        return {str(row["_id"]): int(row["chunks"]) for row in rows}, sum(int(row["jumbo"]) for row in rows)

    def _migrations(self, client: Client, now_s: float) -> dict[str, float]:
        newest = client.config.changelog.find_one({}, {"time": 1}, sort=[("time", -1)], max_time_ms=self._millis())
        latest: datetime | None = newest["time"] if newest else self._counted
        seconds, since = now_s - self._counted_s, self._counted
        first = self._counted_s == 0.0
        self._counted, self._counted_s = latest, now_s
        if first or seconds <= 0:
            return {}
        period: dict[str, Any] = {"$gt": since} if since is not None else {}
        period |= {"$lte": latest} if latest is not None else {}
        return {
            "sharding.migrations_per_second": self._count(client, [_COMMITTED], period) / seconds,
            "sharding.failed_migrations_per_second": self._count(client, list(_FAILED), period) / seconds,
        }

    def _count(self, client: Client, kinds: list[str], period: dict[str, Any]) -> int:
        wanted: dict[str, Any] = {"what": {"$in": kinds}} | ({"time": period} if period else {})
        return client.config.changelog.count_documents(wanted, maxTimeMS=self._millis())

    def _millis(self) -> int:
        return max(1, int(self._budget.left_s() * 1000))
