"""Why an order was not carried out: a code first, then what a person needs to put it right."""

from enum import StrEnum

GIVEN_LIMIT = 80


class FailureCode(StrEnum):
    """The agent's share of wap.type.v1.FailureCode; a test holds the two together."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
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
    INTERNAL = "INTERNAL"


class NodeFailure(Exception):
    """An order that was refused or failed. `given` is never a secret; `retryable`: the same order may succeed later."""

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
        self.code, self.message, self.field, self.allowed, self.retryable = code, message, field, allowed, retryable
        self.given = printable(str(given))[:GIVEN_LIMIT]


def refused(field: str, given: object, allowed: str) -> NodeFailure:
    """INVALID_ARGUMENT for one field."""
    return NodeFailure(
        FailureCode.INVALID_ARGUMENT, f"{field} is not acceptable", field=field, given=given, allowed=allowed
    )


def printable(text: str) -> str:
    """Text that is safe in a log line, a terminal and a page: control characters become "?"."""
    return "".join(c if c.isprintable() else "?" for c in text)
