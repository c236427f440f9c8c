"""What can go wrong, as one tree of exceptions that are codes first.

    WapFailure                        code, message, field, given, allowed, retryable
    |-- Refused                       the caller's wish was not acceptable; nothing was changed
    |-- AgentFailure                  an agent refused a command, failed at it, or did not answer
    `-- CloudFailure                  AWS refused, or could not do it now

Code names equal `wap.type.v1.FailureCode` without its prefix; a test holds both lists together.
"""

from dataclasses import dataclass
from enum import StrEnum

MAX_GIVEN = 80


class FailureCode(StrEnum):
    """The stable reasons; each is what clients see as the reason of an error."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    CLUSTER_BUSY = "CLUSTER_BUSY"
    STALE_VERSION = "STALE_VERSION"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    NAME_NOT_CONFIRMED = "NAME_NOT_CONFIRMED"
    DELETION_PROTECTED = "DELETION_PROTECTED"
    OPERATION_FINISHED = "OPERATION_FINISHED"
    NOT_CANCELLABLE = "NOT_CANCELLABLE"
    NOT_RETRYABLE = "NOT_RETRYABLE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    PROJECT_NOT_EMPTY = "PROJECT_NOT_EMPTY"
    TOO_MANY_ATTEMPTS = "TOO_MANY_ATTEMPTS"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    CLUSTER_STATE = "CLUSTER_STATE"
    JOIN_REFUSED = "JOIN_REFUSED"
    AGENT_BANNED = "AGENT_BANNED"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_NOT_ACTIVE = "CERTIFICATE_NOT_ACTIVE"
    SESSION_SUPERSEDED = "SESSION_SUPERSEDED"
    PROTOCOL_VIOLATION = "PROTOCOL_VIOLATION"
    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    AGENT_SILENT = "AGENT_SILENT"
    STALE_EPOCH = "STALE_EPOCH"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    COMMAND_ID_REUSED = "COMMAND_ID_REUSED"
    UNSUPPORTED_COMMAND = "UNSUPPORTED_COMMAND"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    QUORUM_AT_RISK = "QUORUM_AT_RISK"
    MONGOD_START_FAILED = "MONGOD_START_FAILED"
    MONGOD_UNREACHABLE = "MONGOD_UNREACHABLE"
    MONGOD_COMMAND_FAILED = "MONGOD_COMMAND_FAILED"
    DISK_FULL = "DISK_FULL"
    DISTRIBUTION_INVALID = "DISTRIBUTION_INVALID"
    VOLUME_UNUSABLE = "VOLUME_UNUSABLE"
    NOT_HEALTHY_IN_TIME = "NOT_HEALTHY_IN_TIME"
    CLOUD_CAPACITY = "CLOUD_CAPACITY"
    CLOUD_QUOTA = "CLOUD_QUOTA"
    CLOUD_DENIED = "CLOUD_DENIED"
    CLOUD_THROTTLED = "CLOUD_THROTTLED"
    CLOUD_UNAVAILABLE = "CLOUD_UNAVAILABLE"
    CLOUD_INVALID = "CLOUD_INVALID"
    CLOUD_CONFLICT = "CLOUD_CONFLICT"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class FailureDetails:
    """A failure as a value: what is stored with a step and shown to people."""

    code: FailureCode
    message: str
    field: str = ""
    given: str = ""
    allowed: str = ""
    retryable: bool = False


class WapFailure(Exception):
    """Something that a person or client is told about. `details` holds all of it; str() is the sentence."""

    def __init__(
        self,
        code: FailureCode,
        message: str,
        *,
        field: str = "",
        given: object = "",
        allowed: str = "",
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.details = FailureDetails(code, message, field, str(given)[:MAX_GIVEN], allowed, retryable)

    @property
    def code(self) -> FailureCode:
        """The stable reason."""
        return self.details.code


class Refused(WapFailure):
    """The wish was not acceptable. Nothing was changed."""


class AgentFailure(WapFailure):
    """An agent refused a command, failed at it, or did not answer in time."""


class CloudFailure(WapFailure):
    """AWS refused or could not do it now. `aws_code` is EC2's own error code."""

    def __init__(self, code: FailureCode, message: str, *, aws_code: str = "", retryable: bool = False) -> None:
        super().__init__(code, message, given=aws_code, retryable=retryable)
        self.aws_code = aws_code


def invalid(field: str, given: object, allowed: str, message: str = "") -> Refused:
    """A refusal of one field: what was given and what is allowed instead."""
    sentence = message or f"{field} is not acceptable: {allowed}"
    return Refused(FailureCode.INVALID_ARGUMENT, sentence, field=field, given=given, allowed=allowed)


def not_found(kind: str, given: object) -> Refused:
    """The same answer for what does not exist and for what the caller may not see."""
    return Refused(FailureCode.NOT_FOUND, f"{kind} not found", field=f"{kind}_id", given=given)
