"""A log store in memory that can be away: for tests, and the plainest reading of the port."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from controlplane.telemetry import log_pages
from controlplane.telemetry.log_pages import Position
from controlplane.telemetry.port import LogLine, LogPage, LogQuery, StoreUnavailable
from controlplane.telemetry.tail import Matching


class FakeLogStore:
    """Keeps lines in a dict; raises StoreUnavailable while `away`."""

    def __init__(self, keep: timedelta = timedelta(days=30), most_lines: int = 100_000) -> None:
        self.away = False
        self.lines: dict[Position, LogLine] = {}
        self._keep = keep
        self._most_lines = most_lines

    async def write(self, lines: Sequence[LogLine]) -> None:
        """Store what is not stored yet."""
        self._ask()
        for line in lines:
            self.lines.setdefault(log_pages.position_of(line), line)

    async def search(self, query: LogQuery) -> LogPage:
        """The newest lines that match."""
        self._ask()
        position = log_pages.parse(query.after)
        matches = Matching(
            node_ids=frozenset(query.node_ids),
            text=query.text,
            component=query.component,
            severities=query.severities,
            message_id=query.message_id,
            only_slow_queries=query.only_slow_queries,
        )
        found = (
            line
            for place, line in self.lines.items()
            if query.start <= line.time < query.end and matches(line) and (position is None or place < position)
        )
        return log_pages.page(found, query.limit)

    async def upkeep(self, now: datetime) -> None:
        """Drop what is too old or too much."""
        self._ask()
        kept = sorted(self.lines.items())[-self._most_lines :]
        self.lines = {place: line for place, line in kept if line.time >= now - self._keep}

    async def close(self) -> None:
        """Forget everything."""
        self.lines.clear()

    def _ask(self) -> None:
        if self.away:
            raise StoreUnavailable("the log store is away")
