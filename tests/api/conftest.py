"""A world per test on SQLite; tests that ask for `both` or `database` run on PostgreSQL too."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from controlplane.store.database import Database
from controlplane.store.schema import migrate
from tests.api.world import World, populate, running


@pytest.fixture(scope="package", autouse=True)
def plain_logs() -> Iterator[None]:
    """Tracebacks as text: drawn with frames and locals each takes seconds."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied: migrating takes longer than most tests here."""
    path = tmp_path_factory.mktemp("schema") / "empty.db"
    store = Database(f"sqlite:///{path}")
    migrate(store.engine)
    asyncio.run(store.close())
    return path


@dataclass(frozen=True)
class Template:
    """A populated SQLite file, with the ids and tokens of what is in it."""

    path: Path
    ids: dict[str, str]
    tokens: dict[str, str]


@pytest.fixture(scope="session")
def template(empty_file: Path) -> Template:
    """Made once and copied for each test."""
    path = empty_file.with_name("populated.db")
    shutil.copy(empty_file, path)

    async def make() -> Template:
        store = Database(f"sqlite:///{path}")
        async with running(store) as made:
            await populate(made)
        await store.close()
        return Template(path, made.ids, made.tokens)

    return asyncio.run(make())


@pytest.fixture
async def sqlite(empty_file: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty store."""
    shutil.copy(empty_file, tmp_path / "wap.db")
    store = Database(f"sqlite:///{tmp_path / 'wap.db'}")
    yield store
    await store.close()


@pytest.fixture
async def world(template: Template, tmp_path: Path) -> AsyncIterator[World]:
    """Two projects with a cluster each, and people of every role."""
    shutil.copy(template.path, tmp_path / "world.db")
    store = Database(f"sqlite:///{tmp_path / 'world.db'}")
    async with running(store) as made:
        made.ids.update(template.ids)
        made.tokens.update(template.tokens)
        yield made
    await store.close()


@pytest.fixture
async def both(database: Database) -> AsyncIterator[World]:
    """The same on SQLite and on PostgreSQL."""
    async with running(database) as made:
        await populate(made)
        yield made
