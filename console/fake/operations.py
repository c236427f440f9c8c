"""OperationService of the fake."""

from collections.abc import AsyncIterator
from typing import Any

from wap.control.v1 import operation_pb2 as pb
from wap.control.v1.cluster_pb2 import CLUSTER_STATE_CREATING, CLUSTER_STATE_DELETING
from wap.control.v1.operation_pb2 import Operation
from wap.control.v1.operation_pb2_grpc import OperationServiceServicer
from wap.type.v1 import failure_pb2 as f
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.fake.engine import Engine
from console.fake.gate import actor
from console.fake.refusals import Refused
from console.fake.world import World, now

FINAL = (pb.OPERATION_STATE_SUCCEEDED, pb.OPERATION_STATE_CANCELLED, pb.OPERATION_STATE_ABANDONED)


class OperationService(OperationServiceServicer):
    """Shows and steers what the engine does."""

    def __init__(self, world: World, engine: Engine) -> None:
        self._world = world
        self._engine = engine

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        """With its steps."""
        return pb.GetOperationResponse(operation=self._world.operation_by(actor(), request.operation_id))

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Any) -> pb.ListOperationsResponse:
        """Newest first, without steps."""
        found = [
            _without_steps(operation)
            for operation in reversed(self._world.operations.values())
            if actor().sees(operation.project_id)
            and request.project_id in ("", operation.project_id)
            and request.cluster_id in ("", operation.cluster_id)
        ]
        page, following = self._world.page(found, request.page_size or 50, request.page_token)
        return pb.ListOperationsResponse(operations=page, next_page_token=following)

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, context: Any
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """Ends with the final state; a failed operation may go on, so its watch stays open."""
        last: Operation | None = None
        while True:
            operation = self._world.operation_by(actor(), request.operation_id)
            if operation == last:
                await self._world.change()
                continue
            last = Operation()
            last.CopyFrom(operation)
            yield pb.WatchOperationResponse(operation=last)
            if last.state in FINAL:
                return

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Any) -> pb.CancelOperationResponse:
        """Cooperative: the engine looks at the flag between stages."""
        operation = self._mine(request.operation_id)
        if operation.state in (*FINAL, pb.OPERATION_STATE_FAILED):
            raise Refused(
                f.FAILURE_CODE_OPERATION_FINISHED,
                "The operation is not running any more.",
                field="operation_id",
                given=_word(operation),
                allowed="queued or running",
            )
        if operation.kind == pb.OPERATION_KIND_DELETE_CLUSTER:
            raise Refused(
                f.FAILURE_CODE_NOT_CANCELLABLE, "A delete cannot be undone.", field="operation_id", given=operation.id
            )
        operation.cancel_requested = True
        operation.summary = "Cancelling"
        self._record("CancelOperation", operation)
        return pb.CancelOperationResponse(operation=operation)

    async def RetryOperation(self, request: pb.RetryOperationRequest, context: Any) -> pb.RetryOperationResponse:
        """Steps that are done stay done."""
        operation = self._failed(request.operation_id)
        for step in operation.steps:
            if step.state == pb.STEP_STATE_FAILED:
                step.state = pb.STEP_STATE_PENDING
        deleting = operation.kind == pb.OPERATION_KIND_DELETE_CLUSTER
        cluster = self._world.clusters[operation.cluster_id]
        cluster.state = CLUSTER_STATE_DELETING if deleting else CLUSTER_STATE_CREATING
        self._engine.begin(operation)
        self._record("RetryOperation", operation)
        return pb.RetryOperationResponse(operation=operation)

    async def AbandonOperation(self, request: pb.AbandonOperationRequest, context: Any) -> pb.AbandonOperationResponse:
        """Frees the cluster, which stays failed."""
        operation = self._failed(request.operation_id)
        operation.state = pb.OPERATION_STATE_ABANDONED
        operation.summary = "Given up"
        operation.end_time.CopyFrom(now())
        self._world.clusters[operation.cluster_id].active_operation_id = ""
        self._record("AbandonOperation", operation)
        return pb.AbandonOperationResponse(operation=operation)

    def _mine(self, operation_id: str) -> Operation:
        operation = self._world.operation_by(actor(), operation_id)
        actor().require(operation.project_id, ACCESS_ROLE_OPERATOR)
        return operation

    def _failed(self, operation_id: str) -> Operation:
        operation = self._mine(operation_id)
        if operation.state != pb.OPERATION_STATE_FAILED:
            raise Refused(
                f.FAILURE_CODE_NOT_RETRYABLE,
                "Only a failed operation can be retried or abandoned.",
                field="operation_id",
                given=_word(operation),
                allowed="failed",
            )
        return operation

    def _record(self, action: str, operation: Operation) -> None:
        self._world.record(actor(), action, f"operation/{operation.id}", project_id=operation.project_id)


def _word(operation: Operation) -> str:
    return pb.OperationState.Name(operation.state).removeprefix("OPERATION_STATE_").lower()


def _without_steps(operation: Operation) -> Operation:
    short = Operation()
    short.CopyFrom(operation)
    short.ClearField("steps")
    return short
