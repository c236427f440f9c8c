"""Clusters: one name and one network each, one operation at a time, fencing numbers, states by the table."""

import itertools
from functools import partial

import pytest
from sqlalchemy.orm import Session

from controlplane.domain.cluster import TRANSITIONS, ClusterState
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import clusters
from controlplane.store.database import Database
from controlplane.store.specs import spec_from_json
from controlplane.store.tables import Cluster
from tests.store.rows import NOW, SPEC, add_cluster, all_at_once


async def test_a_cluster_comes_back_with_its_wish_and_a_node_per_member(database: Database) -> None:
    cluster = await database.write(add_cluster())
    found = await database.read(lambda tx: clusters.get(tx, cluster.id))
    assert found is not None
    assert spec_from_json(found.spec) == SPEC
    assert (found.state, found.generation, found.epoch, found.network_slot) == ("CREATING", 1, 0, 0)
    nodes = await database.read(lambda tx: clusters.nodes_of(tx, [cluster.id]))
    assert [(node.name, node.zone_wish) for node in nodes] == [
        ("rs0-0", "us-east-1a"),
        ("rs0-1", "us-east-1b"),
        ("rs0-2", "us-east-1c"),
    ]


async def test_a_name_lives_once_in_a_project(database: Database) -> None:
    first = await database.write(add_cluster("demo", "pr-1"))
    with pytest.raises(Refused) as refusal:
        await database.write(add_cluster("demo", "pr-1"))
    assert (refusal.value.code, refusal.value.details.field) == (FailureCode.ALREADY_EXISTS, "name")
    other = await database.write(add_cluster("demo", "pr-2"))
    assert (await database.read(lambda tx: clusters.by_name(tx, "pr-1", "demo"))).id == first.id  # type: ignore[union-attr]
    assert (await database.read(lambda tx: clusters.by_name(tx, "pr-2", "demo"))).id == other.id  # type: ignore[union-attr]


async def test_name_and_network_are_free_again_after_deletion_and_not_before(database: Database) -> None:
    first = await database.write(add_cluster())
    await database.write(partial(clusters.set_state, cluster_id=first.id, state=ClusterState.DELETING, now=NOW))
    with pytest.raises(Refused):
        await database.write(add_cluster())
    await database.write(partial(clusters.set_state, cluster_id=first.id, state=ClusterState.DELETED, now=NOW))
    second = await database.write(add_cluster())
    assert second.network_slot == 0
    gone = await database.read(lambda tx: clusters.get(tx, first.id))
    assert gone is not None
    assert (gone.name, gone.network_slot, gone.deleted_at) == ("demo", None, NOW)


async def test_ten_creates_at_once_get_ten_networks(database: Database) -> None:
    made = await all_at_once(database, [add_cluster(f"c{number}") for number in range(10)])
    assert sorted(cluster.network_slot for cluster in made if isinstance(cluster, Cluster)) == list(range(10))  # type: ignore[type-var]


async def test_ten_creates_of_one_name_at_once_make_one_cluster(database: Database) -> None:
    made = await all_at_once(database, [add_cluster("demo") for _ in range(10)])
    refusals = [one.code for one in made if isinstance(one, Refused)]
    assert refusals == [FailureCode.ALREADY_EXISTS] * 9


async def test_a_full_address_pool_is_a_quota(database: Database) -> None:
    def fill(tx: Session) -> None:
        for slot in range(clusters.NETWORK_SLOTS):
            row = add_cluster(f"c{slot}")(tx) if slot == 0 else _copy(tx, slot)
            assert row.network_slot == slot

    await database.write(fill)
    with pytest.raises(Refused) as refusal:
        await database.write(add_cluster("one-more"))
    assert (refusal.value.code, refusal.value.details.allowed) == (FailureCode.QUOTA_EXCEEDED, "at most 256 clusters")


def _copy(tx: Session, slot: int) -> Cluster:
    values = {"project_id": "pr-1", "spec": {}, "generation": 1, "state": "AVAILABLE", "usd_per_month": 1.0}
    row = Cluster(id=f"cl-{slot}", name=f"c{slot}", name_key=f"c{slot}", network_slot=slot, created_at=NOW, **values)
    tx.add(row)
    return row


async def test_only_one_of_many_operations_gets_the_cluster(database: Database) -> None:
    cluster = await database.write(add_cluster())
    take = [partial(clusters.take_guard, cluster_id=cluster.id, operation_id=f"op-{number}") for number in range(20)]
    assert sum(bool(taken) for taken in await all_at_once(database, take)) == 1


