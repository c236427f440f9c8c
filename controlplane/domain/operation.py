"""Operations and their steps: states as tables, moved only by `advance`."""

from enum import StrEnum
from typing import TypeVar

from controlplane.domain.failure import FailureCode, Refused


class OperationKind(StrEnum):
    """The intent behind an operation."""

    CREATE_CLUSTER = "CREATE_CLUSTER"
    DELETE_CLUSTER = "DELETE_CLUSTER"


class OperationState(StrEnum):
    """Where an operation stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    ABANDONED = "ABANDONED"


class StepState(StrEnum):
    """Where a step stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


_O = OperationState
OPERATION_TRANSITIONS: dict[OperationState, frozenset[OperationState]] = {
    _O.QUEUED: frozenset({_O.RUNNING, _O.CANCELLING, _O.FAILED}),
    _O.RUNNING: frozenset({_O.SUCCEEDED, _O.FAILED, _O.CANCELLING}),
    _O.CANCELLING: frozenset({_O.CANCELLED, _O.FAILED}),
    # A failed operation keeps its cluster until someone retries or abandons it.
    _O.FAILED: frozenset({_O.QUEUED, _O.ABANDONED}),
    _O.SUCCEEDED: frozenset(),
    _O.CANCELLED: frozenset(),
    _O.ABANDONED: frozenset(),
}
FINAL = frozenset({_O.SUCCEEDED, _O.CANCELLED, _O.ABANDONED})
# Nothing moves by itself in these states.
SETTLED = FINAL | {_O.FAILED}

_S = StepState
STEP_TRANSITIONS: dict[StepState, frozenset[StepState]] = {
    _S.PENDING: frozenset({_S.RUNNING, _S.SKIPPED}),
    # A step runs again after a crash or a retry: RUNNING follows RUNNING and FAILED.
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.SKIPPED}),
    _S.FAILED: frozenset({_S.RUNNING, _S.SKIPPED}),
    _S.SUCCEEDED: frozenset({_S.RUNNING}),
    _S.SKIPPED: frozenset({_S.RUNNING}),
}
# Only a create can be undone: a deletion that has begun has nothing to go back to.
CANCELLABLE_KINDS = frozenset({OperationKind.CREATE_CLUSTER})

State = TypeVar("State", bound=StrEnum)


def advance(table: dict[State, frozenset[State]], current: State, new: State) -> State:
    """Return `new` if the table lets it follow `current` (or it is the same), else refuse."""
    if new != current and new not in table[current]:
        raise Refused(
            FailureCode.INTERNAL,
            f"{current} cannot become {new}",
            field="state",
            given=new,
            allowed=", ".join(sorted(table[current])) or "nothing: this state is final",
        )
    return new
