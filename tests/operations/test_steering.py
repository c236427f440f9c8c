"""What people can do with an operation: watch, cancel, retry and abandon it."""

from collections import Counter

import pytest
from sqlalchemy.orm import Session

from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, Refused
from controlplane.domain.operation import OperationState, StepState
from controlplane.fleet.fake import Fault as AgentFault
from controlplane.store import operations
from controlplane.store.tables import AuditEvent
from scripts.sandbox import Fault, Sandbox
from tests.operations.conftest import Start
from tests.operations.crashing import Crashing
from tests.operations.holding import AGENT, HoldingFleet
from tests.operations.world import WHOLE, World
from tests.waiting import eventually

MONGOD_FAILS = AgentFault("start_mongod", FailureCode.MONGOD_START_FAILED)


async def waits_for(world: World, operation_id: str, text: str) -> None:
    """Return when some step says that it waits for this."""

    async def look() -> bool:
        return any(text in row.waiting_for for row in (await world.steps(operation_id)).values())

    await eventually(look, within=20, every=0.02)


async def assert_cancelled(world: World, operation_id: str, within: float = 60.0) -> None:
    operation = await world.settled(operation_id, within)
    assert operation.state == OperationState.CANCELLED, operation.summary
    assert await world.present(operation.cluster_id) == Counter()
    assert await world.ledgered(operation.cluster_id) == set()
    cluster = await world.cluster(operation.cluster_id)
    assert (cluster.state, cluster.active_operation_id, cluster.network_slot) == (ClusterState.DELETED, None, None)


@pytest.mark.parametrize("held", [AGENT, "start_mongod", "await_replica_set", "configure_replica_set"])
async def test_cancelled_while_it_waits_for_agents_it_removes_what_it_made(start: Start, held: str) -> None:
    world = await start(hold=held)
    operation = await world.create()
    await waits_for(world, operation.id, "agent of" if held == AGENT else held)
    assert (await world.present(operation.cluster_id))["instance"] == 3
    await world.cancel(operation.id)
    await world.cancel(operation.id)  # twice is once
    await assert_cancelled(world, operation.id)
    steps = await world.steps(operation.id)
    assert StepState.SKIPPED in {row.state for row in steps.values()}
    assert all(row.state == StepState.SUCCEEDED for row in steps.values() if row.undo)


async def test_cancelled_before_its_first_step_it_makes_nothing(world: World, sandbox: Sandbox) -> None:
    operation = await world.create()
    await world.cancel(operation.id)
    await assert_cancelled(world, operation.id)


async def test_cancelled_while_aws_is_asked_it_takes_the_answer_and_removes_it(world: World, sandbox: Sandbox) -> None:
    """A request that is dropped half way could have its effect after the undo has looked."""
    sandbox.faults.add(Fault("RunInstances", "slow", seconds=1.0, count=3))
    operation = await world.create()
    await eventually(lambda: asked(sandbox, "RunInstances") == 3, within=20, every=0.02)
    await world.cancel(operation.id)
    await assert_cancelled(world, operation.id)
    assert asked(sandbox, "RunInstances") == 3
    assert asked(sandbox, "TerminateInstances") == 3


def asked(sandbox: Sandbox, action: str) -> int:
    """How often AWS was asked for this."""
    return sum(call["action"] == action for call in sandbox.calls)


async def test_cancelled_while_it_waits_to_try_again_it_does_not_try_again(start: Start) -> None:
    world = await start()
    world.fleet.fail(AgentFault("start_mongod", FailureCode.MONGOD_UNREACHABLE, times=10_000, retryable=True))
    operation = await world.create()
    await waits_for(world, operation.id, "another try after: injected: start_mongod failed")
    await world.cancel(operation.id)
    await assert_cancelled(world, operation.id)


