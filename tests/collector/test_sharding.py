"""The config database of a real config server, with the rows that a cluster of two shards writes into it."""

from datetime import UTC, datetime, timedelta

import pytest
from bson import ObjectId, Timestamp

from collector import catalog
from collector.mongod import MongodSampler, read
from collector.sharding import ShardingSampler
from tests.collector.clock import Clock
from tests.collector.conftest import MakeMongod
from tests.collector.mongod import Client, Mongod, initiate

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.fixture
def config_server(make_mongod: MakeMongod) -> Client:
    member = make_mongod("--configsvr", "--replSet", "rs0")
    initiate(member)
    client = member.client()
    client.config.shards.insert_many([{"_id": shard, "host": f"{shard}/127.0.0.1:1"} for shard in ("s0", "s1")])
    client.config.collections.insert_one({"_id": "shop.orders", "uuid": ObjectId()})
    # As a cluster has them, down to the versions by which its indexes tell chunks apart.
    chunks = [{"_id": ObjectId(), "uuid": 1, "lastmod": Timestamp(1, n), "min": {"a": n}} for n in range(40)]
    for number, chunk in enumerate(chunks):
        chunk |= {"shard": "s0" if number < 30 else "s1", "jumbo": number == 3}
    client.config.chunks.insert_many(chunks)
    return client


def changed(client: Client, what: str, count: int, seconds: float) -> None:
    """Write so many entries of the log of changes, as config servers do."""
    at = NOW + timedelta(seconds=seconds)
    client.config.changelog.insert_many([{"_id": f"{what}-{at}-{n}", "what": what, "time": at} for n in range(count)])


def test_shards_chunks_and_the_balancer(config_server: Client) -> None:
    clock = Clock()
    sampler = ShardingSampler(1.0, clock=clock)
    found = sampler.sample(config_server, 0.0)
    assert found[""] == {
        "sharding.shards": 2,
        "sharding.collections": 1,
        "sharding.chunks": 40,
        "sharding.jumbo_chunks": 1,
        "sharding.balancer_enabled": 1,
    }
    assert found["s0"] == {"sharding.chunks": 30}
    assert found["s1"] == {"sharding.chunks": 10}
    assert sampler.sample(config_server, 1.0) == {}
    config_server.config.settings.update_one(
        {"_id": "balancer"}, {"$set": {"mode": "off", "stopped": True}}, upsert=True
    )
    clock.jump(60)
    assert sampler.sample(config_server, 60.0)[""]["sharding.balancer_enabled"] == 0


def test_migrations_count_once_and_those_before_the_start_never(config_server: Client) -> None:
    clock = Clock()
    sampler = ShardingSampler(1.0, clock=clock)
    changed(config_server, "moveChunk.commit", 100, 0)
    found = sampler.sample(config_server, 1000.0)
    assert "sharding.migrations_per_second" not in found[""]
    changed(config_server, "moveChunk.commit", 6, 30)
    changed(config_server, "moveChunk.error", 3, 31)
    changed(config_server, "moveChunk.start", 50, 31)
    rates = []
    for tick in (1060.0, 1120.0):
        clock.jump(60)
        cluster = sampler.sample(config_server, tick)[""]
        assert set(cluster) <= set(catalog.SHARDING)
        rates.append((cluster["sharding.migrations_per_second"], cluster["sharding.failed_migrations_per_second"]))
    assert rates == [(0.1, 0.05), (0.0, 0.0)]


def test_a_node_that_is_no_config_server_has_nothing_to_tell(mongod: Mongod) -> None:
    assert ShardingSampler(1.0).sample(mongod.client(), 0.0) == {}


def test_a_shard_counts_its_own_migrations(make_mongod: MakeMongod) -> None:
    member = make_mongod("--shardsvr", "--replSet", "rs0")
    initiate(member)
    documents = read(member.client())
    # Until a router has told it that it is a shard, mongod leaves the section out; the names are the manual's.
    counters = {
        "countDonorMoveChunkStarted": 0,
        "countRecipientMoveChunkStarted": 0,
        "countDocsClonedOnDonor": 0,
        "countDocsClonedOnRecipient": 0,
        "countStaleConfigErrors": 0,
    }
    sampler = MongodSampler()
    sampler.sample(0.0, {**documents.server_status, "shardingStatistics": counters})
    counters |= {"countDonorMoveChunkStarted": 20, "countDocsClonedOnDonor": 500, "countDocsClonedOnRecipient": 100}
    values = sampler.sample(10.0, {**documents.server_status, "shardingStatistics": counters})
    assert values["sharding.donated_chunks_per_second"] == 2
    assert values["sharding.received_chunks_per_second"] == 0
    assert values["sharding.cloned_documents_per_second"] == 60
