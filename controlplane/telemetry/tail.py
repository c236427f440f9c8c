"""Live lines for those who follow: each follower has a bounded queue of its own, so that a slow one holds up nobody.

A follower that cannot keep up misses the oldest lines and is told how many.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from controlplane.telemetry.port import LogLine

# One message to a follower: far below what gRPC takes (4 MiB), small enough that a page draws it at once.
MOST_LINES = 500
MOST_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Matching:
    """Which lines somebody wants; empty fields do not filter. Call it with a line.

    `node_ids` and `cluster_ids` None: any. `text` is sought in text and attributes, in any case.
    """

    node_ids: frozenset[str] | None = None
    cluster_ids: frozenset[str] | None = None
    text: str = ""
    component: str = ""
    severities: tuple[str, ...] = ()
    message_id: int = 0
    only_slow_queries: bool = False

    def __call__(self, line: LogLine) -> bool:
        """Whether the line is wanted."""
        return (
            (self.node_ids is None or line.node_id in self.node_ids)
            and (self.cluster_ids is None or line.cluster_id in self.cluster_ids)
            and (not self.component or line.component == self.component)
            and (not self.severities or line.severity in self.severities)
            and (not self.message_id or line.message_id == self.message_id)
            and (not self.only_slow_queries or line.slow_query is not None)
            and (not self.text or self._says(line))
        )

    def _says(self, line: LogLine) -> bool:
        wanted = self.text.lower()
        return wanted in line.text.lower() or wanted in line.attributes.lower()


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines in the order they came, and how many were left out before them."""

    lines: Sequence[LogLine]
    skipped: int


class Follower:
    """One who follows: an async iterator of batches, and a context manager that ends it."""

    def __init__(
        self, matches: Callable[[LogLine], bool], most_waiting: int, gone: Callable[["Follower"], None]
    ) -> None:
        self._matches = matches
        self._most_waiting = most_waiting
        self._gone = gone
        self._waiting: deque[LogLine] = deque()
        self._skipped = 0
        self._closed = False
        self._changed = asyncio.Event()

    def offer(self, lines: Sequence[LogLine]) -> None:
        """Queue those of the lines that match."""
        wanted = [line for line in lines if self._matches(line)]
        if not wanted:
            return
        self._waiting.extend(wanted)
        while len(self._waiting) > self._most_waiting:
            self._waiting.popleft()
            self._skipped += 1
        self._changed.set()

    def close(self) -> None:
        """End: the iterator stops at once."""
        self._closed = True
        self._waiting.clear()
        self._changed.set()
        self._gone(self)

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> Batch:
        await self._changed.wait()
        if self._closed:
            raise StopAsyncIteration
        batch = Batch(self._take(), self._skipped)
        self._skipped = 0
        if not self._waiting:
            self._changed.clear()
        return batch

    def __enter__(self) -> "Follower":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> list[LogLine]:
        lines: list[LogLine] = []
        characters = 0
        while self._waiting and len(lines) < MOST_LINES and characters < MOST_CHARACTERS:
            lines.append(self._waiting.popleft())
            characters += len(lines[-1].text) + len(lines[-1].attributes)
        return lines


class Tail:
    """Hands lines to everybody who follows. Every method is called in the event loop and never waits."""

    def __init__(self, most_waiting: int = 2_000) -> None:
        self._most_waiting = most_waiting
        self._followers: set[Follower] = set()

    @property
    def followers(self) -> int:
        """How many follow now."""
        return len(self._followers)

    def publish(self, lines: Sequence[LogLine]) -> None:
        """Offer lines that came in to all followers."""
        for follower in self._followers:
            follower.offer(lines)

    def subscribe(self, matches: Callable[[LogLine], bool]) -> Follower:
        """Follow the lines from now on for which `matches` is true: `with tail.subscribe(Matching(...)) as lines:`."""
        follower = Follower(matches, self._most_waiting, self._followers.discard)
        self._followers.add(follower)
        return follower

    def close(self) -> None:
        """End all followers: their iterators stop."""
        for follower in list(self._followers):
            follower.close()
