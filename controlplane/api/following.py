"""Lines as they come in, for one follower: those that agents report here, and with several control planes also those that
are reported to the others, which are read from the store a moment later.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import structlog

from controlplane.api.monitoring import Monitoring
from controlplane.domain.clock import Clock
from controlplane.store.nodes import NodeName
from controlplane.telemetry.port import LogLine, LogQuery, StoreUnavailable
from controlplane.telemetry.tail import Matching

# Clusters come and go; a look at the database so often is enough to follow them.
NODES_SECONDS = 3.0
STORE_SECONDS = 2.0
# Lines reach the store this late at most, in order to be followed from there.
STORE_LOOKS_BACK = timedelta(seconds=30)
MAX_FROM_STORE, MAX_REMEMBERED = 500, 20_000
log = structlog.get_logger(__name__)


class Following:
    """Use as an async context manager and iterate: lines with their nodes, and how many were skipped before them."""

    def __init__(
        self,
        monitoring: Monitoring,
        find: Callable[[], Awaitable[Mapping[str, NodeName]]],
        matching: Matching,
        clock: Clock,
    ) -> None:
        self._monitoring, self._find, self._matching, self._clock = monitoring, find, matching, clock
        self._nodes: Mapping[str, NodeName] = {}
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._nodes = await self._find()
        self._follower = self._monitoring.tail.subscribe(self._wants)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_nodes())]
        if not self._monitoring.alone:
            self._tasks.append(loop.create_task(self._read_store()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._follower.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aiter__(self) -> AsyncIterator[tuple[list[tuple[LogLine, NodeName]], int]]:
        async for batch in self._follower:
            nodes = self._nodes
            lines = [(line, nodes[line.node_id]) for line in batch.lines if line.node_id in nodes]
            if not self._monitoring.alone:
                lines = [(line, node) for line, node in lines if self._is_new(line)]
            if lines or batch.skipped:
                yield lines, batch.skipped

    def _wants(self, line: LogLine) -> bool:
        return line.node_id in self._nodes and self._matching(line)

    def _is_new(self, line: LogLine) -> bool:
        """Whether it was not given out before: a line may come both ways."""
        key = (line.node_id, line.sequence)
        if key in self._seen:
            return False
        self._seen[key] = None
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return True

    async def _keep_nodes(self) -> None:
        while True:
            await asyncio.sleep(NODES_SECONDS)
            try:
                self._nodes = await self._find()
            except Exception:  # the database is away: who followed goes on with the nodes there were
                log.warning("cannot look for new nodes to follow", exc_info=True)

    async def _read_store(self) -> None:
        began = self._clock.now()
        while True:
            await asyncio.sleep(STORE_SECONDS)
            if not self._nodes:
                continue
            now = self._clock.now()
            try:
                found = await self._monitoring.logs.search(self._query(max(began, now - STORE_LOOKS_BACK)))
            except StoreUnavailable:
                continue
            self._follower.offer(self._oldest_first(found.lines))

    def _query(self, start: datetime) -> LogQuery:
        wanted = self._matching
        return LogQuery(
            node_ids=list(self._nodes),
            start=start,
            end=self._clock.now() + STORE_LOOKS_BACK,
            text=wanted.text,
            component=wanted.component,
            severities=wanted.severities,
            message_id=wanted.message_id,
            limit=MAX_FROM_STORE,
        )

    def _oldest_first(self, lines: Sequence[LogLine]) -> list[LogLine]:
        return [line for line in reversed(lines) if (line.node_id, line.sequence) not in self._seen]
