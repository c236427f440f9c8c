"""What the rest relies on in the durable engine, on SQLite and on PostgreSQL."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS
from sqlalchemy import text
from sqlalchemy.orm import Session

from controlplane.domain.failure import FailureCode, Refused, WapFailure
from controlplane.operations.engine import Durable, Engine, EngineError, JsonSerializer
from controlplane.store.database import Database
from controlplane.store.tables import Project
from tests.operations.conftest import embedded
from tests.operations.world import POLL_SECONDS
from tests.waiting import eventually

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FAILURE = {"code": "CLOUD_CAPACITY", "message": "no room", "retryable": False, "given": None}


class Bench:
    """A runner whose operations wait until they are let go, and which writes down what happens."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.values: list[Any] = []
        self.broken: list[tuple[str, int]] = []
        self.gates: dict[str, asyncio.Event] = {}

    def gate(self, operation_id: str) -> asyncio.Event:
        return self.gates.setdefault(operation_id, asyncio.Event())

    async def run(self, operation_id: str, attempt: int, durable: Durable) -> str:
        async def first() -> Any:
            self.log.append(f"{operation_id} first")
            return FAILURE

        async def second() -> Any:
            self.log.append(f"{operation_id} second")
            await self.gate(operation_id).wait()
            if operation_id == "op-bad":
                raise ValueError("the password is hunter2")
            return "ok"

        self.log.append(f"{operation_id} begins")
        self.values.append(await durable("first", first))
        await durable("second", second)
        self.log.append(f"{operation_id} ends")
        return "SUCCEEDED"

    async def gave_up(self, operation_id: str, attempt: int) -> None:
        self.broken.append((operation_id, attempt))


@asynccontextmanager
async def working(database: Database, bench: Bench, executor_id: str = "one") -> AsyncIterator[Engine]:
    engine = Engine(database, executor_id, poll_seconds=POLL_SECONDS)
    await engine.launch(bench)
    try:
        yield engine
    finally:
        await engine.close()


async def enqueue(engine: Engine, database: Database, operation_id: str, cluster_id: str = "cl-1") -> None:
    await database.write(lambda tx: engine.enqueue(tx, operation_id, cluster_id, 1))


async def said(bench: Bench, line: str) -> None:
    await eventually(lambda: line in bench.log, within=10, every=0.01)


async def test_enqueued_and_stored_together_or_not_at_all(database: Database) -> None:
    bench = Bench()
    async with working(database, bench) as engine:

        def refused(tx: Session) -> None:
            tx.add(Project(id="pr-1", name="p", created_at=NOW))
            engine.enqueue(tx, "op-rolled-back", "cl-1", 1)
            raise Refused(FailureCode.INVALID_ARGUMENT, "no")

        with pytest.raises(Refused):
            await database.write(refused)
        await enqueue(engine, database, "op-kept")
        bench.gate("op-kept").set()
        await said(bench, "op-kept ends")
    assert not [line for line in bench.log if "rolled-back" in line]
    assert await database.read(lambda tx: tx.get(Project, "pr-1")) is None


async def test_one_at_a_time_for_a_cluster_in_the_order_of_asking_and_side_by_side_for_two(database: Database) -> None:
    bench = Bench()
    async with working(database, bench) as engine:
        await enqueue(engine, database, "op-1", "cl-1")
        await enqueue(engine, database, "op-2", "cl-1")
        await enqueue(engine, database, "op-3", "cl-1")
        await enqueue(engine, database, "op-other", "cl-2")
        await said(bench, "op-1 second")
        await said(bench, "op-other second")
        assert "op-2 begins" not in bench.log
        for gate in ("op-3", "op-2", "op-1"):
            bench.gate(gate).set()
        await said(bench, "op-3 ends")
        own = [line for line in bench.log if not line.startswith("op-other")]
        expected = ("begins", "first", "second", "ends")
        assert own == [f"{name} {what}" for name in ("op-1", "op-2", "op-3") for what in expected]


async def test_a_start_of_the_same_control_plane_carries_on_behind_what_was_recorded(database: Database) -> None:
    before, after = Bench(), Bench()
    async with working(database, before) as engine:
        await enqueue(engine, database, "op-1")
        await said(before, "op-1 second")
    assert "op-1 ends" not in before.log
    after.gate("op-1").set()
    async with working(database, after):
        await said(after, "op-1 ends")
    assert after.log == ["op-1 begins", "op-1 second", "op-1 ends"]
    assert after.values == [FAILURE]


async def test_closing_stops_the_work_itself(database: Database) -> None:
    """Otherwise it would go on beside the control plane that takes over."""
    bench = Bench()
    async with working(database, bench) as engine:
        await enqueue(engine, database, "op-1")
        await said(bench, "op-1 second")
        assert runs() == 1
    assert runs() == 0


def runs() -> int:
    return sum("_execute_workflow_async" in repr(task) for task in asyncio.all_tasks())


