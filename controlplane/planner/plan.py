"""A plan: stages one after the other, each a set of steps that run side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class StepKind(StrEnum):
    """What a step does; each has exactly one handler in `operations.steps`."""

    VPC = "vpc"
    GATEWAY = "gateway"
    SUBNET = "subnet"
    SECURITY_GROUP = "security-group"
    INSTANCE = "instance"
    VOLUME = "volume"
    AGENT = "agent"
    MONGOD = "mongod"
    INITIATE = "initiate"
    MEMBERS = "members"
    HEALTHY = "healthy"
    USER = "user"
    SETTLE = "settle"
    RETIRE = "retire"
    TERMINATE = "terminate"
    DELETE_VOLUME = "delete-volume"
    DELETE_NETWORK = "delete-network"


@dataclass(frozen=True)
class Step:
    """One thing to make true. `subject` is what the kind needs to know: a zone, a slot, a replica set, a resource."""

    kind: StepKind
    subject: str
    title: str
    reason: str
    waits_for: str = ""
    risk: str = ""
    # Steps of an operation that is being undone stand beside the steps they undo.
    undo: bool = False

    @property
    def name(self) -> str:
        """Unique in a plan; stem of command ids and of crash boundaries."""
        stem = f"{self.kind}:{self.subject}" if self.subject else str(self.kind)
        return f"undo/{stem}" if self.undo else stem


@dataclass(frozen=True)
class Stage:
    """Steps that run side by side."""

    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """All stages in order. Raises ValueError if two steps share a name."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [step.name for _, _, step in self.steps()]
        if len(names) != len(set(names)):
            raise ValueError("two steps of a plan share a name")

    def steps(self) -> Iterator[tuple[int, Stage, Step]]:
        """(stage number from 0, stage, step) in order."""
        for number, stage in enumerate(self.stages):
            for step in stage.steps:
                yield number, stage, step


def boundaries(plan: Plan) -> list[str]:
    """Every place where a crash must be survived: before each step's effect, and after it but before its record."""
    return [f"{when}:{step.name}" for _, _, step in plan.steps() for when in ("before", "after")]
