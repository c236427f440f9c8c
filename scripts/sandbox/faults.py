"""Faults that a test or a person injects into the EC2 API."""

import threading
from dataclasses import dataclass, fields
from typing import Any

KINDS = ("error", "lost_reply", "capacity", "delay", "slow")
# Where EC2 needs a free machine.
PLACING = ("RunInstances", "StartInstances")


@dataclass
class Fault:
    """What goes wrong with which call. ValueError for a kind that there is not, or a value of the wrong type.

    action: EC2 action ("RunInstances"), "*" for all. kind: "error" answers `code` with `status`; "lost_reply" carries
    the call out and then answers 500, also where EC2 refused it; "capacity" refuses to place an instance in `zone` and
    of `instance_type` (any where empty); "delay" hides what the call made from all Describe calls for `seconds`; "slow"
    answers `seconds` later. `count`: how many times, None for ever. `every`: only each n-th matching call.
    """

    action: str = "*"
    kind: str = "error"
    code: str = "RequestLimitExceeded"
    status: int = 503
    count: int | None = 1
    every: int = 1
    zone: str = ""
    instance_type: str = ""
    seconds: float = 0.0
    seen: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        for item in fields(self):
            value = getattr(self, item.name)
            wanted = (int, float) if item.type is float else item.type
            if not isinstance(value, wanted) or isinstance(value, bool):  # type: ignore[arg-type]
                raise ValueError(f"{item.name} is of the wrong type: {value!r}")
        if self.every < 1 or not 400 <= self.status < 600 or self.seconds < 0:
            raise ValueError("every must be at least 1, status from 400 to 599, seconds not negative")

    @classmethod
    def parse(cls, value: Any) -> "Fault":
        """From JSON; ValueError also for fields that there are not."""
        if not isinstance(value, dict):
            raise ValueError("a fault is an object")
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(unknown)}; known: {', '.join(known)}")
        return cls(**value)

    def hits(self, action: str, zone: str, instance_type: str) -> bool:
        """Whether this call is to be hit; counts it."""
        if self.kind == "capacity" and action not in PLACING:
            return False
        if self.kind != "capacity" and self.action not in {"*", action}:
            return False
        if (self.zone and self.zone != zone) or (self.instance_type and self.instance_type != instance_type):
            return False
        self.seen += 1
        if self.seen % self.every or self.count == 0:
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Faults:
    """The active faults."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Inject from now on."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Inject nothing any more."""
        with self._lock:
            self._faults.clear()

    def list(self) -> list[dict[str, Any]]:
        """The faults with what is left of their counts."""
        with self._lock:
            return [vars(fault).copy() for fault in self._faults]

    def hit(self, action: str, zone: str, instance_type: str) -> Fault | None:
        """The first fault that hits this call."""
        with self._lock:
            return next((fault for fault in self._faults if fault.hits(action, zone, instance_type)), None)
