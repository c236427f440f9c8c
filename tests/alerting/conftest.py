"""A stage per test on SQLite; tests that ask for `both` run on PostgreSQL too."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.store.database import Database
from controlplane.store.schema import migrate
from tests.alerting.stage import Stage


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "empty.db"
    store = Database(f"sqlite:///{path}")
    migrate(store.engine)
    asyncio.run(store.close())
    return path


@pytest.fixture
async def stage(empty_file: Path, tmp_path: Path) -> AsyncIterator[Stage]:
    """A cluster of three nodes on SQLite."""
    shutil.copy(empty_file, tmp_path / "wap.db")
    store = Database(f"sqlite:///{tmp_path / 'wap.db'}")
    yield await Stage(store).set()
    await store.close()


@pytest.fixture
async def both(database: Database) -> Stage:
    """The same on SQLite and on PostgreSQL."""
    return await Stage(database).set()
