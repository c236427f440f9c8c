"""A queue that remembers and does nothing: for tests of what stands above the engine."""

from dataclasses import dataclass, field

from sqlalchemy import event
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Entry:
    """One operation that was put into the queue."""

    operation_id: str
    cluster_id: str
    attempt: int


@dataclass
class FakeQueue:
    """Implements `store.operations.OperationQueue`; like the real one it takes only what is committed."""

    entries: list[Entry] = field(default_factory=list)

    def enqueue(self, tx: Session, operation_id: str, cluster_id: str, attempt: int) -> None:
        """Remember the entry when the transaction commits."""
        entry = Entry(operation_id, cluster_id, attempt)
        event.listen(tx, "after_commit", lambda _: self.entries.append(entry), once=True)
