"""FailureCode -> gRPC status, and how an error travels: one table, one translator.

Every error carries google.rpc.ErrorInfo with the stable reason and the metadata field, given, allowed, request_id and
retryable. What we did not foresee is INTERNAL with the request id and nothing else: never a stack trace or foreign text.
"""

from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from controlplane.domain.failure import FailureCode, FailureDetails, WapFailure
from controlplane.store.database import is_connection_loss

DOMAIN = "wap"
log = structlog.get_logger(__name__)
_S = grpc.StatusCode
_F = FailureCode

STATUS: dict[FailureCode, grpc.StatusCode] = {
    _F.INVALID_ARGUMENT: _S.INVALID_ARGUMENT,
    _F.NOT_FOUND: _S.NOT_FOUND,
    _F.ALREADY_EXISTS: _S.ALREADY_EXISTS,
    _F.UNAUTHENTICATED: _S.UNAUTHENTICATED,
    _F.PERMISSION_DENIED: _S.PERMISSION_DENIED,
    _F.CLUSTER_BUSY: _S.FAILED_PRECONDITION,
    _F.STALE_VERSION: _S.ABORTED,
    _F.IDEMPOTENCY_CONFLICT: _S.ALREADY_EXISTS,
    _F.NAME_NOT_CONFIRMED: _S.INVALID_ARGUMENT,
    _F.DELETION_PROTECTED: _S.FAILED_PRECONDITION,
    _F.OPERATION_FINISHED: _S.FAILED_PRECONDITION,
    _F.NOT_CANCELLABLE: _S.FAILED_PRECONDITION,
    _F.NOT_RETRYABLE: _S.FAILED_PRECONDITION,
    _F.QUOTA_EXCEEDED: _S.RESOURCE_EXHAUSTED,
    _F.PROJECT_NOT_EMPTY: _S.FAILED_PRECONDITION,
    _F.TOO_MANY_ATTEMPTS: _S.RESOURCE_EXHAUSTED,
    _F.MESSAGE_TOO_LARGE: _S.RESOURCE_EXHAUSTED,
    _F.CLUSTER_STATE: _S.FAILED_PRECONDITION,
    _F.JOIN_REFUSED: _S.PERMISSION_DENIED,
    _F.AGENT_BANNED: _S.PERMISSION_DENIED,
    _F.CERTIFICATE_EXPIRED: _S.UNAUTHENTICATED,
    _F.CERTIFICATE_NOT_ACTIVE: _S.PERMISSION_DENIED,
    _F.SESSION_SUPERSEDED: _S.ABORTED,
    _F.PROTOCOL_VIOLATION: _S.FAILED_PRECONDITION,
    _F.PROTOCOL_VERSION: _S.FAILED_PRECONDITION,
    _F.AGENT_SILENT: _S.UNAVAILABLE,
    _F.STALE_EPOCH: _S.ABORTED,
    _F.DEADLINE_PASSED: _S.DEADLINE_EXCEEDED,
    _F.COMMAND_ID_REUSED: _S.ALREADY_EXISTS,
    _F.UNSUPPORTED_COMMAND: _S.UNIMPLEMENTED,
    _F.OUTCOME_UNKNOWN: _S.UNKNOWN,
    _F.QUORUM_AT_RISK: _S.FAILED_PRECONDITION,
    _F.MONGOD_START_FAILED: _S.FAILED_PRECONDITION,
    _F.MONGOD_UNREACHABLE: _S.UNAVAILABLE,
    _F.MONGOD_COMMAND_FAILED: _S.FAILED_PRECONDITION,
    _F.DISK_FULL: _S.RESOURCE_EXHAUSTED,
    _F.DISTRIBUTION_INVALID: _S.FAILED_PRECONDITION,
    _F.VOLUME_UNUSABLE: _S.FAILED_PRECONDITION,
    _F.NOT_HEALTHY_IN_TIME: _S.DEADLINE_EXCEEDED,
    _F.CLOUD_CAPACITY: _S.RESOURCE_EXHAUSTED,
    _F.CLOUD_QUOTA: _S.RESOURCE_EXHAUSTED,
    _F.CLOUD_DENIED: _S.FAILED_PRECONDITION,
    _F.CLOUD_THROTTLED: _S.UNAVAILABLE,
    _F.CLOUD_UNAVAILABLE: _S.UNAVAILABLE,
    _F.CLOUD_INVALID: _S.FAILED_PRECONDITION,
    _F.CLOUD_CONFLICT: _S.ABORTED,
    _F.UNAVAILABLE: _S.UNAVAILABLE,
    _F.INTERNAL: _S.INTERNAL,
}


def details_of(error: BaseException, request_id: str) -> FailureDetails:
    """What the peer is told of any exception; what it is not told goes to the log."""
    if isinstance(error, WapFailure):
        return error.details
    if is_connection_loss(error):
        log.warning("the database is away", request_id=request_id)
        return FailureDetails(_F.UNAVAILABLE, "the control plane's database is away; try again", retryable=True)
    log.error("unexpected error", request_id=request_id, exc_info=error)
    return FailureDetails(_F.INTERNAL, f"internal error; the server's log tells more under request {request_id}")


def to_status(failure: FailureDetails, request_id: str) -> Any:
    """The gRPC status with ErrorInfo."""
    info = error_details_pb2.ErrorInfo(
        reason=failure.code,
        domain=DOMAIN,
        metadata={
            "field": failure.field,
            "given": failure.given,
            "allowed": failure.allowed,
            "request_id": request_id,
            "retryable": str(failure.retryable).lower(),
        },
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    number = getattr(code_pb2, STATUS[failure.code].name)
    return rpc_status.to_status(status_pb2.Status(code=number, message=failure.message, details=[packed]))


async def abort(context: Any, error: BaseException, request_id: str) -> NoReturn:
    """End the call with the right status; the request id also stands in the trailing metadata, as it does for answers."""
    status = to_status(details_of(error, request_id), request_id)
    await context.abort(status.code, status.details, (*status.trailing_metadata, ("x-request-id", request_id)))
    raise AssertionError("abort returns never")
