"""Transactions, wake-up calls and restarts: what the rest of the control plane relies on, on both databases."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import clusters
from controlplane.store.bus import publish
from controlplane.store.database import Database, take_turns
from controlplane.store.schema import migrate
from controlplane.store.tables import Project
from tests.postgres import Postgres
from tests.store.rows import NOW, add_cluster
from tests.waiting import eventually


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def work(tx: Session) -> None:
        tx.add(Project(id="pr-1", name="p", created_at=NOW))
        tx.flush()
        raise Refused(FailureCode.INVALID_ARGUMENT, "no")

    with pytest.raises(Refused):
        await database.write(work)
    assert await database.read(lambda tx: tx.get(Project, "pr-1")) is None


async def test_times_come_back_aware_and_equal(database: Database) -> None:
    await database.write(lambda tx: tx.add(Project(id="pr-1", name="p", created_at=NOW)))
    row = await database.read(lambda tx: tx.get_one(Project, "pr-1"))
    assert row.created_at == NOW
    assert row.created_at.tzinfo is not None


async def test_subscribers_hear_of_a_change_only_after_its_commit(database: Database) -> None:
    def fails(tx: Session) -> None:
        publish(tx, "cluster/x")
        raise Refused(FailureCode.INVALID_ARGUMENT, "no")

    with database.bus.subscribe("cluster/") as changes:
        with pytest.raises(Refused):
            await database.write(fails)
        assert await changes.wait(0.2) == set()
        await database.write(lambda tx: publish(tx, "cluster/y", "node/z"))
        assert await changes.wait(5) == {"cluster/y"}


async def test_another_control_plane_hears_of_it_too(postgres: Postgres) -> None:
    url = postgres.create("two_control_planes")
    one, two = Database(url), Database(url)
    await asyncio.to_thread(migrate, one.engine)
    await one.bus.start()
    await two.bus.start()
    try:
        with two.bus.subscribe("operation/") as changes:

            async def heard() -> bool:
                await one.write(lambda tx: publish(tx, "operation/o"))
                return "operation/o" in await changes.wait(0.2)

            await eventually(heard, within=10)
    finally:
        await one.close()
        await two.close()


async def test_fifty_writers_at_once_all_get_through(database: Database) -> None:
    await database.write(add_cluster())
    cluster = await database.read(lambda tx: clusters.by_name(tx, "pr-1", "demo"))
    assert cluster is not None
    epochs = await asyncio.gather(*(database.write(lambda tx: clusters.raise_epoch(tx, cluster.id)) for _ in range(50)))
    assert sorted(epochs) == list(range(1, 51))


async def test_reads_and_ensured_writes_outlive_a_database_restart(postgres: Postgres) -> None:
    store = Database(postgres.create("restarted"))
    await asyncio.to_thread(migrate, store.engine)
    try:
        cluster = await store.write(add_cluster())
        postgres.stop(immediate=True)
        pending = asyncio.create_task(store.ensure(lambda tx: clusters.raise_epoch(tx, cluster.id)))
        await asyncio.to_thread(postgres.start)
        assert await asyncio.wait_for(pending, 30) == 1
    finally:
        await store.close()


async def test_what_the_database_refuses_is_told_at_once(database: Database) -> None:
    """Only a lost connection is waited for; neither a full disk nor a wrong statement gets better by waiting."""
    with pytest.raises((OperationalError, ProgrammingError)):
        await asyncio.wait_for(database.read(lambda tx: tx.execute(text("select * from nothing_of_that_name"))), 5)


def _as_after_a_crash(database: Path) -> Path:
    """A copy of the files as they are, without the checkpoint of an orderly end."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        source = Path(f"{database}{suffix}")
        if source.exists():
            Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
    return copy


async def test_sqlite_keeps_what_was_committed_through_a_kill(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path / 'wap.db'}")
    await asyncio.to_thread(migrate, store.engine)
    await store.write(add_cluster())
    with sqlite3.connect(_as_after_a_crash(tmp_path / "wap.db")) as connection:
        assert connection.execute("select name from cluster").fetchall() == [("demo",)]
    await store.close()


@pytest.mark.parametrize(("subject", "added"), [("same", 1), ("", 8)])
async def test_who_takes_turns_sees_what_the_one_before_added(postgres: Postgres, subject: str, added: int) -> None:
    """On SQLite writers are alone anyway; on PostgreSQL, without taking turns, all eight would see nothing and add."""
    store = Database(postgres.create(f"turns_{added}"))
    await asyncio.to_thread(migrate, store.engine)
    together = threading.Barrier(8)

    def add_if_there_is_none(number: int) -> Callable[[Session], None]:
        def work(tx: Session) -> None:
            together.wait(10)
            if subject:
                take_turns(tx, subject)
            there = tx.scalar(select(func.count()).select_from(Project))
            with contextlib.suppress(threading.BrokenBarrierError):
                looked.wait(0.5)  # all have looked before the first one adds, if they are let
            if not there:
                tx.add(Project(id=f"pr-{number}", name=f"project-{number}", created_at=NOW))

        return work

    looked = threading.Barrier(8)
    try:
        await asyncio.gather(*(store.write(add_if_there_is_none(number)) for number in range(8)))
        count = await store.read(lambda tx: tx.scalar(select(func.count()).select_from(Project)))
        assert count == added
    finally:
        await store.close()
