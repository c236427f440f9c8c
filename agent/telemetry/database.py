"""The file of the telemetry buffer: SQLite, used by one thread.

Numbers of rows go up by one and are never given twice. After a restart of the agent they go on from the file; after one
of the machine the newest pages may be missing, and a file that was damaged is begun anew: then they go on from the time
in microseconds, which is beyond all that were given before. What was not flushed when the machine died is lost: one
flush of the disk for each sample of each node would cost more than those few samples are worth.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agent.files import PRIVATE, make_private_directory
from agent.logs import Log

FRAME, LINE = "frame", "line"
TABLES = (FRAME, LINE)
# What a row costs beside its body, roughly.
ROW_BYTES = 24
# Rows that are dropped together.
CHUNK_ROWS = 256
# Sets of namespaces that are long gone are forgotten beyond so many.
SETS_KEPT = 5000
BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
SCHEMA = """
CREATE TABLE IF NOT EXISTS frame (sequence INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS line (sequence INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS metric_set (
  id INTEGER PRIMARY KEY AUTOINCREMENT, object TEXT NOT NULL, names TEXT NOT NULL, UNIQUE (object, names));
CREATE TABLE IF NOT EXISTS remembered (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
log = Log(__name__)


class Database:
    """The file at `path`; in memory where there can be none, so that a full disk keeps no agent from starting."""

    def __init__(self, path: Path, boot_id: str, now: Callable[[], float]) -> None:
        self._path, self._boot_id, self._now = path, boot_id, now
        self.bytes = dict.fromkeys(TABLES, 0)
        self._set_ids: dict[tuple[str, tuple[str, ...]], int] = {}
        self._connection = self._opened()

    @property
    def on_disk(self) -> bool:
        """Whether what is kept outlives the agent."""
        return self._on_disk

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing. A file that turns out to be damaged is begun anew before the error goes on."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            if _is_broken(error):
                self._connection.close()
                self._connection = self._opened()
            raise
        except BaseException:
            self._undo()
            raise

    def insert(self, table: str, bodies: Sequence[bytes]) -> None:
        """Add rows with the next numbers."""
        self._connection.executemany(f"INSERT INTO {table} (body) VALUES (?)", [(body,) for body in bodies])
        self.bytes[table] += sum(len(body) + ROW_BYTES for body in bodies)

    def oldest(self, table: str, room: int, *, after: int, at_least: int) -> tuple[list[tuple[int, bytes]], int]:
        """Rows with numbers beyond `after`, oldest first, as many as fit but so many at least; and the room left."""
        rows: list[tuple[int, bytes]] = []
        query = f"SELECT sequence, body FROM {table} WHERE sequence > ? ORDER BY sequence"
        for sequence, body in self._connection.execute(query, (after,)):
            if len(rows) >= at_least and len(body) + ROW_BYTES > room:
                break
            rows.append((sequence, body))
            room -= len(body) + ROW_BYTES
        return rows, room

    def make_room(self, table: str, most_bytes: int) -> int:
        """Drop the oldest rows until the rest fits: how many they were."""
        dropped = 0
        while (excess := self.bytes[table] - most_bytes) > 0:
            query = f"SELECT sequence, length(body) FROM {table} ORDER BY sequence LIMIT {CHUNK_ROWS}"
            last = freed = 0
            for sequence, length in self._connection.execute(query).fetchall():
                last, freed, dropped = sequence, freed + length + ROW_BYTES, dropped + 1
                if freed >= excess:
                    break
            self._connection.execute(f"DELETE FROM {table} WHERE sequence <= ?", (last,))
            self.bytes[table] -= freed
        return dropped

    def forget(self, table: str, sequence: int) -> None:
        """Delete the rows up to and including this number."""
        query = f"SELECT coalesce(sum(length(body) + {ROW_BYTES}), 0) FROM {table} WHERE sequence <= ?"
        (size,) = self._connection.execute(query, (sequence,)).fetchone()
        self._connection.execute(f"DELETE FROM {table} WHERE sequence <= ?", (sequence,))
        self.bytes[table] -= size

    def given(self, table: str) -> int:
        """The highest number that was given."""
        (number,) = self._connection.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", (table,)
        ).fetchone()
        return int(number)

    def number_anew(self, table: str, after: int) -> None:
        """Give all rows new numbers, beyond `after`."""
        rows = self._connection.execute(f"SELECT body FROM {table} ORDER BY sequence").fetchall()
        self._connection.execute(f"DELETE FROM {table}")
        self._go_on_after(table, after)
        self._connection.executemany(f"INSERT INTO {table} (body) VALUES (?)", rows)

    def set_id(self, thing: str, names: tuple[str, ...]) -> int:
        """The number of the set of these names; it stays the same, since frames that use it may wait for long."""
        key = (thing, names)
        if key not in self._set_ids:
            self._forget_old_sets()
            values = (thing, json.dumps(names))
            self._connection.execute("INSERT OR IGNORE INTO metric_set (object, names) VALUES (?, ?)", values)
            query = "SELECT id FROM metric_set WHERE object = ? AND names = ?"
            (self._set_ids[key],) = self._connection.execute(query, values).fetchone()
        return self._set_ids[key]

    def _forget_old_sets(self) -> None:
        if len(self._set_ids) < 2 * SETS_KEPT:
            return
        (last,) = self._connection.execute("SELECT max(id) FROM metric_set").fetchone()
        self._connection.execute("DELETE FROM metric_set WHERE id <= ?", (last - SETS_KEPT,))
        self._set_ids = {key: number for key, number in self._set_ids.items() if number > last - SETS_KEPT}

    def set_of(self, number: int) -> tuple[str, list[str]]:
        """(object, names) of a set."""
        found = self._connection.execute("SELECT object, names FROM metric_set WHERE id = ?", (number,)).fetchone()
        return (found[0], json.loads(found[1])) if found else ("", [])

    def remember(self, name: str, value: str) -> None:
        """Keep a value under a name."""
        self._connection.execute("INSERT OR REPLACE INTO remembered VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> str:
        """The value; empty for none."""
        try:
            found = self._connection.execute("SELECT value FROM remembered WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error:
            return ""
        return str(found[0]) if found else ""

    def _opened(self) -> sqlite3.Connection:
        self._on_disk = True
        try:
            make_private_directory(self._path.parent)
            try:
                return self._prepared(str(self._path))
            except sqlite3.DatabaseError as error:
                if not _is_broken(error):
                    raise
                log.error("the telemetry buffer is damaged and begun anew", why=str(error))
                for ending in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
                return self._prepared(str(self._path))
        except (sqlite3.Error, OSError) as error:
            log.error("the telemetry buffer cannot be on disk", why=str(error))
            self._on_disk = False
            return self._prepared(":memory:")

    def _prepared(self, name: str) -> sqlite3.Connection:
        if self._on_disk:
            self._path.touch(mode=PRIVATE)
        connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        try:
            for setting in ("journal_mode=WAL", "synchronous=NORMAL", "journal_size_limit=4194304", "cache_size=-1024"):
                connection.execute(f"PRAGMA {setting}")
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                damaged = sqlite3.DatabaseError("its pages do not fit together")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
            connection.executescript(SCHEMA)
            self._connection = connection
            connection.execute("BEGIN IMMEDIATE")
            self._go_on()
            connection.execute("COMMIT")
            self._take_stock()
        except BaseException:
            connection.close()
            raise
        return connection

    def _go_on(self) -> None:
        """Decide where the numbers go on."""
        if self.recall("boot") != self._boot_id or not self.given(FRAME):
            for table in TABLES:
                self._go_on_after(table, int(self._now() * 1e6))
            self.remember("boot", self._boot_id)

    def _go_on_after(self, table: str, sequence: int) -> None:
        number = max(self.given(table), sequence)
        self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        self._connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        with contextlib.suppress(sqlite3.Error):
            self._take_stock()

    def _take_stock(self) -> None:
        for table in TABLES:
            query = f"SELECT coalesce(sum(length(body) + {ROW_BYTES}), 0) FROM {table}"
            (self.bytes[table],) = self._connection.execute(query).fetchone()
        rows = self._connection.execute("SELECT object, names, id FROM metric_set").fetchall()
        self._set_ids = {(thing, tuple(json.loads(names))): number for thing, names, number in rows}


def _is_broken(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BROKEN
