"""Log lines in DuckDB, in a file of their own: the embedded store.

Lines stand in segments: tables of one hour, of which there are several when an hour brings much. So retention, by age
and by size alike, is DROP TABLE of the oldest segment, and a search reads the newest hours first and stops when its
page is full. Lines are mostly new, so those with a sequence above the node's highest are inserted without a look; only
the others are compared with what is stored.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import structlog

from controlplane.telemetry import log_pages, slow_queries
from controlplane.telemetry.duckdb_file import DiskFull, DuckDBFile
from controlplane.telemetry.log_pages import Position
from controlplane.telemetry.port import LogLine, LogPage, LogQuery, StoreUnavailable

# Why lines were dropped before their time, as the counters name it.
TOO_MUCH = "logs take too much disk"
FULL = "disk full"
KEEP = timedelta(days=30)
MOST_BYTES = 5 << 30
# What the logs leave free on the disk, for whatever else lives there.
FREE_BYTES = 1 << 30
# Logs that take less stay also where the disk is nearly full of other things: without them nobody sees why.
LEAST_BYTES = 64 << 20
SEGMENT_ROWS = 500_000
SEGMENT_CHARACTERS = 256 << 20
# A search that has not filled its page by then answers what it has; the next page goes on from there.
SEARCH_SECONDS = 5.0
# How much one statement of a search looks at, about; at least one hour.
_ROWS_AT_ONCE = 4 * SEGMENT_ROWS
_SEGMENTS_AT_ONCE = 24
_MICROSECOND = timedelta(microseconds=1)
# How often a write makes room on a full disk before it gives up.
_ATTEMPTS = 4
# How far back from the newest line a node's highest sequence is looked for: far more than an agent buffers.
_HOURS_OF_MARKS = 48

_COLUMNS = (
    "time TIMESTAMP, node_id VARCHAR, sequence UBIGINT, cluster_id VARCHAR, component VARCHAR, severity VARCHAR, "
    "message_id UINTEGER, text VARCHAR, context VARCHAR, attributes VARCHAR, slow VARCHAR"
)

log = structlog.get_logger(__name__)


class DuckDBLogStore:
    """A LogStore. `keep` bounds the age of lines, `most_bytes` what they take on disk; `free_bytes` stays free there."""

    def __init__(
        self,
        file: DuckDBFile,
        *,
        keep: timedelta = KEEP,
        most_bytes: int = MOST_BYTES,
        free_bytes: int = FREE_BYTES,
        least_bytes: int = LEAST_BYTES,
        segment_rows: int = SEGMENT_ROWS,
        search_seconds: float = SEARCH_SECONDS,
    ) -> None:
        self._file = file
        self._keep, self._most_bytes = keep, most_bytes
        self._free_bytes, self._least_bytes = free_bytes, least_bytes
        self._search_seconds = search_seconds
        self._segments = _Segments(segment_rows)
        self._lost: Counter[str] = Counter()

    @property
    def lost(self) -> Mapping[str, int]:
        """About how many lines were dropped before their time, by reason."""
        return dict(self._lost)

    async def write(self, lines: Sequence[LogLine]) -> None:
        """Store what is not stored yet. Where the disk is full the oldest segment goes, and ingestion goes on."""
        if not lines:
            return
        for _ in range(_ATTEMPTS):
            try:
                return await self._file.run(lambda connection: self._segments.insert(connection, lines))
            except (DiskFull, duckdb.TransactionException) as full:
                if not _is_full(full):
                    raise StoreUnavailable(f"the logs cannot be written now: {full}") from full
                await self._make_room(full)
        raise StoreUnavailable("the disk is full, and stays full when the oldest logs are dropped")

    async def search(self, query: LogQuery) -> LogPage:
        """The newest lines that match; fewer than the limit, with more to come, when the search takes too long."""
        position = log_pages.parse(query.after)
        deadline = time.monotonic() + self._search_seconds
        return await self._file.read(lambda cursor: _search(cursor, query, position, deadline))

    async def upkeep(self, now: datetime) -> None:
        """Drop the segments that are too old, then the oldest while all take too much."""
        oldest = _hour(now - self._keep)
        await self._file.run(
            lambda connection: _drop(connection, [s for s in _list(connection) if _hour_of(s) < oldest])
        )
        # Without a checkpoint what was dropped still counts: to go on would drop everything.
        while await self._checkpoint() and await self._too_much():
            if not await self._drop_oldest(TOO_MUCH):
                break
        await self._file.keep_reserve()

    async def close(self) -> None:
        """Finish what was begun and close the file."""
        await self._file.close()

    async def _too_much(self) -> bool:
        used = await self._file.run(_used_bytes)
        if used <= self._least_bytes:
            return used > self._most_bytes
        return used > self._most_bytes or await self._file.free_bytes() < self._free_bytes

    async def _make_room(self, full: Exception) -> None:
        await self._file.give_up_reserve()
        try:
            if not await self._drop_oldest(FULL):
                raise StoreUnavailable(f"{full}; no logs are left to drop") from full
            await self._checkpoint()
        except DiskFull as still_full:
            # Dropping needs room itself. What was dropped is gone, or goes when the next attempt drops again.
            log.debug("no room made yet", reason=str(still_full))
        else:
            await self._file.keep_reserve()

    async def _checkpoint(self) -> bool:
        """Turn what was dropped into room; False where somebody still reads it: the next upkeep tries again."""
        try:
            await self._file.checkpoint()
        except duckdb.TransactionException as busy:
            log.debug("no checkpoint now", reason=str(busy))
            return False
        return True

    async def _drop_oldest(self, reason: str) -> bool:
        """Drop the oldest segment; False when there is none."""

        def drop(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
            oldest = connection.execute(_TABLES).fetchall()[:1]
            _drop(connection, [name for name, _ in oldest])
            return oldest

        for name, rows in (dropped := await self._file.run(drop)):
            self._lost[reason] += rows
            log.warning("oldest logs dropped", segment=name, lines=rows, reason=reason)
        return bool(dropped)


class _Segments:
    """Where new lines go. Lives on the writer's thread."""

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        # By hour: the segment that is being filled, its rows and characters. A new process begins new segments.
        self._open: dict[str, tuple[str, int, int]] = {}
        # The highest sequence of each node; None before the first write.
        self._marks: dict[str, int] | None = None

    def insert(self, connection: duckdb.DuckDBPyConnection, lines: Sequence[LogLine]) -> None:
        """Insert the lines that are not stored."""
        existing = _list(connection)
        if self._marks is None:
            self._marks = _marks(connection, existing)
        new = self._new(connection, existing, lines)
        by_hour: dict[str, list[LogLine]] = defaultdict(list)
        for line in sorted(new, key=log_pages.position_of):
            by_hour[_hour(line.time)].append(line)
        for hour, of_hour in sorted(by_hour.items()):
            for start in range(0, len(of_hour), self._most_rows):
                self._append(connection, existing, hour, of_hour[start : start + self._most_rows])
        # Raised before the commit: should that fail, the repeat is compared with what is stored, and found missing.
        for line in new:
            self._marks[line.node_id] = max(line.sequence, self._marks.get(line.node_id, -1))
        self._open = dict(sorted(self._open.items())[-_HOURS_OF_MARKS:])

    def _new(
        self, connection: duckdb.DuckDBPyConnection, existing: Sequence[str], lines: Sequence[LogLine]
    ) -> list[LogLine]:
        marks = self._marks or {}
        once: dict[Position, LogLine] = {}
        for line in lines:
            once.setdefault(log_pages.position_of(line), line)
        doubtful = [line for line in once.values() if line.sequence <= marks.get(line.node_id, -1)]
        for stored in _stored(connection, existing, doubtful):
            once.pop(Position(*stored), None)
        return list(once.values())

    def _append(
        self, connection: duckdb.DuckDBPyConnection, existing: list[str], hour: str, lines: Sequence[LogLine]
    ) -> None:
        name, rows, characters = self._open.get(hour, ("", 0, 0))
        # One that retention has dropped meanwhile, or whose making was rolled back, is not there any more.
        if name not in existing or rows + len(lines) > self._most_rows or characters > SEGMENT_CHARACTERS:
            name, rows, characters = _begin(connection, existing, hour), 0, 0
        with connection.appender(name) as appender:
            for line in lines:
                appender.append_row(*_row(line))
        characters += sum(len(line.text) + len(line.attributes) for line in lines)
        self._open[hour] = (name, rows + len(lines), characters)


