"""One run of one operation: its rows, written under the cluster's fencing number.

Whoever carries an operation out raises the cluster's epoch first. A control plane that was frozen and taken over still
carries the lower number: its next write finds another epoch, changes nothing and stops it; agents refuse it likewise.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.failure import FailureDetails
from controlplane.domain.operation import (
    SETTLED,
    STEP_TRANSITIONS,
    OperationKind,
    OperationState,
    StepState,
    advance,
)
from controlplane.operations.tools import Tools
from controlplane.planner.plan import Step
from controlplane.store import clusters, operations
from controlplane.store.bus import publish
from controlplane.store.database import is_connection_loss
from controlplane.store.specs import spec_from_json
from controlplane.store.tables import Cluster, Node, Operation, OperationStep

log = structlog.get_logger(__name__)
T = TypeVar("T")
# Lock not available in time, deadlock, serialization: the transaction was rolled back because of another one.
_LOST_TO_ANOTHER = {"55P03", "40P01", "40001"}


class FencedError(Exception):
    """Another control plane carries this operation out now. Stop; do not retry."""


@dataclass(frozen=True)
class Execution:
    """Identity of this run: what every write and every command carries."""

    tools: Tools
    operation_id: str
    attempt: int
    kind: OperationKind
    actor: str
    project_id: str
    cluster_id: str
    cluster_name: str
    spec: ClusterSpec
    network_slot: int
    epoch: int

    @classmethod
    async def claim(cls, tools: Tools, operation_id: str, attempt: int) -> "Execution | OperationState":
        """Raise the epoch and read what the operation is about.

        The state instead when there is nothing left to carry out: the process died after the end was written and
        before the engine knew, and since then someone may even have begun another attempt.
        """

        def work(tx: Session) -> Execution | OperationState:
            operation = tx.get_one(Operation, operation_id)
            if operation.attempt != attempt or operation.state in SETTLED:
                return OperationState(operation.state)
            cluster = tx.get_one(Cluster, operation.cluster_id)
            epoch = clusters.raise_epoch(tx, cluster.id)
            return cls(
                tools,
                operation_id,
                attempt,
                OperationKind(operation.kind),
                operation.actor,
                cluster.project_id,
                cluster.id,
                cluster.name,
                spec_from_json(cluster.spec),
                cluster.network_slot or 0,
                epoch,
            )

        return await _patiently(lambda: tools.database.ensure(work))

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction that holds the fence; FencedError if it was lost."""

        def fenced(tx: Session) -> T:
            if not clusters.epoch_is(tx, self.cluster_id, self.epoch):
                raise FencedError(f"operation {self.operation_id} was taken over")
            value = work(tx)
            publish(tx, f"operation/{self.operation_id}")
            return value

        return await _patiently(lambda: self.tools.database.ensure(fenced))

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction that changes nothing."""
        return await _patiently(lambda: self.tools.database.read(work))

    async def hold(self) -> None:
        """FencedError if the fence was lost.

        What was found in the cloud before this call was there before any later run made something: it may be deleted.
        """
        await self.write(lambda _tx: None)

    async def node(self, slot: str) -> Node:
        """The node row of a slot."""
        nodes = await self.nodes()
        return next(node for node in nodes if node.name == slot)

    async def nodes(self) -> Sequence[Node]:
        """All node rows of the cluster in slot order."""
        return await self.read(lambda tx: clusters.nodes_of(tx, [self.cluster_id]))

    async def cancel_requested(self) -> bool:
        """Whether someone has asked to stop."""

        def work(tx: Session) -> bool:
            operation = operations.get(tx, self.operation_id)
            return operation is not None and operation.cancel_requested

        return await self.read(work)


async def _patiently(transaction: Callable[[], Awaitable[T]]) -> T:
    """An operation waits for its database however long that is away: there is nowhere to write that it gave up."""
    while True:
        try:
            return await transaction()
        except DBAPIError as error:
            if not is_connection_loss(error) and getattr(error.orig, "sqlstate", None) not in _LOST_TO_ANOTHER:
                raise
            log.warning("an operation waits for the database", error=type(error).__name__)


class StepRun:
    """One run of one step: its row, and what the handler says about it."""

    def __init__(self, execution: Execution, step: Step) -> None:
        self.execution, self.step = execution, step
        self.tools = execution.tools
        self._last_wait = ""
        # Raised when the step is tried again in this run, so that a refused command is not answered from the journal.
        self.tries = 0

    async def begin(self) -> bool:
        """Mark the step RUNNING; False when it is done already and nothing is left to do."""

        def work(tx: Session) -> bool:
            row = self._row(tx)
            if row.state in {StepState.SUCCEEDED, StepState.SKIPPED}:
                return False
            row.state = advance(STEP_TRANSITIONS, StepState(row.state), StepState.RUNNING)
            row.attempt += 1
            row.started_at = row.started_at or self._now()
            row.ended_at, row.failure, row.detail, row.waiting_for = None, None, "", ""
            operation = tx.get_one(Operation, self.execution.operation_id)
            operation.summary = self.step.title
            return True

        return await self.execution.write(work)

    async def waiting(self, what: str) -> None:
        """Say what the step waits for now; written only when it changes."""
        if what == self._last_wait:
            return
        self._last_wait = what

        def work(tx: Session) -> None:
            self._row(tx).waiting_for = what

        await self.execution.write(work)

    async def succeed(self, detail: str) -> None:
        """Mark the step SUCCEEDED with what was found or done."""
        await self._end(StepState.SUCCEEDED, detail, None)

    async def fail(self, failure: FailureDetails) -> None:
        """Mark the step FAILED."""
        await self._end(StepState.FAILED, failure.message, failure)

    async def skip(self, detail: str) -> None:
        """Mark the step SKIPPED, because the operation was cancelled under it."""
        await self._end(StepState.SKIPPED, detail, None)

    async def _end(self, state: StepState, detail: str, failure: FailureDetails | None) -> None:
        def work(tx: Session) -> None:
            row = self._row(tx)
            row.state = advance(STEP_TRANSITIONS, StepState(row.state), state)
            row.detail, row.waiting_for, row.ended_at = detail, "", self._now()
            row.failure = operations.failure_to_json(failure) if failure else None

        await self.execution.write(work)

    def _row(self, tx: Session) -> OperationStep:
        return tx.get_one(OperationStep, (self.execution.operation_id, self.step.name))

    def _now(self) -> datetime:
        return self.tools.clock.now()
