"""When an operation is over, for everyone who waits for one."""

from wap.control.v1.operation_pb2 import (
    OPERATION_STATE_ABANDONED,
    OPERATION_STATE_CANCELLED,
    OPERATION_STATE_FAILED,
    OPERATION_STATE_SUCCEEDED,
    Operation,
)

FINISHED = frozenset({OPERATION_STATE_SUCCEEDED, OPERATION_STATE_CANCELLED, OPERATION_STATE_ABANDONED})
"""States that an operation never leaves."""

RESTING = FINISHED | {OPERATION_STATE_FAILED}
"""States in which nothing happens any more unless someone asks: a failed operation can be retried or abandoned."""


def is_finished(operation: Operation) -> bool:
    """True when the operation can never change again."""
    return operation.state in FINISHED


def is_resting(operation: Operation) -> bool:
    """True when waiting longer is of no use."""
    return operation.state in RESTING
