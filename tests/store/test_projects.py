"""Projects: one name each, deleted only when empty, and with the roles in them."""

from functools import partial

import pytest

from controlplane.domain import access as domain
from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import access, clusters, projects
from controlplane.store.database import Database
from controlplane.store.tables import Project
from tests.store.rows import NOW, add_cluster, all_at_once


async def add(database: Database, name: str) -> Project:
    return await database.write(lambda tx: projects.insert(tx, name, NOW))


async def test_ten_of_one_name_at_once_are_one_project(database: Database) -> None:
    outcomes = await all_at_once(database, [partial(projects.insert, name="demo", now=NOW)] * 10)
    assert [one.code for one in outcomes if isinstance(one, Refused)] == [FailureCode.ALREADY_EXISTS] * 9
    assert len(await database.read(lambda tx: projects.list_all(tx, None))) == 1


async def test_they_are_listed_by_name_as_far_as_one_may_see(database: Database) -> None:
    made = {name: await add(database, name) for name in ("b", "c", "a")}
    assert [one.name for one in await database.read(lambda tx: projects.list_all(tx, None))] == ["a", "b", "c"]
    visible = await database.read(lambda tx: projects.list_all(tx, {made["c"].id}))
    assert [one.name for one in visible] == ["c"]
    assert await database.read(lambda tx: projects.list_all(tx, set())) == []


async def test_a_project_with_clusters_stays(database: Database) -> None:
    project = await add(database, "demo")
    cluster = await database.write(add_cluster("one", project.id))

    def delete_it() -> object:
        return database.write(lambda tx: projects.delete(tx, tx.get_one(Project, project.id)))

    assert await database.read(projects.cluster_counts) == {project.id: 1}
    with pytest.raises(Refused) as refusal:
        await delete_it()  # type: ignore[misc]
    assert refusal.value.code is FailureCode.PROJECT_NOT_EMPTY
    for state in (ClusterState.DELETING, ClusterState.DELETED):
        await database.write(partial(clusters.set_state, cluster_id=cluster.id, state=state, now=NOW))
    await delete_it()  # type: ignore[misc]
    assert await database.read(lambda tx: projects.get(tx, project.id)) is None


async def test_roles_in_a_project_go_with_it_and_others_stay(database: Database) -> None:
    gone, kept = await add(database, "gone"), await add(database, "kept")
    granted = [domain.Grant(gone.id, domain.Role.ADMIN), domain.Grant(kept.id, domain.Role.VIEWER)]
    user = await database.write(lambda tx: access.insert_user(tx, "ann", "hash", granted, NOW))
    await database.write(lambda tx: projects.delete(tx, tx.get_one(Project, gone.id)))
    assert await database.read(lambda tx: access.grants_of(tx, "user", user.id)) == (granted[1],)
    assert (await add(database, "gone")).id != gone.id
