"""Commands: delivered at least once, settled exactly once, and only by the node that they are for."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

import grpc
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2
from wap.type.v1 import failure_pb2

from controlplane.domain.failure import AgentFailure, FailureCode
from controlplane.domain.node import AgentState
from controlplane.fleet.waits import Waits
from controlplane.store import commands
from controlplane.store.bus import publish
from controlplane.store.commands import Answer, Fact, Pending
from controlplane.store.database import Database
from controlplane.store.tables import Cluster, Command
from tests.fleet.driver import CLUSTER, EPOCH, Agent, ControlPlane, Line, command, control_plane
from tests.waiting import eventually

T = TypeVar("T")
AGENTS, ORDERS = 10, 300
Pair = tuple[ControlPlane, ControlPlane]


async def row(plane: ControlPlane, command_id: str) -> Command:
    return await plane.database.read(lambda tx: tx.get_one(Command, command_id))


async def test_a_command_is_sent_and_its_result_comes_back(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        order = asyncio.create_task(plane.order(agent.node_id, "op/1"))
        got = await line.command()
        assert (got.id, got.epoch, got.prepare_volume.volume_id) == ("op/1", EPOCH, "vol-1")
        await line.say(command_accepted=command_pb2.CommandAccepted(command_id="op/1"))
        await line.answer("op/1", prepare_volume=command_pb2.PrepareVolumeResult(mount_path="/m"))
        assert (await order).prepare_volume.mount_path == "/m"
    stored = await row(plane, "op/1")
    assert (stored.state, stored.body) == ("done", None)  # what it held of secrets is gone


async def test_a_command_is_sealed_while_it_waits(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    order = asyncio.create_task(plane.order(agent.node_id, "op/1"))

    async def waits() -> bytes | None:
        found = await plane.database.read(lambda tx: tx.get(Command, "op/1"))
        return found.body if found else None

    assert b"vol-1" not in (await eventually(waits, within=15) or b"")
    order.cancel()


async def test_progress_is_told_to_whoever_waits(plane: ControlPlane) -> None:
    agent, told = await plane.add_agent(), []

    async def on_waiting(text: str) -> None:
        told.append(text)

    async with agent.session() as line:
        order = asyncio.create_task(
            plane.fleet.call(agent.node_id, command("op/1"), operation_id="op", on_waiting=on_waiting)
        )
        await line.command()
        await line.say(command_progress=command_pb2.CommandProgress(command_id="op/1", waiting_for="the disk\0"))
        await eventually(lambda: "the disk" in told, within=15)
        await line.answer("op/1")
        await order


async def test_what_is_unsettled_is_sent_again_in_the_next_session(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    order = asyncio.create_task(plane.order(agent.node_id, "op/1"))
    async with agent.session() as line:
        await line.command()
        await line.say(command_accepted=command_pb2.CommandAccepted(command_id="op/1"))
    async with agent.session() as line:
        assert (await line.command()).id == "op/1"
        await line.answer("op/1", detail="at last")
        assert (await order).detail == "at last"
    async with agent.session() as line:
        with pytest.raises(TimeoutError):
            await line.command(within=1)


async def test_a_repeated_result_is_taken_and_changes_nothing(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        order = asyncio.create_task(plane.order(agent.node_id, "op/1"))
        await line.command()
        for detail in ("first", "second", "third"):
            await line.answer("op/1", detail=detail)
        await line.say(command_accepted=command_pb2.CommandAccepted(command_id="op/1"))
        await line.answer("never sent")
        assert (await order).detail == "first"
        # The stream goes on: the next command shows it, and by then all of the above was taken.
        following = asyncio.create_task(plane.order(agent.node_id, "op/2"))
        await line.command()
        await line.answer("op/2")
        await following
    stored = await row(plane, "op/1")
    assert (stored.state, command_pb2.CommandResult.FromString(stored.result or b"").detail) == ("done", "first")
    assert await plane.database.read(lambda tx: tx.get(Command, "never sent")) is None


@pytest.mark.parametrize("how", ["accepts", "tells progress of", "answers"])
async def test_an_agent_that_speaks_for_another_is_put_out_and_settles_nothing(plane: ControlPlane, how: str) -> None:
    victim, hostile = await plane.add_agent(), await plane.add_agent()
    async with victim.session() as line, hostile.session() as other:
        order = asyncio.create_task(plane.order(victim.node_id, "op/1"))
        await line.command()
        match how:
            case "accepts":
                await other.say(command_accepted=command_pb2.CommandAccepted(command_id="op/1"))
            case "tells progress of":
                await other.say(command_progress=command_pb2.CommandProgress(command_id="op/1", waiting_for="x"))
            case _:
                await other.answer("op/1", detail="forged")
        end = await other.ended()
        assert (end.status, end.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert (end.field, end.given) == ("command_id", "op/1")
        stored = await row(plane, "op/1")
        assert (stored.state, stored.waiting_for) == ("queued", "")
        (event,) = await plane.audit("agent.refused")
        assert (event.resource, event.outcome) == (f"node/{hostile.node_id}", "PERMISSION_DENIED")
        assert (event.after or {})["given"] == "op/1"
        await line.answer("op/1", detail="true")
        assert (await order).detail == "true"


@pytest.mark.parametrize(("epoch", "sent"), [(EPOCH - 1, False), (EPOCH, True), (EPOCH + 1, True)])
async def test_a_command_of_a_run_that_was_taken_over_is_not_sent(plane: ControlPlane, epoch: int, sent: bool) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        order = asyncio.create_task(plane.order(agent.node_id, "op/1", epoch=epoch))
        if sent:
            assert (await line.command()).epoch == epoch
        else:
            with pytest.raises(TimeoutError):
                await line.command(within=1)
        order.cancel()


async def test_the_run_that_took_over_asks_again_under_its_own_epoch(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        old = asyncio.create_task(plane.order(agent.node_id, "op/1"))
        await line.command()
        await plane.database.write(
            lambda tx: tx.execute(update(Cluster).where(Cluster.id == CLUSTER).values(epoch=EPOCH + 1))
        )
        new = asyncio.create_task(plane.order(agent.node_id, "op/1", epoch=EPOCH + 1))
        assert (await line.command()).epoch == EPOCH + 1
        await line.answer("op/1", detail="once")
        assert [(await order).detail for order in (old, new)] == ["once", "once"]


async def test_another_control_plane_delivers_what_was_put_on_this_one(postgres_pair: Pair) -> None:
    one, two = postgres_pair
    agent = await one.add_agent()
    async with agent.session(two) as line:
        assert (await one.node(agent.node_id)).session_owner == "two"
        order = asyncio.create_task(one.order(agent.node_id, "op/1"))
        await line.command(within=3)
        await line.answer("op/1", detail="through the database")
        assert (await order).detail == "through the database"
    async with agent.session(one) as line:
        order = asyncio.create_task(two.order(agent.node_id, "op/2"))
        await line.command(within=3)
        await line.answer("op/2")
        await order


async def test_an_agents_own_failure_is_raised_with_its_code(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        order = asyncio.create_task(plane.order(agent.node_id, "op/1"))
        await line.command()
        failure = failure_pb2.Failure(code=failure_pb2.FAILURE_CODE_DISK_FULL, message="full\0", retryable=True)
        await line.answer("op/1", failure=failure)
        with pytest.raises(AgentFailure, match="full") as raised:
            await order
    assert (raised.value.code, raised.value.details.retryable) == (FailureCode.DISK_FULL, True)
    assert "\0" not in str(raised.value)


async def test_no_answer_in_time_is_silence_or_unknown_but_never_success(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    with pytest.raises(AgentFailure) as never_taken:
        await plane.order(agent.node_id, "op/1", within=-5)
    assert (never_taken.value.code, never_taken.value.details.retryable) == (FailureCode.AGENT_SILENT, True)
    async with agent.session() as line:
        await line.command()
        await line.say(command_accepted=command_pb2.CommandAccepted(command_id="op/1"))

        async def accepted() -> bool:
            return (await row(plane, "op/1")).state == "accepted"

        await eventually(accepted, within=15)
        with pytest.raises(AgentFailure) as unknown:
            await plane.order(agent.node_id, "op/1", within=-5)
    assert unknown.value.code is FailureCode.OUTCOME_UNKNOWN
    with pytest.raises(AgentFailure, match="does not exist"):
        await plane.order("nd-none", "op/2")
    assert await plane.database.read(lambda tx: tx.get(Command, "op/2")) is None


async def test_more_commands_than_fit_at_once_all_arrive(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    orders = [asyncio.create_task(plane.order(agent.node_id, f"op/{n}")) for n in range(400)]
    async with agent.session() as line:
        for _ in range(400):
            await line.answer((await line.command(within=2)).id)
        assert len(await asyncio.gather(*orders)) == 400


class Holding(Database):
    """A database whose next look for pending commands is answered late."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.holds, self.held, self.go = False, asyncio.Event(), asyncio.Event()

    async def read(self, work: Callable[[Session], T]) -> T:
        value = await super().read(work)
        if self.holds and isinstance(value, list) and value and isinstance(value[0], Pending):
            self.holds = False
            self.held.set()
            await self.go.wait()
        return value