async def test_the_work_of_another_executor_is_left_alone_until_that_is_declared_dead(database: Database) -> None:
    dead, alive = Bench(), Bench()
    async with working(database, dead, "dead") as engine:
        await enqueue(engine, database, "op-1")
        await said(dead, "op-1 second")
    alive.gate("op-1").set()
    alive.gate("op-2").set()
    async with working(database, alive, "alive") as engine:
        await enqueue(engine, database, "op-2", "cl-2")
        await said(alive, "op-2 ends")
        assert await engine.take_over(["somebody-else"]) == []
        assert "op-1 begins" not in alive.log
        assert await engine.take_over(["dead"]) == ["op-1.1"]
        assert await engine.take_over(["dead"]) == []
        await said(alive, "op-1 ends")
    assert [line for line in alive.log if line.startswith("op-1")] == ["op-1 begins", "op-1 second", "op-1 ends"]


async def test_an_operation_of_a_cluster_waits_for_the_one_that_is_taken_over(database: Database) -> None:
    dead, alive = Bench(), Bench()
    async with working(database, dead, "dead") as engine:
        await enqueue(engine, database, "op-1")
        await said(dead, "op-1 second")
        await enqueue(engine, database, "op-2")
    for gate in ("op-1", "op-2"):
        alive.gate(gate).set()
    async with working(database, alive, "alive") as engine:
        await engine.take_over(["dead"])
        await said(alive, "op-2 ends")
    assert alive.log.index("op-1 ends") < alive.log.index("op-2 begins")


async def test_what_ends_in_the_engine_itself_is_reported_and_tells_no_secret(database: Database) -> None:
    bench = Bench()
    async with working(database, bench) as engine:
        bench.gate("op-bad").set()
        await enqueue(engine, database, "op-bad")
        await said(bench, "op-bad second")

        async def reported() -> bool:
            await engine.report_broken(bench)
            return ("op-bad", 1) in bench.broken

        await eventually(reported, within=10)
    rows = await database.read(lambda tx: dump(tx, database))
    assert "op-bad" in rows
    assert "ValueError" in rows
    assert "hunter2" not in rows


async def test_the_engine_forgets_what_has_ended_and_nothing_else(database: Database) -> None:
    bench = Bench()
    async with working(database, bench) as engine:
        await enqueue(engine, database, "op-1", "cl-1")
        await enqueue(engine, database, "op-2", "cl-2")
        bench.gate("op-1").set()
        await said(bench, "op-1 ends")
        await said(bench, "op-2 second")
        assert await engine.forget(datetime.now(UTC) - timedelta(hours=1)) == 0
        later = datetime.now(UTC) + timedelta(hours=1)
        await eventually(lambda: forgotten(engine, later), within=10)
        bench.gate("op-2").set()
        await said(bench, "op-2 ends")


async def forgotten(engine: Engine, before: datetime) -> bool:
    return await engine.forget(before) == 1


def dump(tx: Session, database: Database) -> str:
    """All that the engine keeps, as text."""
    schema = "dbos." if database.is_postgres else ""
    tables = [f"{schema}workflow_status", f"{schema}operation_outputs"]
    return repr([tx.execute(text(f"select * from {table}")).all() for table in tables])


def test_the_private_function_that_takes_over_is_there() -> None:
    assert next(iter(inspect.signature(DBOS._recover_pending_workflows).parameters)) == "executor_ids"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "ok",
        17,
        1.5,
        True,
        ["a", {"b": [1, None]}],
        {"code": "X", "args": 1, "kwargs": 2},
        "\u00e4\u0000\ud7ff",
        {"args": ["op-1", 1], "kwargs": {}},
    ],
)
def test_what_is_recorded_comes_back_the_same(value: Any) -> None:
    serializer = JsonSerializer()
    text = serializer.serialize(value)
    assert serializer.deserialize(text) == value
    assert type(serializer.deserialize(text)) is type(value)
    json.loads(text)


def test_a_call_comes_back_as_the_engine_makes_it() -> None:
    serializer = JsonSerializer()
    call = serializer.deserialize(serializer.serialize({"args": ("op-1", 2), "kwargs": {}}))
    assert call == {"args": ["op-1", 2], "kwargs": {}}


@pytest.mark.parametrize(
    "value", [NOW, b"x", {1, 2}, (1, 2), {"a": (1,)}, {1: "a"}, object(), float("nan"), float("inf"), Path("/x")]
)
def test_what_would_come_back_changed_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="is not plain JSON"):
        JsonSerializer().serialize(value)


def test_an_error_comes_back_as_text_and_only_our_own_words() -> None:
    serializer = JsonSerializer()
    ours = serializer.deserialize(serializer.serialize(WapFailure(FailureCode.CLUSTER_BUSY, "op-2 holds it")))
    assert isinstance(ours, EngineError)
    assert str(ours) == "WapFailure: op-2 holds it"
    assert str(serializer.deserialize(serializer.serialize(RuntimeError("hunter2")))) == "RuntimeError"


async def test_a_value_that_is_not_json_fails_the_run_instead_of_being_kept(tmp_path: Path) -> None:
    class Odd(Bench):
        async def run(self, operation_id: str, attempt: int, durable: Durable) -> str:
            async def odd() -> Any:
                return NOW

            await durable("odd", odd)
            raise AssertionError("unreachable")

    bench = Odd()
    async with embedded(tmp_path) as database, working(database, bench) as engine:
        await enqueue(engine, database, "op-1")

        async def reported() -> bool:
            await engine.report_broken(bench)
            return bench.broken == [("op-1", 1)]

        await eventually(reported, within=10)
