"""The schema: migrations make the tables, a newer one is refused, an older one is upgraded, one migrates at a time."""

import asyncio
import itertools

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from controlplane.domain.failure import WapFailure
from controlplane.store.database import Database
from controlplane.store.schema import config, migrate, ours
from controlplane.store.tables import Base


def differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        options = {"include_object": ours, "compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


async def test_the_migrations_make_exactly_the_tables(database: Database) -> None:
    assert await asyncio.to_thread(differences, database) == []


@pytest.mark.parametrize(
    "change",
    [
        "alter table node add column extra integer",
        "drop table control_plane",
        "drop index ix_operation_listing",
    ],
)
async def test_the_comparison_sees_what_differs(database: Database, change: str) -> None:
    await database.write(lambda tx: tx.execute(text(change)))
    assert len(await asyncio.to_thread(differences, database)) >= 1


async def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    await database.write(lambda tx: tx.execute(text("update alembic_version set version_num = '9999'")))
    with pytest.raises(WapFailure, match=r"schema 9999.*newer version") as failure:
        await asyncio.to_thread(migrate, database.engine)
    assert (failure.value.details.field, failure.value.details.given) == ("db", "9999")
    assert await database.read(lambda tx: tx.scalar(text("select version_num from alembic_version"))) == "9999"


def revisions() -> list[str]:
    """All, oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()][::-1]


def test_migrations_are_one_line_of_descent() -> None:
    scripts = ScriptDirectory.from_config(config())
    assert scripts.get_heads() == [revisions()[-1]]
    for older, newer in itertools.pairwise(revisions()):
        assert scripts.get_revision(newer).down_revision == older


@pytest.mark.parametrize("start", ["nothing", *revisions()])
async def test_every_older_schema_is_upgraded(database_url: str, start: str) -> None:
    database = Database(database_url)

    def work() -> None:
        if start != "nothing":
            with database.engine.begin() as connection:
                command.upgrade(config(connection), start)
        migrate(database.engine)
        migrate(database.engine)  # again is nothing

    await asyncio.to_thread(work)
    assert await asyncio.to_thread(differences, database) == []
    found = await database.read(lambda tx: tx.scalar(text("select version_num from alembic_version")))
    assert found == revisions()[-1]
    await database.close()


async def test_five_control_planes_that_start_at_once_all_come_up(database_url: str) -> None:
    planes = [Database(database_url) for _ in range(5)]
    await asyncio.gather(*(asyncio.to_thread(migrate, one.engine) for one in planes))
    assert await asyncio.to_thread(differences, planes[0]) == []
    for one in planes:
        await one.close()


async def test_tables_of_others_in_the_same_database_are_left_alone(database: Database) -> None:
    await database.write(lambda tx: tx.execute(text("create table of_someone_else (x integer)")))
    await asyncio.to_thread(migrate, database.engine)
    assert await asyncio.to_thread(differences, database) == []
    assert "of_someone_else" in await asyncio.to_thread(lambda: inspect(database.engine).get_table_names())
