"""Operations and their steps. Whoever opens one also enqueues it, in the same transaction, through `OperationQueue`."""

import dataclasses
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, FailureDetails, Refused
from controlplane.domain.operation import (
    CANCELLABLE_KINDS,
    FINAL,
    OPERATION_TRANSITIONS,
    OperationKind,
    OperationState,
    StepState,
    advance,
)
from controlplane.planner.plan import Plan
from controlplane.store import clusters
from controlplane.store.bus import publish
from controlplane.store.database import take_turns
from controlplane.store.tables import Cluster, Operation, OperationStep


class OperationQueue(Protocol):
    """Where operations wait for their turn: first in, first out per cluster, over all control planes."""

    def enqueue(self, tx: Session, operation_id: str, cluster_id: str, attempt: int) -> None:
        """Add to the queue in the caller's transaction: both happen or neither."""


def open_operation(
    tx: Session,
    queue: OperationQueue,
    *,
    cluster: Cluster,
    kind: OperationKind,
    plan: Plan,
    actor: str,
    request_id: str,
    now: datetime,
    idempotency_key: str | None = None,
    request_digest: str = "",
) -> Operation:
    """Store the operation with its planned steps, make it the cluster's only one, and enqueue it.

    CLUSTER_BUSY, naming the other operation, when the cluster is held already.
    """
    operation = Operation(
        id=ids.operation_id(),
        project_id=cluster.project_id,
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        kind=kind,
        state=OperationState.QUEUED,
        actor=actor,
        request_id=request_id,
        created_at=now,
        attempt=1,
        cancel_requested=False,
        failure=None,
        summary="waiting for its turn",
        idempotency_key=idempotency_key,
        request_digest=request_digest,
    )
    if not clusters.take_guard(tx, cluster.id, operation.id):
        check_free(tx, cluster)
    tx.add(operation)
    add_steps(tx, operation.id, plan)
    tx.flush()
    queue.enqueue(tx, operation.id, cluster.id, operation.attempt)
    publish(tx, f"operation/{operation.id}", f"cluster/{cluster.id}")
    return operation


def check_free(tx: Session, cluster: Cluster) -> None:
    """CLUSTER_BUSY, naming the operation, when one holds the cluster."""
    busy = tx.execute(select(Cluster.active_operation_id).where(Cluster.id == cluster.id)).scalar_one()
    if busy is not None:
        raise Refused(
            FailureCode.CLUSTER_BUSY,
            f"operation {busy} holds cluster {cluster.name}",
            field="cluster_id",
            given=cluster.id,
            allowed="wait for it, cancel it, or abandon it if it failed",
            retryable=True,
        )


def add_steps(tx: Session, operation_id: str, plan: Plan) -> None:
    """Add the plan's steps behind those that are there; steps that are there already stay as they are."""
    there = {step.name for step in steps_of(tx, operation_id)}
    stages = tx.scalar(select(func.max(OperationStep.stage)).where(OperationStep.operation_id == operation_id))
    first_stage = 0 if stages is None else stages + 1
    for position, (stage, titled, step) in enumerate(plan.steps(), start=len(there)):
        if step.name not in there:
            tx.add(
                OperationStep(
                    operation_id=operation_id,
                    name=step.name,
                    position=position,
                    stage=first_stage + stage,
                    stage_title=titled.title,
                    title=step.title,
                    reason=step.reason,
                    waits_for=step.waits_for,
                    risk=step.risk,
                    undo=step.undo,
                    state=StepState.PENDING,
                    attempt=0,
                )
            )


def get(tx: Session, operation_id: str) -> Operation | None:
    """The operation without its steps."""
    return tx.get(Operation, operation_id)


def lock(tx: Session, operation_id: str) -> Operation | None:
    """The operation as it is now, which nobody else moves before this transaction ends."""
    return tx.get(Operation, operation_id, with_for_update=True, populate_existing=True)


def by_idempotency_key(tx: Session, key: str) -> Operation | None:
    """The operation that a request with this key opened; the same request that comes at the same time waits here."""
    take_turns(tx, f"idempotency/{key}")
    return tx.scalar(select(Operation).where(Operation.idempotency_key == key))


def steps_of(tx: Session, operation_id: str) -> Sequence[OperationStep]:
    """Steps in the order of the plan, undo steps behind."""
    query = select(OperationStep).where(OperationStep.operation_id == operation_id)
    return tx.scalars(query.order_by(OperationStep.position, OperationStep.name)).all()


