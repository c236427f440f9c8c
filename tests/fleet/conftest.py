"""Control planes for agents."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.store.database import Database, engine_for
from controlplane.store.schema import migrate
from controlplane.store.vault import Vault
from tests.fleet.driver import ControlPlane, control_plane
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the newest schema."""
    file = tmp_path_factory.mktemp("empty") / "wap.db"
    engine = engine_for(f"sqlite:///{file}")
    migrate(engine)
    engine.dispose()
    return file


@pytest.fixture
async def sqlite(empty: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """A store for what does not depend on the kind of database."""
    shutil.copy(empty, tmp_path / "wap.db")
    store = Database(f"sqlite:///{tmp_path / 'wap.db'}")
    yield store
    await store.close()


@pytest.fixture
async def plane(sqlite: Database) -> AsyncIterator[ControlPlane]:
    """A control plane at its real pace."""
    async with control_plane(sqlite) as running:
        yield running


@pytest.fixture
async def postgres_pair(postgres: Postgres) -> AsyncIterator[tuple[ControlPlane, ControlPlane]]:
    """Two control planes, each with its own connections, on one PostgreSQL database."""
    url, vault = postgres.create(f"t_{secrets.token_hex(6)}"), Vault(secrets.token_bytes(32))
    stores = [Database(url), Database(url)]
    await asyncio.to_thread(migrate, stores[0].engine)
    for store in stores:
        await store.bus.start()
    async with (
        control_plane(stores[0], vault=vault, owner="one") as one,
        control_plane(stores[1], vault=vault, owner="two") as two,
    ):
        yield one, two
    for store in stores:
        await store.close()