async def test_what_is_settled_during_a_look_is_not_sent_again(sqlite: Database) -> None:
    database = Holding(sqlite.url)
    async with control_plane(database) as plane:
        agent = await plane.add_agent()
        async with agent.session() as line:
            first = asyncio.create_task(plane.order(agent.node_id, "op/1"))
            assert (await line.command()).id == "op/1"
            database.holds = True
            second = asyncio.create_task(plane.order(agent.node_id, "op/2"))
            async with asyncio.timeout(10):
                await database.held.wait()
            await line.answer("op/1")
            await first
            database.go.set()
            assert (await line.command()).id == "op/2"
            await line.answer("op/2")
            await second
    await database.close()


async def play(agent: Agent, delivered: Counter[str], seed: int, done: asyncio.Event) -> None:
    """An agent that loses its stream now and then, and says a fifth of its answers twice, in any order."""
    chance = random.Random(seed)
    for sessions in itertools.count():
        async with agent.session() as line:
            took = asyncio.create_task(
                take(line, delivered, chance, 10**9 if sessions == 4 else chance.randrange(30, 90))
            )
            ended = asyncio.create_task(done.wait())
            await asyncio.wait({took, ended}, return_when=asyncio.FIRST_COMPLETED)
            if done.is_set():
                took.cancel()
                return
            ended.cancel()
            await took