def step_counts(tx: Session, operation_ids: Collection[str]) -> dict[str, tuple[int, int]]:
    """(done, total) of the steps that are not undo steps, by operation."""
    rows = tx.execute(
        select(OperationStep.operation_id, OperationStep.state, func.count())
        .where(OperationStep.operation_id.in_(operation_ids), OperationStep.undo.is_(False))
        .group_by(OperationStep.operation_id, OperationStep.state)
    )
    counts = dict.fromkeys(operation_ids, (0, 0))
    for operation_id, state, number in rows:
        done, total = counts[operation_id]
        finished = number if state in {StepState.SUCCEEDED, StepState.SKIPPED} else 0
        counts[operation_id] = (done + finished, total + number)
    return counts


def list_page(
    tx: Session,
    *,
    project_ids: Collection[str] | None,
    cluster_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
) -> Sequence[Operation]:
    """Operations, newest first, older than `before` (creation time and id of the last one seen)."""
    query = select(Operation).order_by(Operation.created_at.desc(), Operation.id.desc()).limit(limit)
    if project_ids is not None:
        query = query.where(Operation.project_id.in_(project_ids))
    if cluster_id:
        query = query.where(Operation.cluster_id == cluster_id)
    if before is not None:
        moment, last = before
        query = query.where(
            or_(Operation.created_at < moment, and_(Operation.created_at == moment, Operation.id < last))
        )
    return tx.scalars(query).all()


def set_state(tx: Session, operation: Operation, state: OperationState, summary: str) -> None:
    """Move the operation to a state that may follow its own."""
    operation.state = advance(OPERATION_TRANSITIONS, OperationState(operation.state), state)
    operation.summary = summary
    publish(tx, f"operation/{operation.id}", f"cluster/{operation.cluster_id}")


def request_cancel(tx: Session, operation: Operation) -> None:
    """Ask a queued or running create to stop and undo itself. Asking twice is the same as once.

    An operation that is ending right now has either ended when this looks, or sees the wish before it ends.
    """
    tx.refresh(operation, with_for_update=True)
    if operation.state in FINAL or operation.state == OperationState.FAILED:
        raise _finished(operation)
    if operation.kind not in CANCELLABLE_KINDS:
        raise Refused(
            FailureCode.NOT_CANCELLABLE,
            "a deletion that has begun has nothing to go back to",
            field="operation_id",
            given=operation.id,
            allowed="wait for it to end",
        )
    operation.cancel_requested = True
    operation.summary = "cancel requested"
    publish(tx, f"operation/{operation.id}", f"cluster/{operation.cluster_id}")


def retry(tx: Session, queue: OperationQueue, operation: Operation) -> None:
    """Queue a failed operation again; what its steps have made is found and kept.

    One that failed while it was being cancelled goes on with that: the wish to cancel stays.
    """
    if operation.state != OperationState.FAILED:
        raise Refused(
            FailureCode.NOT_RETRYABLE,
            f"operation {operation.id} is {operation.state}",
            field="operation_id",
            given=operation.id,
            allowed="an operation that is FAILED",
        )
    operation.attempt += 1
    operation.failure = None
    operation.ended_at = None
    set_state(tx, operation, OperationState.QUEUED, f"waiting for its turn (attempt {operation.attempt})")
    queue.enqueue(tx, operation.id, operation.cluster_id, operation.attempt)


def abandon(tx: Session, operation: Operation, now: datetime) -> None:
    """Give a failed operation up: its cluster is FAILED, keeps what was made, and is free for other operations."""
    if operation.state != OperationState.FAILED:
        raise (
            _finished(operation)
            if operation.state in FINAL
            else Refused(
                FailureCode.NOT_RETRYABLE,
                f"operation {operation.id} is {operation.state}",
                field="operation_id",
                given=operation.id,
                allowed="an operation that is FAILED; cancel one that runs",
            )
        )
    set_state(tx, operation, OperationState.ABANDONED, "abandoned; what it made is still there")
    operation.ended_at = now
    clusters.set_state(tx, operation.cluster_id, ClusterState.FAILED, now)
    clusters.drop_guard(tx, operation.cluster_id, operation.id)


def _finished(operation: Operation) -> Refused:
    return Refused(
        FailureCode.OPERATION_FINISHED,
        f"operation {operation.id} is already {operation.state}",
        field="operation_id",
        given=operation.id,
        allowed="an operation that is queued or running",
    )


def failure_to_json(failure: FailureDetails) -> dict[str, Any]:
    """Plain values with the field names of FailureDetails."""
    return dataclasses.asdict(failure)


def failure_from_json(value: dict[str, Any]) -> FailureDetails:
    """The failure again."""
    return FailureDetails(**{**value, "code": FailureCode(value["code"])})