async def test_a_cancel_that_comes_just_before_the_end_is_kept(start: Start) -> None:
    crashing = Crashing()
    world = await start(crashing=crashing)
    crashing.target = "after:settle:rs0"
    operation = await world.create()
    await crashing.crashed()
    await world.database.write(lambda tx: settled_row(tx, operation.id))
    await world.cancel(operation.id)
    await crashing.start_again()
    await assert_cancelled(world, operation.id)


def settled_row(tx: Session, operation_id: str) -> None:
    """The last step is done: only the end itself is still to come."""
    row = next(row for row in operations.steps_of(tx, operation_id) if row.name == "settle:rs0")
    row.state = StepState.SUCCEEDED


async def test_a_cancel_whose_undo_fails_is_gone_on_with_by_a_retry(start: Start, sandbox: Sandbox) -> None:
    world = await start(hold="start_mongod")
    sandbox.faults.add(Fault("DeleteVpc", code="UnauthorizedOperation", status=403, count=None))
    operation = await world.create()
    await waits_for(world, operation.id, "start_mongod")
    await world.cancel(operation.id)
    failed = await world.settled(operation.id)
    assert failed.state == OperationState.FAILED
    assert "ec2:DeleteVpc" in failed.summary
    assert "could not be removed" in failed.summary
    sandbox.faults.clear()
    await world.retry(operation.id)
    await assert_cancelled(world, operation.id)


async def test_a_failure_that_is_not_the_clouds_keeps_everything_and_the_cluster(start: Start) -> None:
    world = await start()
    world.fleet.fail(MONGOD_FAILS)
    operation = await world.create()
    failed = await world.settled(operation.id)
    assert failed.state == OperationState.FAILED
    assert failed.failure is not None
    assert failed.failure["code"] == "MONGOD_START_FAILED"
    assert failed.summary == "injected: start_mongod failed (what it made is still there)"
    assert failed.ended_at is not None
    steps = await world.steps(operation.id)
    bad = [row for row in steps.values() if row.state == StepState.FAILED]
    assert [row.failure for row in bad] == [failed.failure]
    assert [row.waiting_for for row in bad] == [""]
    assert await world.present(operation.cluster_id) == WHOLE
    cluster = await world.cluster(operation.cluster_id)
    assert (cluster.state, cluster.active_operation_id) == (ClusterState.FAILED, operation.id)
    with pytest.raises(Refused, match=operation.id) as busy:
        await world.delete(operation.cluster_id)
    assert busy.value.code is FailureCode.CLUSTER_BUSY


async def test_a_retry_does_not_repeat_what_is_done(start: Start, sandbox: Sandbox) -> None:
    world = await start()
    world.fleet.fail(MONGOD_FAILS)
    operation = await world.create()
    await world.settled(operation.id)
    before = await world.steps(operation.id)
    sandbox.calls.clear()
    await world.retry(operation.id)
    assert (await world.settled(operation.id)).state == OperationState.SUCCEEDED
    assert not sandbox.calls
    after = await world.steps(operation.id)
    for name, row in before.items():
        if row.state == StepState.SUCCEEDED:
            assert (after[name].attempt, after[name].ended_at) == (row.attempt, row.ended_at), name
    assert await world.present(operation.cluster_id) == WHOLE
    assert not world.repeated_effects(operation.id)
    assert (await world.cluster(operation.cluster_id)).active_operation_id is None


async def test_an_abandoned_operation_frees_its_cluster_for_a_deletion(start: Start) -> None:
    world = await start()
    world.fleet.fail(MONGOD_FAILS)
    operation = await world.create()
    await world.settled(operation.id)
    await world.abandon(operation.id)
    assert (await world.operation(operation.id)).state == OperationState.ABANDONED
    assert (await world.cluster(operation.cluster_id)).active_operation_id is None
    assert await world.present(operation.cluster_id) == WHOLE
    delete = await world.delete(operation.cluster_id)
    assert (await world.settled(delete.id)).state == OperationState.SUCCEEDED
    assert await world.present(operation.cluster_id) == Counter()


