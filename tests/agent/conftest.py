"""Nodes with real agents and real mongods, and the other end of their streams in this process."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.control import ControlPlane, control_plane
from tests.agent.machine import Machine
from tests.agent.wire import Wire, wire

MakeMachine = Callable[..., Machine]


@pytest.fixture
async def other_end() -> AsyncIterator[Wire]:
    """The other end of agents' streams, in the test's hand."""
    async with wire() as end:
        yield end


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """The real thing: store, sessions and fleet."""
    async with control_plane(tmp_path) as plane:
        yield plane


@pytest.fixture
def make_machine(tmp_path: Path, mongodb_dir: Path) -> Iterator[MakeMachine]:
    """Makes nodes, and ends them with the test: `make_machine(other_end, ordinal)`."""
    machines: list[Machine] = []

    def make(end: ControlPlane | Wire, ordinal: int = 0, certify: Wire | None = None) -> Machine:
        issuer = certify or (end if isinstance(end, Wire) else Wire())
        machines.append(Machine(tmp_path, end, issuer, ordinal, mongodb_dir))
        return machines[-1]

    yield make
    for machine in machines:
        machine.destroy()


@pytest.fixture
async def machine(other_end: Wire, make_machine: MakeMachine) -> Machine:
    """A node whose agent is connected to the test."""
    node = make_machine(other_end)
    await node.boot()
    await node.connected()
    return node