async def test_the_guard_belongs_to_its_operation(database: Database) -> None:
    cluster = await database.write(add_cluster())

    async def take(operation: str) -> bool:
        return await database.write(lambda tx: clusters.take_guard(tx, cluster.id, operation))

    assert await take("op-1")
    assert await take("op-1")  # a step that runs twice
    assert not await take("op-2")
    await database.write(lambda tx: clusters.drop_guard(tx, cluster.id, "op-2"))  # not its own
    assert not await take("op-2")
    await database.write(lambda tx: clusters.drop_guard(tx, cluster.id, "op-1"))
    assert await take("op-2")


async def test_a_raised_epoch_makes_the_one_before_stale(database: Database) -> None:
    cluster = await database.write(add_cluster())
    first = await database.write(lambda tx: clusters.raise_epoch(tx, cluster.id))
    assert await database.write(lambda tx: clusters.epoch_is(tx, cluster.id, first))
    second = await database.write(lambda tx: clusters.raise_epoch(tx, cluster.id))
    assert second == first + 1
    assert not await database.write(lambda tx: clusters.epoch_is(tx, cluster.id, first))
    assert await database.write(lambda tx: clusters.epoch_is(tx, cluster.id, second))


async def test_fifty_at_once_get_fifty_epochs(database: Database) -> None:
    cluster = await database.write(add_cluster())
    raise_it = partial(clusters.raise_epoch, cluster_id=cluster.id)
    assert sorted(await all_at_once(database, [raise_it] * 50)) == list(range(1, 51))  # type: ignore[type-var]


async def test_states_follow_the_table_and_nothing_else(database: Database) -> None:
    cluster = await database.write(add_cluster())

    def place(tx: Session, state: ClusterState) -> None:
        tx.get_one(Cluster, cluster.id).state = state

    for before, after in itertools.product(ClusterState, ClusterState):
        await database.write(partial(place, state=before))
        move = partial(clusters.set_state, cluster_id=cluster.id, state=after, now=NOW)
        if after in TRANSITIONS[before] | {before}:
            await database.write(move)
        else:
            with pytest.raises(Refused) as refusal:
                await database.write(move)
            assert refusal.value.code is FailureCode.CLUSTER_STATE
        now = await database.read(lambda tx: tx.get_one(Cluster, cluster.id).state)
        assert now == (after if after in TRANSITIONS[before] else before)


def test_every_state_fits_its_column() -> None:
    assert Cluster.__table__.c.state.type.length >= max(len(state) for state in ClusterState)  # type: ignore[attr-defined]


async def test_pages_of_clusters_hold_each_once(database: Database) -> None:
    made = [await database.write(add_cluster(f"c{number}", f"pr-{number % 2}")) for number in range(7)]
    for state in (ClusterState.DELETING, ClusterState.DELETED):
        await database.write(partial(clusters.set_state, cluster_id=made[0].id, state=state, now=NOW))

    async def pages(*, projects: set[str] | None, deleted: bool) -> list[str]:
        seen: list[tuple[str, str]] = []
        while True:
            after = seen[-1] if seen else None
            page = await database.read(
                lambda tx: clusters.list_page(tx, project_ids=projects, include_deleted=deleted, after=after, limit=2)  # noqa: B023
            )
            if not page:
                return [id for _, id in seen]
            seen += [(cluster.name, cluster.id) for cluster in page]

    assert await pages(projects=None, deleted=True) == [cluster.id for cluster in made]
    assert await pages(projects=None, deleted=False) == [cluster.id for cluster in made[1:]]
    assert await pages(projects={"pr-1"}, deleted=True) == [cluster.id for cluster in made[1::2]]
    assert await pages(projects=set(), deleted=True) == []


async def test_a_change_wakes_who_watches_the_cluster(database: Database) -> None:
    cluster = await database.write(add_cluster())
    with database.bus.subscribe(f"cluster/{cluster.id}") as changes:
        for work in (
            partial(clusters.take_guard, cluster_id=cluster.id, operation_id="op-1"),
            partial(clusters.drop_guard, cluster_id=cluster.id, operation_id="op-1"),
            partial(clusters.set_state, cluster_id=cluster.id, state=ClusterState.AVAILABLE, now=NOW),
        ):
            await database.write(work)
            assert await changes.wait(5) == {f"cluster/{cluster.id}"}