async def test_a_deletion_cannot_be_cancelled_but_retried(start: Start, sandbox: Sandbox) -> None:
    world = await start()
    create = await world.create()
    await world.settled(create.id)
    sandbox.faults.add(Fault("DeleteVolume", code="OperationNotPermitted", status=400))
    sandbox.faults.add(Fault("TerminateInstances", "slow", seconds=0.5))
    delete = await world.delete(create.cluster_id)
    await eventually(lambda: any(call["action"] == "TerminateInstances" for call in sandbox.calls), within=20)
    with pytest.raises(Refused) as refused:
        await world.cancel(delete.id)
    assert refused.value.code is FailureCode.NOT_CANCELLABLE
    failed = await world.settled(delete.id)
    assert (failed.state, (failed.failure or {})["code"]) == (OperationState.FAILED, "CLOUD_CONFLICT")
    assert (await world.cluster(create.cluster_id)).active_operation_id == delete.id
    await world.retry(delete.id)
    assert (await world.settled(delete.id)).state == OperationState.SUCCEEDED
    assert await world.present(create.cluster_id) == Counter()
    with pytest.raises(Refused) as finished:
        await world.retry(delete.id)
    assert finished.value.code is FailureCode.NOT_RETRYABLE


async def test_while_it_runs_every_step_says_what_it_waits_for_and_why_it_is_there(start: Start) -> None:
    world = await start(hold="start_mongod")
    operation = await world.create()
    members = {f"mongod:rs0-{number}" for number in range(3)}
    await eventually(lambda: all_wait(world, operation.id, members), within=20)
    running = {name: row for name, row in (await world.steps(operation.id)).items() if row.state == StepState.RUNNING}
    assert set(running) == members
    assert all(row.started_at and row.reason for row in running.values())
    assert (await world.operation(operation.id)).summary.startswith("Start MongoDB 6.0.5 on rs0-")
    assert isinstance(world.fleet, HoldingFleet)
    world.fleet.go.set()
    assert (await world.settled(operation.id)).state == OperationState.SUCCEEDED
    assert {row.waiting_for for row in (await world.steps(operation.id)).values()} == {""}


async def all_wait(world: World, operation_id: str, names: set[str]) -> bool:
    steps = await world.steps(operation_id)
    return all("start_mongod on" in steps[name].waiting_for for name in names)


async def test_every_end_is_audited_once(world: World) -> None:
    create = await world.create()
    await world.settled(create.id)
    delete = await world.delete(create.cluster_id)
    await world.settled(delete.id)
    events = await world.database.read(
        lambda tx: [
            (e.action, e.resource, e.outcome, e.request_id) for e in tx.query(AuditEvent).order_by(AuditEvent.seq)
        ]
    )
    assert events == [("operation.succeeded", f"operation/{one.id}", "ok", "rq-1") for one in (create, delete)]


async def test_no_secret_of_the_cluster_stands_in_what_operations_write(world: World) -> None:
    create = await world.create()
    await world.settled(create.id)
    scope = f"cluster/{create.cluster_id}"
    names = ("keyfile", "admin-password", "authority-key")
    secrets = await world.database.read(lambda tx: [world.tools.vault.get(tx, scope, name) for name in names])
    node_keys = [machine.key_pem for machine in world.fleet.machines().values()]
    rows = await world.database.read(everything)
    for secret in [*(one.decode() for one in secrets if one), *node_keys]:
        assert secret.splitlines()[min(1, len(secret.splitlines()) - 1)] not in rows
    assert len([one for one in secrets if one]) == 3
    assert create.id in rows


def everything(tx: Session) -> str:
    """All rows but the vault's, the engine's included."""
    connection = tx.connection()
    tables = connection.exec_driver_sql("select name from sqlite_master where type = 'table'").scalars().all()
    return "\n".join(
        repr(row) for table in tables for row in connection.exec_driver_sql(f'select * from "{table}"').all()
    )