async def take(line: Line, delivered: Counter[str], chance: random.Random, most: int) -> None:
    """Answer up to `most` commands; the last of them, cut off before they were said, come again with their commands."""
    held: list[str] = []
    for number in range(most):
        command_id = (await line.command(within=60)).id
        delivered[command_id] += 1
        held += [command_id, command_id] if chance.random() < 0.2 else [command_id]
        if len(held) > 10 or chance.random() < 0.3 or most == 10**9:
            chance.shuffle(held)
            for command_id in held:
                await line.answer(command_id, detail=f"{number}/{chance.random()}")
            held.clear()
        await asyncio.sleep(0.004)  # its pace, within the allowance of messages


async def test_thousands_of_commands_with_duplicates_and_cuts_are_each_settled_once(sqlite: Database) -> None:
    async with control_plane(sqlite) as plane:
        agents = [await plane.add_agent() for _ in range(AGENTS)]
        delivered: Counter[str] = Counter()
        done = asyncio.Event()
        players = [asyncio.create_task(play(agent, delivered, seed, done)) for seed, agent in enumerate(agents)]
        orders = [plane.order(agent.node_id, f"{agent.node_id}/{n}") for n in range(ORDERS) for agent in agents]
        results = await asyncio.gather(*orders)
        done.set()
        await asyncio.gather(*players)
    assert len({result.command_id for result in results}) == AGENTS * ORDERS == len(delivered)
    assert max(delivered.values()) > 1, "nothing was cut off: the test proves nothing"
    rows = await sqlite.read(lambda tx: tx.execute(select(Command.id, Command.state, Command.result)).all())
    assert {state for _, state, _ in rows} == {"done"}
    # What was settled first is what stands, however often it was said again.
    stored = {command_id: command_pb2.CommandResult.FromString(result or b"").detail for command_id, _, result in rows}
    assert stored == {result.command_id: result.detail for result in results}


