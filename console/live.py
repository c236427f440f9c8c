"""Live data for pages: one stream per topic and session, however many pages look at it, and none when nobody does.

The rule this module guards: no stream outlives the pages that watch it. A stream that breaks is opened again with growing
pauses, and its watchers are told so that a page never shows old figures as if they were live.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from console.client import WapError

GAP_SECONDS = 0.4
"""Least time between two deliveries: bursts of changes are shown as their last state."""

PAUSES = (0.5, 1.0, 2.0, 5.0)
"""Seconds before a broken stream is opened again, by number of failures in a row."""

HEALING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

log = structlog.get_logger(__name__)

Source = Callable[[], AsyncIterator[Any]]


@dataclass(frozen=True)
class Watcher:
    """Somebody who looks: `show` gets every value; `trouble` an error, or None when all is well again."""

    show: Callable[[Any], None]
    trouble: Callable[[WapError | None], None]


class Feeds:
    """The feeds of one session, by topic."""

    def __init__(self) -> None:
        self._feeds: dict[Hashable, _Feed] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._feeds)

    def watch(self, topic: Hashable, source: Source, watcher: Watcher) -> Callable[[], None]:
        """Look at a topic; returns what ends it. `source` opens the stream where nobody looks at the topic yet.

        After `close` there is nothing to look at: a page that was still being built when its session ended.
        """
        if self._closed:
            return lambda: None
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = _Feed(source)
        feed.join(watcher)

        def leave() -> None:
            if feed.leave(watcher) and self._feeds.get(topic) is feed:
                del self._feeds[topic]

        return leave

    async def close(self) -> None:
        """End all streams, for good."""
        self._closed = True
        feeds = list(self._feeds.values())
        self._feeds.clear()
        for feed in feeds:
            await feed.close()


class _Feed:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._watchers: list[Watcher] = []
        self._last: list[Any] = []
        self._trouble: WapError | None = None
        self._fresh = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._deliver())]

    def join(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)
        if self._last:
            watcher.show(self._last[0])
        if self._trouble is not None:
            watcher.trouble(self._trouble)

    def leave(self, watcher: Watcher) -> bool:
        """True when nobody looks any more; the stream ends then."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)
        if self._watchers:
            return False
        for task in self._tasks:
            task.cancel()
        return True

    async def close(self) -> None:
        self._watchers.clear()
        for task in self._tasks:
            task.cancel()
        # Whoever closes may be one of these tasks: a stream that finds its session ended.
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)

    async def _read(self) -> None:
        failures = 0
        while True:
            try:
                async for value in self._source():
                    failures = 0
                    self._last = [value]
                    self._tell(None)
                    self._fresh.set()
                return  # the stream has said all there is to say
            except WapError as error:
                if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._tell(error)
                if error.code not in HEALING:
                    return
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    async def _deliver(self) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            for watcher in list(self._watchers):
                watcher.show(self._last[0])
            await asyncio.sleep(GAP_SECONDS)

    def _tell(self, trouble: WapError | None) -> None:
        if trouble is None and self._trouble is None:
            return
        self._trouble = trouble
        for watcher in list(self._watchers):
            watcher.trouble(trouble)


async def polled(read: Callable[[], Any], seconds: float) -> AsyncIterator[Any]:
    """A source for what has no watch: read again and again; a value that did not change is not sent again."""
    last: Any = None
    while True:
        value = await read()
        if value != last:
            last = value
            yield value
        await asyncio.sleep(seconds)


def end_quietly(leave: Callable[[], None]) -> None:
    """For page ends that may come after the session's end."""
    with contextlib.suppress(RuntimeError):
        leave()
