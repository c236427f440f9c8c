"""Refusals in the form that the real control plane gives them: status, reason, field, given, allowed, request id."""

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from wap.type.v1 import failure_pb2 as f
from wap.type.v1.failure_pb2 import FailureCode

STATUS: dict[FailureCode.ValueType, grpc.StatusCode] = {
    f.FAILURE_CODE_INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    f.FAILURE_CODE_NAME_NOT_CONFIRMED: grpc.StatusCode.INVALID_ARGUMENT,
    f.FAILURE_CODE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    f.FAILURE_CODE_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    f.FAILURE_CODE_IDEMPOTENCY_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    f.FAILURE_CODE_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    f.FAILURE_CODE_PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    f.FAILURE_CODE_CLUSTER_BUSY: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_CLUSTER_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_DELETION_PROTECTED: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_OPERATION_FINISHED: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_NOT_RETRYABLE: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_NOT_CANCELLABLE: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_PROJECT_NOT_EMPTY: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_TOO_MANY_ATTEMPTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    f.FAILURE_CODE_QUORUM_AT_RISK: grpc.StatusCode.FAILED_PRECONDITION,
    f.FAILURE_CODE_AGENT_SILENT: grpc.StatusCode.UNAVAILABLE,
    f.FAILURE_CODE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


class Refused(Exception):
    """A call that is answered with a refusal; `given` is cut to 80 characters as the contract says."""

    def __init__(
        self, code: FailureCode.ValueType, message: str, *, field: str = "", given: object = "", allowed: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.told = {"field": field, "given": str(given)[:80], "allowed": allowed}

    @property
    def reason(self) -> str:
        """The stable name, without the enum's prefix."""
        return FailureCode.Name(self.code).removeprefix("FAILURE_CODE_")

    def trailing_metadata(self, request_id: str) -> tuple[tuple[str, bytes], ...]:
        """The google.rpc.Status with its ErrorInfo, as gRPC carries it."""
        told = {name: value for name, value in self.told.items() if value} | {"request_id": request_id}
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="wap", metadata=told))
        status = status_pb2.Status(code=STATUS[self.code].value[0], message=self.message, details=[packed])
        return (("grpc-status-details-bin", status.SerializeToString()),)


def not_found(kind: str, given: str) -> Refused:
    """The same words whether the thing does not exist or may not be seen."""
    return Refused(
        f.FAILURE_CODE_NOT_FOUND, f"There is no such {kind}, or you may not see it.", field=kind, given=given
    )


def invalid(field: str, given: object, allowed: str) -> Refused:
    """A field with a value that is not allowed."""
    return Refused(
        f.FAILURE_CODE_INVALID_ARGUMENT,
        f"The value of {field} is not allowed.",
        field=field,
        given=given,
        allowed=allowed,
    )
