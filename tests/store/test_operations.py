"""Operations: opened with their steps or not at all, one per cluster, moved by the table, listed newest first."""

import itertools
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy.orm import Session

from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, FailureDetails, Refused
from controlplane.domain.operation import OPERATION_TRANSITIONS, OperationKind, OperationState, StepState
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.store import clusters, operations
from controlplane.store.database import Database
from controlplane.store.fake_queue import Entry, FakeQueue
from controlplane.store.tables import Cluster, Operation, OperationStep
from tests.store.rows import NOW, PLAN, SPEC, add_cluster, all_at_once, open_one


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
async def cluster(database: Database) -> Cluster:
    return await database.write(add_cluster())


async def put(database: Database, operation: Operation, state: OperationState) -> None:
    """Place the operation in a state, past the table."""

    def work(tx: Session) -> None:
        tx.get_one(Operation, operation.id).state = state

    await database.write(work)


async def test_it_is_stored_with_its_steps_guarded_and_queued(
    database: Database, queue: FakeQueue, cluster: Cluster
) -> None:
    operation = await database.write(open_one(cluster, queue))
    assert queue.entries == [Entry(operation.id, cluster.id, 1)]
    steps = await database.read(lambda tx: operations.steps_of(tx, operation.id))
    assert [(step.name, step.stage, step.state) for step in steps] == [
        (step.name, stage, "PENDING") for stage, _, step in PLAN.steps()
    ]
    assert all(step.reason for step in steps)
    holder = await database.read(lambda tx: tx.get_one(Cluster, cluster.id).active_operation_id)
    assert holder == operation.id


