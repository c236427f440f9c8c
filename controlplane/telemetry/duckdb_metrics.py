"""The embedded metric store: samples and their roll-ups in a DuckDB file.

One write per tick holds the frames of all nodes. A frame of a node (and object) that is newer than what is known of it is
stored at once; any other is looked for first, so that what an agent sends again after a lost answer counts once, also
after a restart. A full disk costs the oldest day, not the newest samples.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import duckdb
import numpy as np
import structlog

from controlplane.telemetry import duckdb_rollup as rollup
from controlplane.telemetry.duckdb_file import LOG_BYTES, DiskFull, DuckDBFile
from controlplane.telemetry.duckdb_series import read_quantiles, read_series
from controlplane.telemetry.duckdb_tables import (
    HOUR_MILLIS,
    NODE,
    OBJECT,
    OPEN,
    Catalog,
    quoted,
    read_catalog,
    table_at,
)
from controlplane.telemetry.grid import SAMPLES
from controlplane.telemetry.port import Frame, MetricQuery, Series, StoreUnavailable

# Below this the oldest goes before the disk is full: the log, a checkpoint, and an hour to notice.
LEAST_FREE_BYTES = 8 * LOG_BYTES
# A store that takes less drops nothing ahead: others fill the disk, and without it nobody sees how things went.
LEAST_BYTES = 64 * 2**20
_TOO_OLD = "older than samples are kept"
_ATTEMPTS = 4
_FULL = "the disk is full"
_READS = 3
_KEPT_MILLIS = (SAMPLES.kept or SAMPLES.step) // timedelta(milliseconds=1)
# Agents send in order, so what is older than this is looked for even if nothing newer is known.
_REMEMBERED_MILLIS = 3 * HOUR_MILLIS
T = TypeVar("T")
Change = Callable[[duckdb.DuckDBPyConnection, Catalog], T]
Key = tuple[str, str]
Frames = dict[tuple[str, str, int], Frame]
log = structlog.get_logger(__name__)


class DuckDBMetricStore:
    """MetricStore in a DuckDB file, which it owns."""

    def __init__(
        self, file: DuckDBFile, *, least_free_bytes: int = LEAST_FREE_BYTES, least_bytes: int = LEAST_BYTES
    ) -> None:
        self._file = file
        self._least_free_bytes = least_free_bytes
        self._least_bytes = least_bytes
        # To be free within the file after a full disk: if it grew on, it would grow into the reserve.
        self._enough = file.reserve_bytes + 2 * file.log_bytes
        self._catalog = Catalog()
        # False until it was read, and after a transaction whose end is not known.
        self._sure = False
        # The newest time known of each node and object; what is not newer is looked for before it is stored.
        self._newest: dict[Key, int] = {}
        # Frames that were not stored, and days that were dropped for want of room, by reason.
        self.dropped: Counter[str] = Counter()

    async def write(self, frames: Sequence[Frame]) -> None:
        """Store what is not stored yet. Makes room when the disk is full; raises StoreUnavailable when that does not help."""
        if not frames:
            return
        for _ in range(_ATTEMPTS):
            try:
                return await self._change(lambda connection, catalog: self._insert(connection, catalog, frames))
            except DiskFull as full:
                if not await self._make_room(self._enough):
                    raise StoreUnavailable(f"{full}; to drop old samples does not help") from full
        raise StoreUnavailable("the disk is full, and stays full when old samples are dropped")

    async def query(self, query: MetricQuery) -> list[Series]:
        """Series with at least one value, by node, metric, object."""
        return await self._read(lambda cursor, catalog: read_series(cursor, catalog, query))

    async def summarise(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        """The quantile of each node's samples; of averages per minute or hour beyond 12 hours or 7 days."""
        return await self._read(
            lambda cursor, catalog: read_quantiles(cursor, catalog, metric, node_ids, (start, end), quantile)
        )

    async def upkeep(self, now: datetime) -> None:
        """Roll up hours that are over, drop what is too old, and keep some of the disk free."""
        await self._change(lambda connection, catalog: self._drop_too_old(connection, catalog, now))
        for hour in rollup.hours_to_close(self._catalog, now):
            await self._close(hour)
        if await self._file.free_bytes() < self._least_free_bytes:
            await self._make_room(self._least_free_bytes, self._least_bytes)
        await self._file.keep_reserve()

    async def close(self) -> None:
        """Let go of the file; everything is written by then."""
        await self._file.close()

    async def _close(self, hour: int) -> None:
        try:
            await self._change(lambda connection, catalog: rollup.close_hour(connection, catalog, hour))
        except DiskFull:
            if not await self._make_room(self._enough):
                raise

    async def _make_room(self, wanted_bytes: int, least_bytes: int = 0) -> bool:
        """Drop the oldest until so much is free; False where that does not help, or too little is left to drop."""
        await self._file.give_up_reserve()
        while True:
            settled = await self._checkpoint()
            room = await self._file.room()
            if room.inside + room.outside >= wanted_bytes:
                await self._file.keep_reserve()
                return True
            if room.used <= least_bytes or (settled and room.outside < self._file.log_bytes // 4):
                return False  # the disk is full of other things: what is free within the file is of no use
            names = await self._change(_drop_least_missed)
            if not names:
                return False
            self.dropped[_FULL] += 1
            log.warning("the disk is full: the oldest samples are dropped", tables=names)

    async def _checkpoint(self) -> bool:
        """Turn what was dropped into room; False where there is no room for that yet."""
        try:
            await self._file.checkpoint()
            return True
        except DiskFull:
            return False
        except duckdb.TransactionException as busy:
            # What is dropped while it is read frees nothing: to go on would drop everything.
            raise StoreUnavailable(f"the disk is full, and somebody reads: {busy}") from busy

    async def _change(self, change: Change[T]) -> T:
        """One transaction on the writer's thread, with a catalogue that counts when it is committed."""
        catalog = Catalog()

        def work(connection: duckdb.DuckDBPyConnection) -> T:
            nonlocal catalog
            if self._sure:
                catalog = self._catalog.copy()
            else:
                catalog = read_catalog(connection)
                self._newest = _read_newest(connection, catalog)
            self._sure = False
            return change(connection, catalog)

        def committed() -> None:
            self._catalog, self._sure = catalog, True

        return await self._file.run(work, committed)

    async def _read(self, read: Change[T]) -> T:
        """Read with the last catalogue; again when a table went away in between, as when an hour is moved to its day."""
        if not self._sure and not self._catalog.hours:
            await self._change(lambda _connection, _catalog: None)
        for _ in range(_READS):
            catalog = self._catalog
            try:
                return await self._read_with(catalog, read)
            except (duckdb.CatalogException, duckdb.BinderException) as moved:
                await self._file.written()  # between a commit and its catalogue there is a moment
                if catalog is self._catalog:
                    raise StoreUnavailable(f"the tables are not as they should be: {moved}") from moved
        raise StoreUnavailable("the tables changed during every attempt to read them")

    async def _read_with(self, catalog: Catalog, read: Change[T]) -> T:
        return await self._file.read(lambda cursor: read(cursor, catalog))

    def _insert(self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, frames: Sequence[Frame]) -> None:
        by_table: dict[tuple[str, int], list[tuple[int, Frame]]] = {}
        for (_node, object_, at), frame in self._new(connection, catalog, frames).items():
            hour = at // HOUR_MILLIS * HOUR_MILLIS
            by_table.setdefault((OBJECT if object_ else NODE, hour), []).append((at, frame))
        for (family, hour), rows in by_table.items():
            _append(connection, catalog, family, hour, rows)
        hours = {hour: catalog.hours.get(hour, "open") for _family, hour in by_table}
        catalog.mark(connection, {hour: "open" if state == "open" else "late" for hour, state in hours.items()})

    def _new(self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, frames: Sequence[Frame]) -> Frames:
        """The frames that are not stored yet and still to be kept, by node, object and time."""
        found: Frames = {}
        suspects: Frames = {}
        oldest = max((*catalog.hours, rollup.millis(max(frame.time for frame in frames)))) - _KEPT_MILLIS
        for frame in frames:
            at = rollup.millis(frame.time)
            # Of an hour whose samples are gone, a few late ones would be rolled up in the place of all.
            if at < oldest or catalog.hours.get(at // HOUR_MILLIS * HOUR_MILLIS) == "gone":
                self.dropped[_TOO_OLD] += 1
                continue
            newest = self._newest.get((frame.node_id, frame.object))
            (found if newest is not None and at > newest else suspects).setdefault(
                (frame.node_id, frame.object, at), frame
            )
        for key in _stored(connection, catalog, suspects) if suspects else ():
            suspects.pop(key, None)
        found |= suspects
        for node_id, object_, at in found:
            self._newest[node_id, object_] = max(at, self._newest.get((node_id, object_), at))
        return found

    def _drop_too_old(self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, now: datetime) -> None:
        for table in rollup.tables_too_old(catalog, now):
            catalog.drop(connection, table)
        time = rollup.millis(now)
        catalog.forget_hours(connection, time - _KEPT_MILLIS - 2 * HOUR_MILLIS)
        self._newest = {key: at for key, at in self._newest.items() if at >= time - _REMEMBERED_MILLIS}


def _append(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, family: str, hour: int, rows: Sequence[tuple[int, Frame]]
) -> None:
    """Insert frames of one hour in one statement, from columns of numpy."""
    # Nodes measure the same things: rows of the same metrics become columns together.
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, (_at, frame) in enumerate(rows):
        alike.setdefault(tuple(frame.values), []).append(index)
    places: dict[str, int] = {}
    for metrics in alike:
        for metric in metrics:
            places.setdefault(metric, len(places))
    matrix = np.full((len(places), len(rows)), np.nan, dtype=np.float32)
    for metrics, indexes in alike.items():
        values = np.array([list(rows[index][1].values.values()) for index in indexes], dtype=np.float32)
        matrix[np.ix_([places[metric] for metric in metrics], indexes)] = values.T
    columns: dict[str, object] = {
        "node": np.array([frame.node_id for _at, frame in rows], dtype=object),
        "object": np.array([frame.object for _at, frame in rows], dtype=object),
        "millis": np.array([at for at, _frame in rows], dtype=np.int64),
    }
    columns |= {f"v{place}": matrix[place] for place in places.values()}  # NaN comes in as NULL
    table = table_at(family, OPEN, hour)
    catalog.ensure(connection, table, places)
    connection.register("incoming", columns)
    into = ", ".join(("node", "object", "millis", *(quoted(metric) for metric in places)))
    connection.execute(f"INSERT INTO {table.name} ({into}) SELECT * FROM incoming")
    connection.unregister("incoming")


def _stored(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, suspects: Mapping[tuple[str, str, int], Frame]
) -> Iterable[tuple[str, str, int]]:
    """Which of these are in the tables."""
    times = [at for _node, _object, at in suspects]
    nodes = list({node for node, _object, _at in suspects})
    for family in (NODE, OBJECT):
        for table in catalog.within(family, (OPEN, SAMPLES.name), min(times), max(times) + 1):
            yield from connection.execute(
                f"SELECT node, object, millis FROM {table.name} WHERE millis BETWEEN ? AND ? "
                f"AND node IN ({', '.join('?' * len(nodes))})",
                [min(times), max(times), *nodes],
            ).fetchall()


def _read_newest(connection: duckdb.DuckDBPyConnection, catalog: Catalog) -> dict[Key, int]:
    """The newest time of each node and object that said something in the last hours of what is stored."""
    since = max(catalog.hours, default=0) - _REMEMBERED_MILLIS
    newest: dict[Key, int] = {}
    for family in (NODE, OBJECT):
        for table in catalog.within(family, (OPEN, SAMPLES.name), since, since + 100 * HOUR_MILLIS):
            for node, object_, at in connection.execute(
                f"SELECT node, object, max(millis) FROM {table.name} WHERE millis >= {since} GROUP BY 1, 2"
            ).fetchall():
                newest[node, object_] = max(at, newest.get((node, object_), at))
    return newest


def _drop_least_missed(connection: duckdb.DuckDBPyConnection, catalog: Catalog) -> list[str]:
    """Drop the oldest period of what is missed least; returns the names of its tables."""
    worth = rollup.tables_by_worth(catalog)
    dropped = worth[0] if worth else []
    for table in dropped:
        catalog.drop(connection, table)
        if not table.rolled_up:
            catalog.mark(connection, {hour: "gone" for hour in catalog.hours if table.start <= hour < table.end})
    return [table.name for table in dropped]
