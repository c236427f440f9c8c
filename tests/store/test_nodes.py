"""What the store tells of nodes and control planes to those who show what was measured."""

import asyncio
from datetime import timedelta

import pytest

from controlplane.operations.membership import Membership
from controlplane.store import clusters, commands, control_planes, nodes
from controlplane.store.commands import NewCommand
from controlplane.store.database import Database
from controlplane.store.tables import Cluster, Node
from tests.store.rows import NOW, add_cluster


async def two_clusters(database: Database) -> tuple[Cluster, Cluster]:
    return await database.write(add_cluster("orders", "pr-1")), await database.write(add_cluster("billing", "pr-2"))


async def test_names_are_those_of_cluster_and_slot_and_of_what_was_asked_for(database: Database) -> None:
    orders, billing = await two_clusters(database)
    found = await database.read(lambda tx: nodes.names(tx, project_ids=None))
    assert [one.name for one in found.values()] == [
        f"{cluster}-rs0-{number}" for cluster in ("billing", "orders") for number in range(3)
    ]
    assert {(one.project_id, one.cluster_id) for one in found.values()} == {("pr-1", orders.id), ("pr-2", billing.id)}
    for filters, count in (
        ({"project_ids": ["pr-1"]}, 3),
        ({"project_ids": []}, 0),
        ({"project_ids": None, "cluster_id": billing.id}, 3),
        ({"project_ids": ["pr-1"], "cluster_id": billing.id}, 0),
        ({"project_ids": None, "node_id": next(iter(found))}, 1),
    ):
        some = await database.read(lambda tx, filters=filters: nodes.names(tx, **filters))  # type: ignore[misc]
        assert len(some) == count, filters


async def test_a_node_that_is_gone_keeps_its_name_and_does_not_live(database: Database) -> None:
    orders, _ = await two_clusters(database)

    def remove(tx: object) -> str:
        node: Node = clusters.nodes_of(tx, [orders.id])[0]  # type: ignore[arg-type]
        node.removed_at = NOW
        return node.id

    gone = await database.write(remove)
    living = await database.read(nodes.living)
    assert len(living) == 5
    assert gone not in living
    assert gone in await database.read(lambda tx: nodes.names(tx, project_ids=None))


async def test_commands_of_one_kind_are_forgotten_after_a_while_and_others_never(database: Database) -> None:
    orders, _ = await two_clusters(database)
    (node, *_) = await database.read(lambda tx: list(clusters.nodes_of(tx, [orders.id])))

    def wish(name: str, operation: str, age: float) -> NewCommand:
        at = NOW - timedelta(seconds=age)
        return NewCommand(name, node.id, operation, "set_sampling", 0, at, b"sealed", at)

    wishes = [wish("old", "monitoring", 100), wish("new", "monitoring", 1), wish("kept", "op-1", 100)]
    await database.write(lambda tx: commands.put(tx, wishes))
    before = NOW - timedelta(seconds=10)
    assert await database.write(lambda tx: commands.forget(tx, "monitoring", before)) == 1
    assert set(await database.read(lambda tx: commands.facts(tx, ["old", "new", "kept"]))) == {"new", "kept"}
    assert await database.write(lambda tx: commands.forget(tx, "monitoring", before)) == 0


async def test_control_planes_that_live_are_told(database: Database) -> None:
    if not database.is_postgres:
        pytest.skip("on SQLite there is one control plane, and it knows itself")
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def take_over(_: object) -> list[str]:
        return []

    assert await database.read(control_planes.living_hosts) == []
    members = [Membership(url, f"cp-{number}", take_over) for number in range(2)]
    await asyncio.gather(*(member.join() for member in members))
    assert len(await database.read(control_planes.living_hosts)) == 1, "two processes of one host are one address"
    for member in members:
        await member.leave()
    assert await database.read(control_planes.living_hosts) == []
