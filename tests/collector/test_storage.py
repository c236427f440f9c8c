"""Sizes of collections: what they are, and what they may cost."""

import pytest
from pymongo import monitoring

from collector import catalog
from collector.storage import StorageSampler
from tests.collector.clock import Clock
from tests.collector.mongod import Client, Mongod


class Counting(monitoring.CommandListener):
    """Counts commands and the time that they took."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seconds = 0.0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.seconds += event.duration_micros / 1e6

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.seconds += event.duration_micros / 1e6


def collections(client: Client, count: int) -> None:
    for number in range(count):
        client.shop.create_collection(f"c{number:04}")


def test_sizes_are_those_of_coll_stats_and_rates_count_clients(mongod: Mongod) -> None:
    client, clock = mongod.client(), Clock()
    client.shop.orders.insert_many([{"number": number, "text": "x" * 500} for number in range(500)])
    client.shop.orders.create_index("number")
    client.shop.create_collection("readings", timeseries={"timeField": "at"})
    sampler = StorageSampler(1.0, clock=clock)
    first = sampler.sample(client, 0.0)
    for number in range(50):
        client.shop.orders.update_one({"number": number}, {"$set": {"text": ""}})
    clock.jump(60)
    found = sampler.sample(client, 60.0)
    stats = client.shop.command("collStats", "orders")
    values = found["shop.orders"]
    assert "collection.writes_per_second" not in first["shop.orders"]
    assert values["collection.writes_per_second"] == pytest.approx(50 / 60)
    assert values["collection.write_latency_milliseconds"] > 0
    assert values["collection.documents"] == stats["count"] == 500
    assert values["collection.data_bytes"] == stats["size"]
    assert values["collection.storage_bytes"] == stats["storageSize"]
    assert values["collection.index_bytes"] == stats["totalIndexSize"]
    assert values["collection.indexes"] == 2
    totals = client.shop.command("dbStats")
    assert found[""]["mongod.storage.data_bytes"] == totals["dataSize"]
    assert found[""]["mongod.storage.index_bytes"] == totals["indexSize"]
    assert set(found) == {"", "shop.orders", "shop.system.buckets.readings"}
    assert set(found[""]) == set(catalog.STORAGE)
    assert {name for values in found.values() for name in values} <= {*catalog.STORAGE, *catalog.COLLECTION}


def test_between_rounds_nothing_is_asked(mongod: Mongod) -> None:
    counting, clock = Counting(), Clock()
    client = mongod.client(event_listeners=[counting])
    client.shop.orders.insert_one({})
    sampler = StorageSampler(1.0, clock=clock)
    assert sampler.sample(client, 0.0)
    asked = len(counting.names)
    clock.jump(59)
    assert sampler.sample(client, 59.0) == {}
    assert len(counting.names) == asked
    clock.jump(1)
    assert sampler.sample(client, 60.0)


def test_many_collections_take_turns_and_all_have_theirs(mongod: Mongod) -> None:
    client, clock = mongod.client(), Clock()
    collections(client, 45)
    sampler = StorageSampler(1.0, most_in_a_round=20, clock=clock)
    rounds = []
    for number in range(4):
        rounds.append(set(sampler.sample(client, 60.0 * number)) - {""})
        clock.jump(60)
    assert [len(found) for found in rounds] == [20, 20, 5, 20]
    assert len(set.union(*rounds[:3])) == 45
    assert rounds[3] == rounds[0]


@pytest.mark.parametrize("budget", [0.0002, 1.0], ids=["with a budget", "control: without"])
def test_the_time_that_is_spent_stays_within_the_budget(mongod: Mongod, budget: float) -> None:
    counting, clock = Counting(), Clock()
    client = mongod.client(event_listeners=[counting])
    collections(client, 80)
    sampler, shares, largest = StorageSampler(budget, clock=clock), list[float](), 0
    counting.seconds, began = 0.0, clock()
    for number in range(8):
        spent = counting.seconds
        clock.jump(60)
        found = sampler.sample(client, 60.0 * number)
        if found:
            shares.append(spent / (clock() - began))
            largest = max(largest, len(found))
    assert (max(shares) <= 0.0002) == (budget == 0.0002)
    # What does not fit waits for its turn.
    assert (largest < 80) == (budget == 0.0002)


def test_only_the_largest_are_told_where_there_are_too_many(mongod: Mongod) -> None:
    client = mongod.client()
    collections(client, 10)
    client.shop.c0007.insert_many([{"text": "x" * 1000} for _ in range(1000)])
    client.admin.command({"fsync": 1})
    found = StorageSampler(1.0, most_namespaces=3).sample(client, 0.0)
    assert len(found) == 4
    assert "shop.c0007" in found


def test_a_collection_that_is_dropped_meanwhile_is_left_out(mongod: Mongod) -> None:
    client, clock = mongod.client(), Clock()
    collections(client, 3)
    sampler = StorageSampler(1.0, most_in_a_round=2, clock=clock)
    assert set(sampler.sample(client, 0.0)) == {"", "shop.c0000", "shop.c0001"}
    client.shop.drop_collection("c0002")
    clock.jump(60)
    assert set(sampler.sample(client, 60.0)) == {""}
    clock.jump(60)
    assert set(sampler.sample(client, 120.0)) == {"", "shop.c0000", "shop.c0001"}
