"""Whether an agent lives, as everybody reads it from the store: whichever control plane holds, or held, its stream."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from controlplane.domain.failure import AgentFailure
from controlplane.domain.node import AgentState
from controlplane.fleet.sessions import Pace
from controlplane.store import nodes
from controlplane.store.database import Database
from controlplane.store.tables import Node
from tests.fleet.driver import ControlPlane, control_plane
from tests.waiting import NotInTimeError, eventually

FAST = Pace(
    heartbeat_seconds=0.2, silent_seconds=0.6, flush_seconds=0.1, check_seconds=0.2, sweep_seconds=0.1, dead_seconds=1.0
)


async def becomes(plane: ControlPlane, node_id: str, state: str, within: float = 5.0) -> None:
    async def same() -> bool:
        return await plane.state(node_id) == state

    await eventually(same, within=within)


def test_three_missed_heartbeats_are_silence() -> None:
    pace = Pace()
    assert pace.silent_seconds == 3 * pace.heartbeat_seconds == 15
    assert pace.dead_seconds > pace.silent_seconds + pace.flush_seconds


async def test_an_agent_that_says_nothing_is_silent_and_one_that_beats_is_not(sqlite: Database) -> None:
    async with control_plane(sqlite, pace=FAST) as plane:
        frozen, alive = await plane.add_agent(), await plane.add_agent()
        async with frozen.session() as line, alive.session() as other:

            async def silent_while_the_other_beats() -> bool:
                await other.beat(problem="")
                return await plane.state(frozen.node_id) == "SILENT"

            await eventually(silent_while_the_other_beats, within=5)
            assert await plane.state(alive.node_id) == "CONNECTED"
            await line.beat(problem="back")
            await becomes(plane, frozen.node_id, "CONNECTED")
            assert ((await plane.node(frozen.node_id)).report or {})["problem"] == "back"


async def test_a_stream_that_is_cut_is_silence_at_once(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session():
        await becomes(plane, agent.node_id, "CONNECTED")
    await becomes(plane, agent.node_id, "SILENT", within=3)  # far less than the 15 s
    async with agent.session():
        await becomes(plane, agent.node_id, "CONNECTED")


async def test_of_a_dead_control_plane_the_others_tell(database: Database) -> None:
    """It was killed: its rows say CONNECTED, and nobody else ever heard of its agents."""
    async with control_plane(database, owner="alive", pace=FAST) as alive:
        orphan, fresh = await alive.add_agent(), await alive.add_agent()
        now = alive.clock.now()
        await database.write(lambda tx: _connected_at_the_dead(tx, orphan.node_id, now - timedelta(seconds=60)))
        await database.write(lambda tx: _connected_at_the_dead(tx, fresh.node_id, now + timedelta(seconds=60)))
        await becomes(alive, orphan.node_id, "SILENT")
        assert await alive.state(fresh.node_id) == "CONNECTED"


def _connected_at_the_dead(tx: Session, node_id: str, seen: datetime) -> None:
    node = tx.get_one(Node, node_id)
    node.agent_state, node.session_owner, node.last_seen_at = "CONNECTED", "dead", seen


async def test_waiting_for_an_agent_says_what_for_and_ends_when_it_comes(plane: ControlPlane) -> None:
    agent, waited = await plane.add_agent(), []

    async def on_waiting(text: str) -> None:
        waited.append(text)

    with pytest.raises(AgentFailure, match="did not connect within 0 s"):
        await plane.fleet.await_agent(agent.node_id, within=0.2, on_waiting=on_waiting)
    assert waited
    assert "connect" in waited[0]
    async with agent.session():
        await plane.fleet.await_agent(agent.node_id, within=5, on_waiting=on_waiting)
    now = plane.clock.now()
    await plane.database.write(lambda tx: nodes.ban(tx, agent.node_id, now))
    with pytest.raises(AgentFailure, match="banned"):
        await plane.fleet.await_agent(agent.node_id, within=5, on_waiting=on_waiting)


async def test_heartbeats_of_a_session_that_was_replaced_change_nothing(database: Database) -> None:
    async with control_plane(database) as plane:
        agent = await plane.add_agent()
        async with agent.session() as first:
            late = nodes.Observation(
                agent.node_id,
                "cl-1",
                first.epoch - 1,
                plane.clock.now(),
                AgentState.SILENT,
                {"problem": "old"},
                True,
            )
            await database.write(lambda tx: nodes.record(tx, [late]))
            node = await plane.node(agent.node_id)
            assert (node.agent_state, node.report) == ("CONNECTED", None)


async def test_figures_that_always_change_cost_no_write_at_once(plane: ControlPlane) -> None:
    """Everything else does: the control is a change of what lasts."""
    agent = await plane.add_agent()
    async with agent.session() as line:
        await line.beat(problem="a", cpu_percent=1.0)

        async def shown() -> dict[str, object]:
            return dict((await plane.node(agent.node_id)).report or {})

        assert (await eventually(shown, within=5))["cpu_percent"] == 1.0
        await line.beat(problem="a", cpu_percent=2.0)

        async def second_figure() -> bool:
            return (await shown())["cpu_percent"] == 2.0

        with pytest.raises(NotInTimeError):
            await eventually(second_figure, within=1)
        await line.beat(problem="b", cpu_percent=3.0)

        async def third_figure() -> bool:
            return (await shown())["cpu_percent"] == 3.0

        await eventually(third_figure, within=3)
