"""Carries operations out in memory: stage by stage, at a settable speed, with faults and holds that tests ask for."""

import asyncio
from itertools import groupby

from wap.control.v1 import operation_pb2 as op
from wap.control.v1.cluster_pb2 import CLUSTER_STATE_FAILED, Cluster
from wap.control.v1.operation_pb2 import Operation, Plan, Step
from wap.type.v1.failure_pb2 import FAILURE_CODE_CLOUD_CAPACITY, Failure

from console.fake.machines import Machines
from console.fake.plans import delete_plan
from console.fake.world import World, now

STEP_DONE = (op.STEP_STATE_SUCCEEDED, op.STEP_STATE_SKIPPED)

OUT_OF_CAPACITY = Failure(
    code=FAILURE_CODE_CLOUD_CAPACITY,
    message="AWS has no capacity for this instance type in any zone.",
    field="spec.replica_sets[0].size.instance_type",
    allowed="another instance type, or a later retry",
    retryable=True,
)


class Engine:
    """`step_seconds` is how long a step takes. `hold(name)` keeps a step running until `release`;
    `fail(name)` lets it fail once. Names are those of the plan, e.g. "instance:rs0-1".
    """

    def __init__(self, world: World, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self._world = world
        self._machines = Machines(world)
        self._held: set[str] = set()
        self._failing: dict[str, Failure] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def hold(self, step: str) -> None:
        """Keep this step from ending."""
        self._held.add(step)

    def release(self) -> None:
        """Let every held step end."""
        self._held.clear()
        self._world.touch()

    def fail(self, step: str, failure: Failure = OUT_OF_CAPACITY) -> None:
        """Let this step fail the next time it runs."""
        self._failing[step] = failure

    def open(self, cluster: Cluster, kind: op.OperationKind.ValueType, actor: str, plan: Plan) -> Operation:
        """Make an operation, give it the cluster and begin it."""
        operation = Operation(
            id=self._world.new_id("op"),
            project_id=cluster.project_id,
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            kind=kind,
            actor=actor,
            create_time=now(),
            steps=[Step(plan=planned, state=op.STEP_STATE_PENDING) for planned in plan.steps],
            steps_total=len(plan.steps),
        )
        self._world.operations[operation.id] = operation
        cluster.active_operation_id = operation.id
        self.begin(operation)
        return operation

    def begin(self, operation: Operation) -> None:
        """Queue the operation, for the first time or again after a failure."""
        operation.state = op.OPERATION_STATE_QUEUED
        operation.summary = "Queued"
        operation.attempt += 1
        operation.ClearField("failure")
        operation.ClearField("end_time")
        self._tasks[operation.id] = asyncio.create_task(self._run(operation))
        self._world.touch()

    async def stop(self) -> None:
        """End all work at once."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, operation: Operation) -> None:
        cluster = self._world.clusters[operation.cluster_id]
        operation.state = op.OPERATION_STATE_RUNNING
        if not operation.HasField("start_time"):
            operation.start_time.CopyFrom(now())
        ended = await self._run_stages(operation, cluster, undo=False)
        if operation.cancel_requested and not operation.HasField("failure") and not ended:
            await self._undo(operation, cluster)
        elif operation.HasField("failure"):
            self._settle(operation, op.OPERATION_STATE_FAILED, operation.failure.message)
            cluster.state = CLUSTER_STATE_FAILED
        else:
            self._settle(operation, op.OPERATION_STATE_SUCCEEDED, "Done")
            self._machines.finish(operation, cluster)
        self._world.touch()

    async def _undo(self, operation: Operation, cluster: Cluster) -> None:
        operation.state = op.OPERATION_STATE_CANCELLING
        for step in operation.steps:
            if step.state == op.STEP_STATE_PENDING:
                step.state = op.STEP_STATE_SKIPPED
        for planned in delete_plan(cluster.spec).steps:
            planned.stage += 100
            operation.steps.append(Step(plan=planned, state=op.STEP_STATE_PENDING, undo=True))
        operation.steps_total = len(operation.steps)
        await self._run_stages(operation, cluster, undo=True)
        self._settle(operation, op.OPERATION_STATE_CANCELLED, "Cancelled; everything made for it was removed")
        self._machines.remove(cluster)

    async def _run_stages(self, operation: Operation, cluster: Cluster, *, undo: bool) -> bool:
        """True when all steps are done; False when a failure or a cancel ended it before."""
        steps = [step for step in operation.steps if step.undo == undo]
        for _, stage in groupby(steps, key=lambda step: step.plan.stage):
            waiting = [step for step in stage if step.state not in STEP_DONE]
            if waiting and operation.cancel_requested and not undo:
                return False
            await asyncio.gather(*(self._run_step(operation, cluster, step) for step in waiting))
            if operation.HasField("failure"):
                return False
        return True

    async def _run_step(self, operation: Operation, cluster: Cluster, step: Step) -> None:
        step.state, step.attempt, step.waiting_for = op.STEP_STATE_RUNNING, step.attempt + 1, step.plan.waits_for
        step.ClearField("failure")
        step.start_time.CopyFrom(now())
        operation.summary = step.plan.title
        self._world.touch()
        await asyncio.sleep(self.step_seconds)
        while step.plan.name in self._held and (step.undo or not operation.cancel_requested):
            await self._world.change()
        failure = self._failing.pop(step.plan.name, None)
        step.waiting_for = ""
        step.end_time.CopyFrom(now())
        if failure is not None:
            step.state = op.STEP_STATE_FAILED
            step.failure.CopyFrom(failure)
            operation.failure.CopyFrom(failure)
        else:
            step.state, step.detail = op.STEP_STATE_SUCCEEDED, "Pretended by the fake control plane"
            self._machines.after(step.plan.name, cluster)
        operation.steps_done = sum(one.state in STEP_DONE for one in operation.steps)
        self._world.touch()

    def _settle(self, operation: Operation, state: op.OperationState.ValueType, summary: str) -> None:
        operation.state, operation.summary = state, summary
        operation.end_time.CopyFrom(now())
