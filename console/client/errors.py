"""One exception for everything that the control plane refuses or that keeps a call from reaching it."""

from typing import Protocol, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "wap"

CAUSES = (
    ("wrong_version_number", "it does not speak TLS"),
    ("peer name", "its certificate is for another host name"),
    ("hostname verification", "its certificate is for another host name"),
    ("certificate", "its certificate is not signed by the given CA"),
    ("connection refused", "connection refused"),
    ("lookup error", "its host name does not resolve"),
    ("name resolution", "its host name does not resolve"),
)
"""Parts of gRPC's messages (1.85) about connections, in lower case, and what they mean."""


class FailedCall(Protocol):
    """What grpc.RpcError (as raised by a stub) and grpc.aio.AioRpcError have in common."""

    def code(self) -> grpc.StatusCode:
        """The gRPC status."""

    def details(self) -> str | None:
        """The status message."""


class WapError(Exception):
    """A call that failed: `code` (gRPC status) and `reason` (stable name, e.g. CLUSTER_BUSY) for programs,
    `message`, `field`, `given` and `allowed` for people, `request_id` for the operator's log.

    `field`, `given` and `allowed` are empty where they do not apply.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        field: str = "",
        given: str = "",
        allowed: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.field = field
        self.given = given
        self.allowed = allowed
        self.request_id = request_id

    def __str__(self) -> str:
        """`REASON: message (field: ..., given: ..., allowed: ...)`."""
        parts = [f"{name}: {value}" for name, value in self.particulars().items()]
        return f"{self.reason}: {self.message}" + (f" ({', '.join(parts)})" if parts else "")

    def particulars(self) -> dict[str, str]:
        """Those of field, given and allowed that are set."""
        every = {"field": self.field, "given": self.given, "allowed": self.allowed}
        return {name: value for name, value in every.items() if value}

    @property
    def is_unavailable(self) -> bool:
        """True when the control plane was not reached, so that a repeated read may succeed."""
        return self.code is grpc.StatusCode.UNAVAILABLE

    @property
    def is_unreachable(self) -> bool:
        """True when it is the control plane that is away, and not something behind it, such as an agent."""
        return self.is_unavailable and self.reason == grpc.StatusCode.UNAVAILABLE.name


def from_call(call: FailedCall, *, endpoint: str, request_id: str, deadline: float | None) -> WapError:
    """The WapError for a failed call; `deadline` in seconds is what the call was given."""
    code, details = call.code(), call.details() or ""
    info = _error_info(call)
    if info is None:
        return WapError(code, code.name, _own_words(code, details, endpoint, deadline), request_id=request_id)
    told = info.metadata
    return WapError(
        code=code,
        reason=info.reason,
        message=details,
        field=told.get("field", ""),
        given=told.get("given", ""),
        allowed=told.get("allowed", ""),
        request_id=told.get("request_id", "") or request_id,
    )


def _error_info(call: FailedCall) -> error_details_pb2.ErrorInfo | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(cast(grpc.Call, call))
    except ValueError:  # details that contradict the status: whoever sent them is not the control plane
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def _own_words(code: grpc.StatusCode, details: str, endpoint: str, deadline: float | None) -> str:
    """For failures that never reached the control plane, or came from something that is not one."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"The control plane at {endpoint} cannot be reached: {_cause(details)}."
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"The control plane at {endpoint} did not answer within {deadline:g} s."
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"The server at {endpoint} does not know this call: it is older than this client, or not a control plane."
        )
    return details or f"The call failed with {code.name}."


def _cause(details: str) -> str:
    """The cause in gRPC's long connection messages, in words that say what to do."""
    lowered = details.lower()
    # In this order: gRPC's text for a server without TLS also speaks of certificates.
    for sign, cause in CAUSES:
        if sign in lowered:
            return cause
    return (details.rsplit(": ", 1)[-1] or "no connection")[:200].rstrip(".")