def _begin(connection: duckdb.DuckDBPyConnection, existing: list[str], hour: str) -> str:
    """Make the next segment of an hour."""
    numbers = [int(segment.rsplit("_", 1)[1]) for segment in existing if _hour_of(segment) == hour]
    name = f"lines_{hour}_{max(numbers, default=0) + 1:06d}"
    connection.execute(f"CREATE TABLE {name} ({_COLUMNS})")
    existing.append(name)
    return name


def _is_full(error: Exception) -> bool:
    # A commit that finds no room for the log is told as a matter of transactions.
    return isinstance(error, DiskFull) or "no space left" in str(error).lower()


def _search(cursor: duckdb.DuckDBPyConnection, query: LogQuery, position: Position | None, deadline: float) -> LogPage:
    where, values = _condition(query, position)
    # The highest time that can match: a position without a line is where everything older than its time begins.
    newest = query.end - _MICROSECOND
    if position:
        newest = min(newest, position.time if position.node_id else position.time - _MICROSECOND)
    found: list[LogLine] = []
    rest: Position | None = None
    # One transaction: a segment that was listed is not dropped before it is read.
    cursor.begin()
    for segments in _newest_first(cursor, _hour(query.start), _hour(newest)):
        if len(found) > query.limit or (rest and time.monotonic() > deadline):
            return log_pages.page(found, query.limit, rest)
        union = " UNION ALL ".join(f"SELECT * FROM {segment} WHERE {where}" for segment in segments)
        order = f"ORDER BY time DESC, node_id DESC, sequence DESC LIMIT {query.limit + 1}"
        found += _lines(cursor, f"{union} {order}", values * len(segments))
        rest = log_pages.before(_time_of(min(segments)))
    return log_pages.page(found, query.limit)


