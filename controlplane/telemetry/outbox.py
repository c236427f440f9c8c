"""Between ingest and a store: takes at once, writes in batches at the store's pace, and holds what a store that is away misses.

What is put here has been acknowledged to an agent, so nothing leaves without being written or counted: a store that is
unavailable is asked again with growing pauses, and when the room is used up the oldest goes, counted by its reason.
"""

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from controlplane.telemetry.port import LogLine, StoreUnavailable

T = TypeVar("T")

# Why items were lost, as the counters name it.
FULL = "outbox full"
REFUSED = "refused by the store"
SHUT_DOWN = "not written at shutdown"

# A batch with this many items that the store refuses one by one is a fault of the store, not of the items.
_MOST_REFUSALS = 50

log = structlog.get_logger(__name__)


class Outbox(Generic[T]):
    """A bounded queue in front of one store. Every method is called in the event loop.

    `write` stores a batch: it raises StoreUnavailable to be asked again (the same items may come twice: stores are
    idempotent), anything else to say that it will never take this batch; then the items that are to blame are sought
    out and lost alone. `most_items` and `most_bytes` bound what waits; `size_of` says an item's bytes (default: none).
    Times in seconds: `every_s` is how long a batch gathers, a write longer than `patience_s` counts as unavailable,
    and pauses between attempts double from `pause_s` to `longest_pause_s`, with jitter.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[None]],
        most_items: int = 200_000,
        *,
        name: str = "outbox",
        most_bytes: int = 128 << 20,
        size_of: Callable[[T], int] | None = None,
        batch_items: int = 20_000,
        every_s: float = 1.0,
        patience_s: float = 60.0,
        pause_s: float = 0.5,
        longest_pause_s: float = 30.0,
    ) -> None:
        self._write = write
        self._name = name
        self._most_items, self._most_bytes = most_items, most_bytes
        self._size_of = size_of or _weightless
        self._batch_items = batch_items
        self._every_s, self._patience_s = every_s, patience_s
        self._pause_s, self._longest_pause_s = pause_s, longest_pause_s
        self._queue: deque[T] = deque()
        self._bytes = 0
        self._writing = 0
        self._written = 0
        self._lost: Counter[str] = Counter()
        self._last_failure = ""
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._closing = asyncio.Event()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def put(self, items: Iterable[T]) -> None:
        """Take these; never waits. The oldest that wait are lost (and counted) where there is no room."""
        if self._closed:
            self._count_lost(SHUT_DOWN, sum(1 for _ in items), "closed")
            return
        for item in items:
            self._queue.append(item)
            self._bytes += self._size_of(item)
        self._trim()
        if self._queue:
            self._idle.clear()
            self._changed.set()
        if len(self._queue) >= self._batch_items:
            self._hurry.set()

    @property
    def waiting(self) -> int:
        """How many items are not yet written."""
        return len(self._queue) + self._writing

    @property
    def room(self) -> int:
        """How many more items fit before the oldest are lost (0 as well when the bytes are used up)."""
        return 0 if self._bytes >= self._most_bytes else max(0, self._most_items - len(self._queue))

    @property
    def written(self) -> int:
        """How many items the store has taken."""
        return self._written

    @property
    def lost(self) -> Mapping[str, int]:
        """How many items were lost, by reason."""
        return dict(self._lost)

    @property
    def last_failure(self) -> str:
        """Why the last attempt to write failed or left something out; empty after one that succeeded."""
        return self._last_failure

    async def flush(self, within_s: float) -> bool:
        """Write what waits without gathering more; False when it is not all written in time."""
        self._hurry.set()
        try:
            await asyncio.wait_for(self._idle.wait(), within_s)
        except TimeoutError:
            return False
        return True

    async def close(self, within_s: float = 5.0) -> None:
        """Write what waits, for so many seconds at most; what is left then is lost and counted."""
        if self._task is None:
            return
        self._closing.set()
        if not await self.flush(within_s):
            self._count_lost(SHUT_DOWN, self.waiting, self._last_failure)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._closed = True
        self._queue.clear()
        self._bytes = self._writing = 0

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._changed.wait()
            await self._gather()
            pieces = [self._take()]
            try:
                await self._store(pieces)
                failures = self._writing = 0
            except StoreUnavailable as unavailable:
                failures += 1
                self._put_back(
                    [item for piece in reversed(pieces) for item in piece], str(unavailable) or "store unavailable"
                )
                await self._pause(failures)
            if not self._queue:
                self._changed.clear()
                self._hurry.clear()
                self._idle.set()

    async def _gather(self) -> None:
        """Let a batch grow for a tick, unless it is full or somebody waits for it."""
        if len(self._queue) >= self._batch_items or self._every_s <= 0:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._every_s)

    def _take(self) -> list[T]:
        batch = [self._queue.popleft() for _ in range(min(self._batch_items, len(self._queue)))]
        self._bytes -= sum(map(self._size_of, batch))
        self._writing = len(batch)
        return batch

    async def _store(self, pieces: list[list[T]]) -> None:
        """Write the pieces, the last first, and take them off the list; what raises leaves there what is not stored.

        Where the store refuses a piece, it is halved until the items to blame stand alone.
        """
        refusals = 0
        failure = ""
        while pieces:
            piece = pieces[-1]
            try:
                await self._write_patiently(piece)
                self._written += len(pieces.pop())
            except StoreUnavailable:
                raise
            except Exception as refusal:  # noqa: BLE001 - whatever one item breaks must not stop the rest for ever
                failure = f"{type(refusal).__name__}: {refusal}"
                pieces.pop()
                refusals += len(piece) == 1
                if len(piece) > 1 and refusals < _MOST_REFUSALS:
                    middle = len(piece) // 2
                    pieces += [piece[middle:], piece[:middle]]
                else:
                    self._count_lost(REFUSED, len(piece), failure)
        self._last_failure = failure

    async def _write_patiently(self, piece: list[T]) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._write(piece)
        except TimeoutError as slow:
            raise StoreUnavailable(f"no answer within {self._patience_s:g} s") from slow

    def _put_back(self, batch: list[T], reason: str) -> None:
        self._last_failure = reason
        log.warning("telemetry not stored, will be tried again", outbox=self._name, items=len(batch), reason=reason)
        self._queue.extendleft(reversed(batch))
        self._bytes += sum(map(self._size_of, batch))
        self._writing = 0
        self._trim()

    async def _pause(self, failures: int) -> None:
        longest = min(self._longest_pause_s, self._pause_s * 2 ** min(failures - 1, 20))
        pause_s = longest * random.uniform(0.5, 1.0)
        if self._closing.is_set():
            await asyncio.sleep(min(pause_s, self._pause_s))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), pause_s)

    def _trim(self) -> None:
        lost = 0
        while len(self._queue) > self._most_items or (self._bytes > self._most_bytes and self._queue):
            self._bytes -= self._size_of(self._queue.popleft())
            lost += 1
        if lost:
            self._count_lost(FULL, lost, self._last_failure)

    def _count_lost(self, reason: str, items: int, failure: str) -> None:
        if reason not in self._lost:
            log.error("telemetry lost", outbox=self._name, reason=reason, last_failure=failure)
        self._lost[reason] += items


def bytes_of(line: LogLine) -> int:
    """About what a log line takes in memory; `size_of` for the outbox of a log store."""
    return 400 + len(line.text) + len(line.attributes)


def _weightless(_: object) -> int:
    return 0
