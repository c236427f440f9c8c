"""OperationService: the durable work behind every change, shown and steered."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import operation_pb2 as pb
from wap.control.v1.operation_pb2_grpc import OperationServiceServicer

from controlplane.api import calls
from controlplane.api.changes import change
from controlplane.api.pages import Pages, page_size
from controlplane.api.services import Services
from controlplane.api.watching import watch
from controlplane.api.wire import operation_headline, operation_to_wire
from controlplane.domain.failure import not_found
from controlplane.domain.operation import FINAL
from controlplane.store import operations
from controlplane.store.tables import Operation

DEFAULT_PAGE = 50
_FINAL = frozenset(pb.OperationState.Value(f"OPERATION_STATE_{state}") for state in FINAL)


class Operations(OperationServiceServicer):
    """Operations."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._database, self._clock, self._queue = services.database, services.clock, services.queue

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        """With its steps."""
        found = await self._database.read(lambda tx: _whole(tx, request.operation_id))
        return pb.GetOperationResponse(operation=found)

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Any) -> pb.ListOperationsResponse:
        """Newest first, without steps."""
        call, size = calls.current(), page_size(request.page_size, DEFAULT_PAGE)
        pages = Pages(self._services.vault, self._clock.now(), call.name, request.project_id, request.cluster_id)
        cursor = pages.begin(request.page_token)
        before = (datetime.fromisoformat(cursor[0]), cursor[1]) if cursor else None
        wanted = request.project_id or call.project_id
        visible = frozenset({wanted}) if wanted else call.projects()

        def work(tx: Session) -> list[pb.Operation]:
            rows = operations.list_page(
                tx, project_ids=visible, cluster_id=request.cluster_id, before=before, limit=size + 1
            )
            counts = operations.step_counts(tx, [row.id for row in rows])
            return [operation_headline(row, counts[row.id]) for row in rows]

        found = await self._database.read(work)
        following = ""
        if len(found) > size:
            last = found[size - 1]
            following = pages.token([last.create_time.ToDatetime(UTC).isoformat(), last.id])
        return pb.ListOperationsResponse(operations=found[:size], next_page_token=following)

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, context: Any
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """Ends with the final state; a failed operation may be retried, so its watch stays open."""

        async def look() -> pb.Operation:
            return await self._database.read(lambda tx: _whole(tx, request.operation_id))

        topics = (f"operation/{request.operation_id}",)
        async with contextlib.aclosing(watch(self._database.bus, topics, look)) as states:
            async for operation in states:
                yield pb.WatchOperationResponse(operation=operation)
                if operation.state in _FINAL:
                    return

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Any) -> pb.CancelOperationResponse:
        """Cooperative: the runner sees the wish before its next stage, or while a step waits."""
        found = await self._steer(request.operation_id, operations.request_cancel)
        return pb.CancelOperationResponse(operation=found)

    async def RetryOperation(self, request: pb.RetryOperationRequest, context: Any) -> pb.RetryOperationResponse:
        """Queued again under its own id."""
        found = await self._steer(
            request.operation_id, lambda tx, operation: operations.retry(tx, self._queue, operation)
        )
        return pb.RetryOperationResponse(operation=found)

    async def AbandonOperation(self, request: pb.AbandonOperationRequest, context: Any) -> pb.AbandonOperationResponse:
        """What it made stays until the cluster is deleted."""
        now = self._clock.now()
        found = await self._steer(request.operation_id, lambda tx, operation: operations.abandon(tx, operation, now))
        return pb.AbandonOperationResponse(operation=found)

    async def _steer(self, operation_id: str, act: Callable[[Session, Operation], None]) -> pb.Operation:
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.Operation:
            operation = operations.lock(tx, operation_id)
            if operation is None:
                raise not_found("operation", operation_id)
            before = _facts(operation)
            act(tx, operation)
            call.record(tx, now, f"operation/{operation.id}", before=before, after=_facts(operation))
            tx.flush()
            return _whole(tx, operation_id)

        return await change(self._database, work)


def _facts(operation: Operation) -> dict[str, Any]:
    return {
        "cluster": operation.cluster_name,
        "state": str(operation.state),
        "attempt": operation.attempt,
        "cancel_requested": operation.cancel_requested,
    }


def _whole(tx: Session, operation_id: str) -> pb.Operation:
    found = operations.get(tx, operation_id)
    if found is None:
        raise not_found("operation", operation_id)
    return operation_to_wire(found, operations.steps_of(tx, operation_id))
