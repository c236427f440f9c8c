"""Real mongods for the collector to look at."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.collector.mongod import Mongod, initiate

MakeMongod = Callable[..., Mongod]


@pytest.fixture
def make_mongod(tmp_path: Path, mongodb_dir: Path) -> Iterator[MakeMongod]:
    """Makes mongods that are started and end with the test: `make_mongod("--replSet", "rs0")`."""
    made: list[Mongod] = []

    def make(*options: str) -> Mongod:
        made.append(Mongod(tmp_path / f"mongod{len(made)}", mongodb_dir, *options))
        return made[-1].start()

    yield make
    for mongod in made:
        mongod.destroy()


@pytest.fixture
def mongod(make_mongod: MakeMongod) -> Mongod:
    """One mongod, primary of a set of its own, with an empty database."""
    member = make_mongod("--replSet", "rs0")
    initiate(member)
    return member