async def settle(database: Database, naive: bool) -> Counter[str]:
    """How often each of 1500 commands is settled by 8 writers that all say all answers, in their own order."""
    names = [f"op/{n}" for n in range(1500)]
    async with control_plane(database) as plane:
        node_id = await plane.add_node()
        now = plane.clock.now()
        later = now + timedelta(minutes=5)
        wishes = [commands.NewCommand(name, node_id, "op", "k", EPOCH, later, b"x", now) for name in names]
        await database.write(lambda tx: commands.put(tx, wishes))
        settled: Counter[str] = Counter()

        async def writer(seed: int) -> None:
            mine = random.Random(seed).sample(names, len(names))
            for start in range(0, len(mine), 250):
                answers = [Answer(name, node_id, now, None, b"r") for name in mine[start : start + 250]]
                if naive:
                    verdicts = await _look_then_settle(database, answers)
                else:
                    verdicts = await database.ensure(lambda tx, answers=answers: commands.answer(tx, answers))  # type: ignore[misc]
                settled.update(
                    one.command_id for one, v in zip(answers, verdicts, strict=True) if v == commands.SETTLED
                )

        await asyncio.gather(*(writer(seed) for seed in range(8)))
    assert settled.keys() == set(names)
    return settled


async def _look_then_settle(database: Database, answers: list[Answer]) -> list[str]:
    ids = [one.command_id for one in answers]
    query = select(Command.id).where(Command.id.in_(ids), Command.state != "done")
    open_ids = set(await database.read(lambda tx: list(tx.scalars(query))))
    await database.write(lambda tx: tx.execute(update(Command).where(Command.id.in_(open_ids)).values(state="done")))
    return [commands.SETTLED if one.command_id in open_ids else commands.AGAIN for one in answers]


async def test_of_many_writers_exactly_one_settles_a_command(database: Database) -> None:
    assert set((await settle(database, naive=False)).values()) == {1}


async def test_looking_first_and_settling_afterwards_would_settle_twice(sqlite: Database) -> None:
    """The control of the test above."""
    assert max((await settle(sqlite, naive=True)).values()) > 1


async def test_one_answer_that_the_database_does_not_take_is_nobody_elses_trouble(database: Database) -> None:
    async with control_plane(database) as plane:
        agent = await plane.add_agent()
        now = plane.clock.now()
        async with agent.session() as line:
            order = asyncio.create_task(plane.order(agent.node_id, "op/1"))
            await line.command()
            submit = plane.sessions.answers.submit
            # The first goes alone, the two behind it share a transaction.
            first = submit(Answer("op/1", agent.node_id, now))
            bad, good = (
                submit(Answer(cast(str, ["no id"]), agent.node_id, now)),
                submit(Answer("op/1", agent.node_id, now, None, b"")),
            )
            await asyncio.wait({first, bad, good})
            assert bad.exception() is not None
            assert await good == commands.SETTLED
            await order


async def test_a_lost_wake_up_call_costs_a_poll(plane: ControlPlane) -> None:
    """The row is the truth: a command whose wake-up call nobody heard is sent all the same."""
    agent = await plane.add_agent()
    later = plane.clock.now() + timedelta(minutes=1)
    body = plane.vault.seal(command("op/1").SerializeToString(), "command/op/1")

    def without_a_word(tx: Session) -> None:
        tx.add(
            Command(
                id="op/1",
                node_id=agent.node_id,
                operation_id="op",
                kind="prepare_volume",
                epoch=EPOCH,
                deadline=later,
                body=body,
                state=commands.QUEUED,
                created_at=later,
            )
        )

    async with agent.session() as line:
        await plane.database.write(without_a_word)
        assert (await line.command(within=8)).id == "op/1"


@pytest.mark.parametrize("stored", [False, True])
async def test_a_look_before_a_command_is_stored_does_not_mean_that_it_is_gone(sqlite: Database, stored: bool) -> None:
    waits = Waits(sqlite)
    known = Fact("op/slow", "queued", "", None, "n", AgentState.CONNECTED, None)
    with waits.of("op/slow") as wait:
        if stored:
            wait.expect(known)
        await sqlite.write(lambda tx: publish(tx, "result/op/slow"))  # everybody looks, and there is no such row
        await wait.look(1.0)
        if not stored:
            wait.expect(known)
        assert (wait.fact is None) == stored