def _newest_first(cursor: duckdb.DuckDBPyConnection, first: str, last: str) -> Iterator[list[str]]:
    """Segments of these hours, in groups of whole hours: first one hour, since pages fill soon, then more at once."""
    by_hour: dict[str, list[str]] = defaultdict(list)
    rows: dict[str, int] = {}
    for name, estimate in cursor.execute(_TABLES).fetchall():
        if first <= _hour_of(name) <= last:
            by_hour[_hour_of(name)].append(name)
            rows[name] = estimate
    most, group = 1, list[str]()
    for _, segments in sorted(by_hour.items(), reverse=True):
        rows_of_both = sum(rows[name] for name in group + segments)
        if group and (rows_of_both > _ROWS_AT_ONCE or len(group) + len(segments) > most):
            yield group
            most, group = min(4 * most, _SEGMENTS_AT_ONCE), []
        group = group + segments
    if group:
        yield group


def _condition(query: LogQuery, position: Position | None) -> tuple[str, list[Any]]:
    """SQL and its values for what a query asks for. Literals never stand in the SQL."""
    parts: list[tuple[str, list[Any]]] = [
        ("time >= ? AND time < ?", [_naive(query.start), _naive(query.end)]),
        ("node_id IN (SELECT unnest(?::VARCHAR[]))", [list(query.node_ids)]),
    ]
    if position:
        parts.append(("(time, node_id, sequence) < (?, ?, ?)", [_naive(position.time), *position[1:]]))
        parts.append(("time <= ?", [_naive(position.time)]))
    if query.component:
        parts.append(("component = ?", [query.component]))
    if query.severities:
        parts.append(("severity IN (SELECT unnest(?::VARCHAR[]))", [list(query.severities)]))
    if query.message_id:
        parts.append(("message_id = ?", [query.message_id]))
    if query.only_slow_queries:
        parts.append(("slow IS NOT NULL", []))
    if query.text:
        parts.append(("(contains(lower(text), lower(?)) OR contains(lower(attributes), lower(?)))", [query.text] * 2))
    return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


