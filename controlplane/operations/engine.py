"""The durable engine: DBOS Transact on our own database. No other module knows it.

Rules that keep its promises (each one was met as a trap): operations are never cancelled or timed out through DBOS,
which would free the cluster while the old step still runs; the queue is strictly first in, first out per cluster;
every recorded step has a name of its own, so that changed code is noticed instead of replaying wrong values; the
application version is pinned, so that an upgrade carries running operations on.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog
from dbos import DBOS, DBOSClient, DBOSConfig, Serializer
from sqlalchemy.orm import Session

from controlplane.domain.failure import WapFailure
from controlplane.store.database import Database

APPLICATION = "wap"
VERSION = "1"
QUEUE = "cluster-operations"
WORKFLOW = "operation"
# Each look costs about 8 ms of CPU: twice a second, an idle control plane stays below 5 % of a core.
POLL_SECONDS = 0.5
# A run that ends its process each time must not do so for ever; restarts of the control plane count too.
MOST_STARTS = 100
BROKEN = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
UPKEEP_SECONDS = 60.0
# What the engine remembers of ended runs serves only questions about the engine: operations have rows of their own.
KEPT = timedelta(days=7)
BATCH = 500

log = structlog.get_logger(__name__)

Durable = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Runner(Protocol):
    """What the engine calls for each operation."""

    async def run(self, operation_id: str, attempt: int, durable: Durable) -> str:
        """Carry the operation out; `durable(name, work)` runs work once and remembers its JSON value."""

    async def gave_up(self, operation_id: str, attempt: int) -> None:
        """The engine will never call `run` for this attempt again, although the operation may not have ended."""


class EngineError(RuntimeError):
    """An error that was recorded by the engine; only its text survives."""


class JsonSerializer(Serializer):
    """Plain JSON: readable in SQL, and a row can never run code in the control plane, as a pickle could."""

    def name(self) -> str:
        """Stored with every row; must never change."""
        return "wap_json"

    def serialize(self, data: Any) -> str:
        """JSON text; raises TypeError for values that would not come back the same."""
        return json.dumps(_plain(data))

    def deserialize(self, serialized_data: str) -> Any:
        """The value again."""
        return json.loads(serialized_data, object_hook=_error_from_json)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float() if value == value and abs(value) != float("inf"):
            return value
        case BaseException():
            return {"__error__": _text_of(value)}
        case list():
            return [_plain(item) for item in value]
        case {"args": tuple() as arguments, "kwargs": dict() as named} if len(value) == 2:  # how DBOS keeps a call
            return {"args": [_plain(item) for item in arguments], "kwargs": _plain(named)}
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not plain JSON")


def _text_of(error: BaseException) -> str:
    """Our own failures are written for people; what other errors say may hold values that must not be kept here."""
    return f"{type(error).__name__}: {error}" if isinstance(error, WapFailure) else type(error).__name__


def _error_from_json(value: dict[str, Any]) -> Any:
    return EngineError(value["__error__"]) if set(value) == {"__error__"} else value


_runner: Runner | None = None  # DBOS is one per process and so is the runner that it calls
_runs: set["asyncio.Task[Any]"] = set()


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MOST_STARTS)
async def _operation(operation_id: str, attempt: int) -> str:
    assert _runner is not None, "the engine was launched without a runner"
    task = asyncio.current_task()
    assert task is not None
    _runs.add(task)
    try:
        return await _runner.run(operation_id, attempt, _durable)
    except BaseException as error:  # taken over, closing, or an end of this process: others or a later start carry on
        log.warning("run stopped before its end", operation=operation_id, reason=type(error).__name__)
        raise
    finally:
        _runs.discard(task)


async def _durable(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        return await work()

    return await DBOS.run_step_async({"name": name}, body)


class Engine:
    """Queue and executor of operations. Launch inside the running event loop: workflows then run on that loop."""

    def __init__(self, database: Database, executor_id: str, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._database, self.executor_id, self._poll_seconds = database, executor_id, poll_seconds
        self._serializer = JsonSerializer()
        self._client: DBOSClient | None = None
        self._upkeep: asyncio.Task[None] | None = None

    async def launch(self, runner: Runner) -> None:
        """Start to work: operations that this executor id left unfinished are carried on."""
        global _runner
        _runner = runner
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": _dbos_url(self._database),
            # On SQLite an engine of its own: DBOS begins its transactions itself, and so does ours.
            "system_database_engine": self._database.engine if self._database.is_postgres else None,
            "executor_id": self.executor_id,
            "application_version": VERSION,
            "serializer": self._serializer,
            "log_level": "ERROR",
        }
        DBOS(config=config)
        DBOS.launch()
        await DBOS.register_queue_async(QUEUE, partition_concurrency=1, polling_interval_sec=self._poll_seconds)
        await self.connect()
        self._upkeep = asyncio.get_running_loop().create_task(self._keep_up(runner))

    async def connect(self) -> None:
        """Be able to enqueue without working: once an engine has been launched on this database."""

        def make() -> DBOSClient:
            return DBOSClient(
                system_database_url=_dbos_url(self._database),
                system_database_engine=self._database.engine,
                serializer=self._serializer,
                application_name=APPLICATION,
            )

        self._client = await asyncio.to_thread(make)

    def enqueue(self, tx: Session, operation_id: str, cluster_id: str, attempt: int) -> None:
        """Add to the queue of the cluster in the caller's transaction."""
        assert self._client is not None, "the engine is neither launched nor connected"
        self._client.enqueue_in_transaction(
            tx,
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "queue_partition_key": cluster_id,
                "workflow_id": _workflow_id(operation_id, attempt),
                "application_name": APPLICATION,
                "app_version": VERSION,
            },
            operation_id,
            attempt,
        )

    async def take_over(self, executor_ids: Sequence[str]) -> list[str]:
        """Queue again what these dead executors left running; workflow ids. Harmless when called twice."""
        # Private by name, public by need: DBOS sells fail-over apart. A test guards that it is there.
        handles = await asyncio.to_thread(DBOS._recover_pending_workflows, list(executor_ids))
        return [handle.get_workflow_id() for handle in handles]

    async def report_broken(self, runner: Runner) -> None:
        """Tell the runner of attempts that ended in the engine itself: nobody else would end their operations."""
        found = await DBOS.list_workflows_async(
            status=BROKEN, name=WORKFLOW, sort_desc=True, limit=BATCH, load_input=False, load_output=False
        )
        for workflow in found:
            operation_id, _, attempt = workflow.workflow_id.rpartition(".")
            await runner.gave_up(operation_id, int(attempt))

    async def forget(self, before: datetime) -> int:
        """Delete what the engine keeps of runs that ended before then; how many."""
        total = 0
        while True:
            found = await DBOS.list_workflows_async(
                completed_before=before.astimezone(UTC).isoformat(), limit=BATCH, load_input=False, load_output=False
            )
            if not found:
                return total
            await DBOS.delete_workflows_async([workflow.workflow_id for workflow in found])
            total += len(found)

    async def _keep_up(self, runner: Runner) -> None:
        while True:
            try:
                await self.report_broken(runner)
                await self.forget(datetime.now(UTC) - KEPT)
            except Exception:
                log.exception("upkeep of the engine failed; trying again")
            await asyncio.sleep(UPKEEP_SECONDS)

    async def close(self) -> None:
        """Stop to work; what runs stays recorded and is carried on by the next start or by another control plane.

        DBOS leaves tasks on our loop running: they would work on for an engine that is gone.
        """
        ending = [task for task in (*_runs, self._upkeep) if task is not None]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._client is not None:
            await asyncio.to_thread(self._client.destroy)
        await asyncio.to_thread(DBOS.destroy)


def _workflow_id(operation_id: str, attempt: int) -> str:
    return f"{operation_id}.{attempt}"


def _dbos_url(database: Database) -> str:
    # DBOS wants the plain scheme and adds the driver itself.
    return database.engine.url.set(drivername="postgresql" if database.is_postgres else "sqlite").render_as_string(
        hide_password=False
    )