async def test_a_busy_cluster_names_who_holds_it(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    first = await database.write(open_one(cluster, queue))
    with pytest.raises(Refused) as refusal:
        await database.write(open_one(cluster, queue, kind=OperationKind.DELETE_CLUSTER))
    assert refusal.value.code is FailureCode.CLUSTER_BUSY
    assert first.id in str(refusal.value)
    assert len(queue.entries) == 1
    assert len(await newest(database)) == 1


async def test_of_ten_at_once_one_is_opened(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    outcomes = await all_at_once(database, [open_one(cluster, queue) for _ in range(10)])
    opened = [one for one in outcomes if isinstance(one, Operation)]
    assert [entry.operation_id for entry in queue.entries] == [one.id for one in opened]
    assert len(opened) == 1


async def test_what_is_rolled_back_was_never_queued(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    def work(tx: Session) -> None:
        open_one(cluster, queue)(tx)
        raise Refused(FailureCode.INTERNAL, "the transaction fails after all")

    with pytest.raises(Refused):
        await database.write(work)
    assert queue.entries == []
    assert await newest(database) == []
    assert await database.write(lambda tx: clusters.take_guard(tx, cluster.id, "op-other"))


async def test_one_idempotency_key_is_one_operation(database: Database, queue: FakeQueue) -> None:
    """Ten equal requests at once, as the API answers them: look for the key, and only then open one."""
    made = [await database.write(add_cluster(f"c{number}")) for number in range(10)]

    def once(cluster: Cluster, tx: Session) -> str:
        known = operations.by_idempotency_key(tx, "user:admin/key")
        return (known or open_one(cluster, queue, key="user:admin/key")(tx)).id

    outcomes = await all_at_once(database, [partial(once, cluster) for cluster in made])
    assert len(set(outcomes)) == len(queue.entries) == 1


async def test_more_steps_stand_behind_the_first_and_old_ones_stay(
    database: Database, queue: FakeQueue, cluster: Cluster
) -> None:
    operation = await database.write(open_one(cluster, queue))

    def begin(tx: Session) -> None:
        tx.get_one(OperationStep, (operation.id, "vpc")).state = StepState.SUCCEEDED

    await database.write(begin)
    undo = plan_delete(SPEC, undo=True)
    for _ in range(2):
        await database.write(lambda tx: operations.add_steps(tx, operation.id, undo))
        await database.write(lambda tx: operations.add_steps(tx, operation.id, PLAN))
    steps = await database.read(lambda tx: operations.steps_of(tx, operation.id))
    assert [step.name for step in steps] == [step.name for plan in (PLAN, undo) for _, _, step in plan.steps()]
    assert [step.stage for step in steps] == sorted(step.stage for step in steps)
    assert steps[[step.name for step in steps].index("vpc")].state == StepState.SUCCEEDED
    counts = await database.read(lambda tx: operations.step_counts(tx, [operation.id, "op-unknown"]))
    assert counts == {operation.id: (1, len(list(PLAN.steps()))), "op-unknown": (0, 0)}


async def test_states_follow_the_table_and_nothing_else(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    operation = await database.write(open_one(cluster, queue))

    def move(tx: Session, state: OperationState) -> None:
        operations.set_state(tx, tx.get_one(Operation, operation.id), state, "moved")

    for before, after in itertools.product(OperationState, OperationState):
        await put(database, operation, before)
        if after in OPERATION_TRANSITIONS[before] | {before}:
            await database.write(partial(move, state=after))
        else:
            with pytest.raises(Refused, match="cannot become"):
                await database.write(partial(move, state=after))


async def test_cancel_is_for_what_is_queued_or_runs(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    operation = await database.write(open_one(cluster, queue))

    def cancel(tx: Session) -> bool:
        row = tx.get_one(Operation, operation.id)
        operations.request_cancel(tx, row)
        return row.cancel_requested

    for state in OperationState:
        await put(database, operation, state)
        if state in {OperationState.QUEUED, OperationState.RUNNING, OperationState.CANCELLING}:
            assert await database.write(cancel)
            assert await database.write(cancel)  # twice is once
        else:
            with pytest.raises(Refused) as refusal:
                await database.write(cancel)
            assert refusal.value.code is FailureCode.OPERATION_FINISHED


async def test_a_deletion_cannot_be_cancelled(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    operation = await database.write(open_one(cluster, queue, kind=OperationKind.DELETE_CLUSTER))
    with pytest.raises(Refused) as refusal:
        await database.write(lambda tx: operations.request_cancel(tx, tx.get_one(Operation, operation.id)))
    assert refusal.value.code is FailureCode.NOT_CANCELLABLE


async def test_retry_and_abandon_are_for_what_has_failed(
    database: Database, queue: FakeQueue, cluster: Cluster
) -> None:
    operation = await database.write(open_one(cluster, queue))

    def retry(tx: Session) -> None:
        operations.retry(tx, queue, tx.get_one(Operation, operation.id))

    def abandon(tx: Session) -> None:
        operations.abandon(tx, tx.get_one(Operation, operation.id), NOW)

    for state, work in itertools.product(set(OperationState) - {OperationState.FAILED}, (retry, abandon)):
        await put(database, operation, state)
        with pytest.raises(Refused) as refusal:
            await database.write(work)
        assert refusal.value.code in {FailureCode.NOT_RETRYABLE, FailureCode.OPERATION_FINISHED}
    assert [entry.attempt for entry in queue.entries] == [1]


async def failed(database: Database, queue: FakeQueue, cluster: Cluster) -> Operation:
    operation = await database.write(open_one(cluster, queue))
    failure = FailureDetails(FailureCode.CLOUD_CAPACITY, "no capacity", retryable=True)

    def fail(tx: Session) -> None:
        row = tx.get_one(Operation, operation.id)
        operations.set_state(tx, row, OperationState.FAILED, "failed")
        row.failure, row.ended_at, row.cancel_requested = operations.failure_to_json(failure), NOW, True

    await database.write(fail)
    row = await database.read(lambda tx: tx.get_one(Operation, operation.id))
    assert row.failure is not None
    assert operations.failure_from_json(row.failure) == failure
    return row


async def test_a_failed_operation_holds_its_cluster_until_it_is_abandoned(
    database: Database, queue: FakeQueue, cluster: Cluster
) -> None:
    operation = await failed(database, queue, cluster)
    with pytest.raises(Refused) as refusal:
        await database.write(open_one(cluster, queue, kind=OperationKind.DELETE_CLUSTER))
    assert refusal.value.code is FailureCode.CLUSTER_BUSY
    await database.write(lambda tx: operations.abandon(tx, tx.get_one(Operation, operation.id), NOW))
    state = await database.read(lambda tx: tx.get_one(Cluster, cluster.id).state)
    assert state == ClusterState.FAILED
    await database.write(open_one(cluster, queue, kind=OperationKind.DELETE_CLUSTER))


async def test_a_retry_is_queued_as_the_next_attempt(database: Database, queue: FakeQueue, cluster: Cluster) -> None:
    operation = await failed(database, queue, cluster)
    await database.write(lambda tx: operations.retry(tx, queue, tx.get_one(Operation, operation.id)))
    row = await database.read(lambda tx: tx.get_one(Operation, operation.id))
    assert (row.state, row.attempt, row.failure, row.ended_at) == ("QUEUED", 2, None, None)
    assert row.cancel_requested  # what failed while it was being undone goes on being undone
    assert queue.entries == [Entry(operation.id, cluster.id, 1), Entry(operation.id, cluster.id, 2)]


async def newest(database: Database, **filters: object) -> list[Operation]:
    wish = {"project_ids": None, "cluster_id": "", "before": None, "limit": 100} | filters
    return list(await database.read(partial(operations.list_page, **wish)))  # type: ignore[arg-type]


async def test_pages_are_newest_first_and_hold_each_once_even_at_equal_times(
    database: Database, queue: FakeQueue
) -> None:
    made = []
    for number in range(7):
        cluster = await database.write(add_cluster(f"c{number}", f"pr-{number % 2}"))
        plan = plan_create(f"c{number}", SPEC)
        moment = NOW + timedelta(seconds=number // 3)  # three of each second
        made.append(await database.write(open_one(cluster, queue, plan=plan, now=moment)))
    seen: list[Operation] = []
    while page := await newest(database, before=(seen[-1].created_at, seen[-1].id) if seen else None, limit=2):
        seen += page
    assert [one.id for one in seen] == [
        one.id for one in sorted(made, key=lambda one: (one.created_at, one.id), reverse=True)
    ]
    assert {one.id for one in await newest(database, project_ids={"pr-1"})} == {one.id for one in made[1::2]}
    assert [one.id for one in await newest(database, cluster_id=made[4].cluster_id)] == [made[4].id]
    assert await newest(database, project_ids=set()) == []