_TABLES = "SELECT table_name, estimated_size FROM duckdb_tables() WHERE starts_with(table_name, 'lines_') ORDER BY 1"


def _list(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """All segments, the oldest first."""
    return [name for name, _ in connection.execute(_TABLES).fetchall()]


def _drop(connection: duckdb.DuckDBPyConnection, segments: Sequence[str]) -> None:
    for segment in segments:
        connection.execute(f"DROP TABLE {segment}")


def _marks(connection: duckdb.DuckDBPyConnection, segments: Sequence[str]) -> dict[str, int]:
    hours = sorted({_hour_of(segment) for segment in segments})[-_HOURS_OF_MARKS:]
    recent = [segment for segment in segments if _hour_of(segment) in hours]
    if not recent:
        return {}
    union = " UNION ALL ".join(f"SELECT node_id, sequence FROM {segment}" for segment in recent)
    return dict(connection.execute(f"SELECT node_id, max(sequence) FROM ({union}) GROUP BY node_id").fetchall())


def _stored(
    connection: duckdb.DuckDBPyConnection, segments: Sequence[str], lines: Sequence[LogLine]
) -> list[tuple[int, str, int]]:
    """Where the stored lines stand among which those of these lines are that are stored."""
    hours = {_hour(line.time) for line in lines}
    touched = [segment for segment in segments if _hour_of(segment) in hours]
    if not touched:
        return []
    sequences, times = [line.sequence for line in lines], [_naive(line.time) for line in lines]
    where = "sequence BETWEEN ? AND ? AND time BETWEEN ? AND ? AND node_id IN (SELECT unnest(?::VARCHAR[]))"
    nodes = list({line.node_id for line in lines})
    values = [min(sequences), max(sequences), min(times), max(times), nodes] * len(touched)
    union = " UNION ALL ".join(
        f"SELECT epoch_us(time), node_id, sequence FROM {segment} WHERE {where}" for segment in touched
    )
    return connection.execute(union, values).fetchall()


def _used_bytes(connection: duckdb.DuckDBPyConnection) -> int:
    found = connection.execute("SELECT block_size * used_blocks FROM pragma_database_size()").fetchone()
    return int(found[0]) if found and _list(connection) else 0


def _row(line: LogLine) -> tuple[Any, ...]:
    slow = slow_queries.encode(line.slow_query) if line.slow_query else None
    return (
        *(_naive(line.time), line.node_id, line.sequence, line.cluster_id, line.component, line.severity),
        *(line.message_id, line.text, line.context, line.attributes, slow),
    )


def _lines(cursor: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any]) -> Iterable[LogLine]:
    for moment, node, sequence, cluster, component, severity, message_id, *rest in cursor.execute(
        sql, values
    ).fetchall():
        text, context, attributes, slow = rest
        yield LogLine(
            node_id=node,
            cluster_id=cluster,
            sequence=sequence,
            time=moment.replace(tzinfo=UTC),
            component=component,
            severity=severity,
            message_id=message_id,
            text=text,
            context=context,
            attributes=attributes,
            slow_query=slow_queries.decode(slow) if slow else None,
        )


def _naive(moment: datetime) -> datetime:
    """As a TIMESTAMP column holds it: UTC without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _hour(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%d%H")


def _hour_of(segment: str) -> str:
    return segment.split("_")[1]


def _time_of(segment: str) -> datetime:
    return datetime.strptime(_hour_of(segment), "%Y%m%d%H").replace(tzinfo=UTC)
