"""How an operation begins and ends: its state, its cluster's state, the guard and the audit, in one transaction each.

Each may run twice: the process can die after the transaction and before the engine knows of it.
"""

from typing import Any

from sqlalchemy.orm import Session

from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, FailureDetails, WapFailure
from controlplane.domain.node import AgentState
from controlplane.domain.operation import SETTLED, OperationKind, OperationState, StepState
from controlplane.operations.execution import Execution
from controlplane.operations.step import CANCELLED, OK, Outcome
from controlplane.planner.delete import plan_delete
from controlplane.store import audit, clusters, operations
from controlplane.store.tables import Cluster, Operation

_RUNNING_STATE = {
    OperationKind.CREATE_CLUSTER: ClusterState.CREATING,
    OperationKind.DELETE_CLUSTER: ClusterState.DELETING,
}


async def begin(execution: Execution) -> bool:
    """The operation runs and holds its cluster. True when an earlier attempt has left an undo unfinished."""

    def work(tx: Session) -> bool:
        operation = tx.get_one(Operation, execution.operation_id)
        if not clusters.take_guard(tx, execution.cluster_id, operation.id):
            raise WapFailure(
                FailureCode.CLUSTER_BUSY, f"another operation holds cluster {execution.cluster_name}", retryable=True
            )
        now = execution.tools.clock.now()
        operation.started_at = operation.started_at or now
        if operation.state == OperationState.QUEUED:
            operations.set_state(tx, operation, OperationState.RUNNING, "started")
        clusters.set_state(tx, execution.cluster_id, _RUNNING_STATE[execution.kind], now)
        return _begin_anew(tx, operation)

    return await execution.write(work)


def _begin_anew(tx: Session, operation: Operation) -> bool:
    """After an undo what was done is no more: those steps are to be done again."""
    steps = operations.steps_of(tx, operation.id)
    undoing = [step for step in steps if step.undo]
    for step in steps if undoing else []:
        if not step.undo:
            step.state, step.started_at, step.ended_at = StepState.PENDING, None, None
            step.detail, step.failure = "", None
    return any(step.state != StepState.SUCCEEDED for step in undoing)


async def begin_undo(execution: Execution, outcome: Outcome) -> None:
    """The operation removes what it made, because of `outcome`."""

    def work(tx: Session) -> None:
        operation = tx.get_one(Operation, execution.operation_id)
        operations.set_state(tx, operation, OperationState.CANCELLING, "undoing what was made")
        if isinstance(outcome, dict):
            operation.failure = outcome
        operations.add_steps(tx, operation.id, plan_delete(execution.spec, undo=True))
        tx.flush()
        for step in operations.steps_of(tx, operation.id):
            if step.undo:  # those of an earlier attempt run again
                step.state, step.started_at, step.ended_at = StepState.PENDING, None, None

    await execution.write(work)


async def finish(execution: Execution) -> str:
    """OK: everything is done and the operation has succeeded. CANCELLED: someone asked to cancel just before that."""

    def work(tx: Session) -> str:
        operation = tx.get_one(Operation, execution.operation_id, with_for_update=True)
        if operation.state in SETTLED:
            return OK
        match execution.kind:
            case OperationKind.CREATE_CLUSTER:
                if operation.cancel_requested:
                    return CANCELLED
                operations.set_state(tx, operation, OperationState.SUCCEEDED, "the cluster is ready")
                clusters.set_state(tx, execution.cluster_id, ClusterState.AVAILABLE, execution.tools.clock.now())
                clusters.drop_guard(tx, execution.cluster_id, operation.id)
            case OperationKind.DELETE_CLUSTER:
                operations.set_state(tx, operation, OperationState.SUCCEEDED, "the cluster and its data are gone")
                _end_cluster(tx, execution)
        _record(tx, execution, operation, "ok")
        return OK

    return await execution.write(work)


async def end(execution: Execution, outcome: Outcome, undone: Outcome | None) -> str:
    """The state of an operation that did not succeed. `undone` says what came of the undo; None if there was none."""

    def work(tx: Session) -> str:
        operation = tx.get_one(Operation, execution.operation_id)
        if operation.state in SETTLED:
            return operation.state
        if outcome == CANCELLED and undone == OK:
            operations.set_state(tx, operation, OperationState.CANCELLED, "cancelled; everything it made was removed")
            _end_cluster(tx, execution)
            _record(tx, execution, operation, "ok")
        else:
            _fail(tx, execution, operation, *_judged(outcome, undone))
        return operation.state

    return await execution.write(work)


async def break_off(execution: Execution, details: FailureDetails) -> str:
    """The operation has failed in a way that nobody foresaw."""

    def work(tx: Session) -> str:
        operation = tx.get_one(Operation, execution.operation_id)
        if operation.state not in SETTLED:
            failure = operations.failure_to_json(details)
            _fail(tx, execution, operation, failure, f"{details.message} (what it made is still there)")
        return operation.state

    return await execution.write(work)


def _judged(outcome: Outcome, undone: Outcome | None) -> tuple[dict[str, Any], str]:
    """(failure, summary) of an operation that failed: what is left is said, and an undo that failed is not hidden."""
    if isinstance(undone, dict):
        left = "what it made could not be removed"
        if isinstance(outcome, dict) and outcome != undone:
            return outcome, f"{outcome['message']} ({left}: {undone['message']})"
        return undone, f"{undone['message']} ({left})"
    assert isinstance(outcome, dict)
    left = "what it made is still there" if undone is None else "everything it made was removed"
    return outcome, f"{outcome['message']} ({left})"


def _fail(tx: Session, execution: Execution, operation: Operation, failure: dict[str, Any], summary: str) -> None:
    """FAILED keeps the guard. A cluster that another operation holds is not touched."""
    operation.failure = failure
    operations.set_state(tx, operation, OperationState.FAILED, summary)
    if tx.get_one(Cluster, execution.cluster_id).active_operation_id == operation.id:
        clusters.set_state(tx, execution.cluster_id, ClusterState.FAILED, execution.tools.clock.now())
    _record(tx, execution, operation, failure["code"])


def _end_cluster(tx: Session, execution: Execution) -> None:
    now = execution.tools.clock.now()
    clusters.set_state(tx, execution.cluster_id, ClusterState.DELETED, now)
    clusters.drop_guard(tx, execution.cluster_id, execution.operation_id)
    for node in clusters.nodes_of(tx, [execution.cluster_id]):
        node.agent_state, node.removed_at = AgentState.REMOVED, now


def _record(tx: Session, execution: Execution, operation: Operation, outcome: str) -> None:
    operation.ended_at = execution.tools.clock.now()
    audit.record(
        tx,
        now=operation.ended_at,
        actor="system:operations",
        action=f"operation.{operation.state.lower()}",
        project_id=execution.project_id,
        resource=f"operation/{operation.id}",
        after={"kind": execution.kind, "cluster": execution.cluster_name, "summary": operation.summary},
        request_id=operation.request_id,
        outcome=outcome,
    )
