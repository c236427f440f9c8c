"""One DuckDB file: one thread writes, a few read beside it, and nothing of it happens on the event loop.

DuckDB lets one process hold a file. A write that meets a full disk invalidates the whole database until it is opened
again; that happens here, so that the next call finds it open. Since freeing space inside the file needs space on the
disk first (the drop is written, then the file), a reserve file lies beside it: it is given up when the disk is full,
and laid down again when there is room.
"""

import asyncio
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import duckdb
import structlog

from controlplane.telemetry.port import StoreUnavailable

T = TypeVar("T")
Work = Callable[[duckdb.DuckDBPyConnection], T]

READERS = 2
MEMORY_MIB = 512
# A checkpoint writes up to this much to the file before the log beside it can go.
LOG_BYTES = 16 * 2**20
_WAIT_FOR_READERS = 5.0
RESERVE_BYTES = 2 * LOG_BYTES
# The file or the machine, not the statement, is at fault; the same call may succeed later.
_UNAVAILABLE = (duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException)
log = structlog.get_logger(__name__)


class DiskFull(StoreUnavailable):
    """There is no room on the disk for what should be written. Room made in the file is of use at once."""


class Room(NamedTuple):
    """Bytes: taken by data in the file, free within it, and free on its disk."""

    used: int
    inside: int
    outside: int


class DuckDBFile:
    """A DuckDB database in a file of its own; opened by the first call."""

    def __init__(
        self,
        path: Path,
        *,
        memory_mib: int = MEMORY_MIB,
        log_bytes: int = LOG_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.path = path
        self.log_bytes = log_bytes
        self._memory_mib = memory_mib
        self.reserve_bytes = reserve_bytes
        self._log = path.with_name(path.name + ".wal")
        self._reserve = path.with_name(path.name + ".reserve")
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._reading = 0
        self._changed = threading.Condition()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="duckdb-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="duckdb-reader")

    async def run(self, work: Work[T], committed: Callable[[], None] = lambda: None) -> T:
        """Call `work(connection)` on the writer's thread, one after the other, and return what it returns.

        What it writes is one transaction: all of it or nothing. `committed` is called on the same thread when it is
        written, also when the caller no longer waits. Raises DiskFull or StoreUnavailable when the file cannot be used now;
        whatever else `work` raises passes through.
        """
        return await self._submit(self._writer, functools.partial(self._write, work, committed))

    async def read(self, work: Work[T]) -> T:
        """Call `work(cursor)` on a reader's thread, beside the writer, on the data of the last finished write."""
        return await self._submit(self._readers, functools.partial(self._read, work))

    async def written(self) -> None:
        """Return when every write that was begun is finished, and `committed` called for it."""
        await self._submit(self._writer, lambda: None)

    async def checkpoint(self) -> None:
        """Move the log into the file: afterwards dropped tables have made room. Waits a moment for readers, and lets none in.

        Raises duckdb.TransactionException where somebody reads for longer than that, and then does nothing.
        """
        await self._submit(self._writer, self._checkpoint)

    async def free_bytes(self) -> int:
        """Bytes that can still be written: what is free on the disk and what is free within the file."""
        room = await self.room()
        return room.inside + room.outside

    async def room(self) -> "Room":
        """What is taken and what is free, as of the last checkpoint."""
        return await self._submit(self._writer, self._room)

    async def give_up_reserve(self) -> None:
        """Free the reserve, so that room can be made inside the file."""
        await self._submit(self._writer, lambda: self._reserve.unlink(missing_ok=True))

    async def keep_reserve(self) -> None:
        """Lay the reserve down again, of half of what is free where that is less."""
        await self._submit(self._writer, self._lay_reserve)

    async def close(self) -> None:
        """Finish what was begun and close the file; afterwards every call raises StoreUnavailable."""
        self._readers.shutdown(wait=False)
        await asyncio.to_thread(self._close_all)

    async def _submit(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        try:
            waiting = asyncio.get_running_loop().run_in_executor(pool, call)
        except RuntimeError as closed:
            raise StoreUnavailable(f"{self.path.name} is closed") from closed
        return await waiting

    def _write(self, work: Work[T], committed: Callable[[], None]) -> T:
        with self._told():
            connection = self._open()
            connection.begin()
            try:
                result = work(connection)
                connection.commit()
            except BaseException:
                self._roll_back(connection)
                raise
            committed()
            return result

    def _roll_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        # An invalidated database refuses this too; it is opened anew by then, and the log knows no such transaction.
        try:
            connection.rollback()
        except duckdb.Error:
            log.debug("nothing to roll back", file=self.path.name)

    def _read(self, work: Work[T]) -> T:
        with self._told(), self._cursor() as cursor:
            return work(cursor)

    def _checkpoint(self) -> None:
        with self._told():
            connection = self._open()
            with self._changed:
                self._changed.wait_for(lambda: self._reading == 0, timeout=_WAIT_FOR_READERS)
                connection.execute("CHECKPOINT")

    def _room(self) -> "Room":
        with self._told():
            sizes = self._open().execute("SELECT block_size, used_blocks, free_blocks FROM pragma_database_size()")
            block, used, free = sizes.fetchone() or (0, 0, 0)
        return Room(block * used, block * free, shutil.disk_usage(self.path.parent).free)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        # Opened under the lock: a database that is being opened again must have no cursor left on the old one.
        with self._changed:
            cursor = self._open().cursor()
            self._reading += 1
        try:
            yield cursor
        finally:
            cursor.close()
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the file or the disk did into StoreUnavailable, and leave a database that is dead."""
        try:
            yield
        except duckdb.Error as error:
            # A damaged block found while reading has no class of its own; a commit to a full disk has that of a conflict.
            full = "no space left" in str(error).lower()
            if not (full or isinstance(error, _UNAVAILABLE) or _is_damaged(error)):
                raise
            if not isinstance(error, duckdb.OutOfMemoryException):
                self._abandon()
            raise (DiskFull if full else StoreUnavailable)(f"{self.path.name}: {_first_line(error)}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self.path.name}: {error}") from error

    def _open(self) -> duckdb.DuckDBPyConnection:
        with self._changed:
            if self._connection is None:
                # DuckDB shares one database among the connections of a process: all of the old must be gone.
                self._changed.wait_for(lambda: self._reading == 0, timeout=30)
                self._connection = self._connect()
                self._lay_reserve()
            return self._connection

    def _connect(self) -> duckdb.DuckDBPyConnection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return duckdb.connect(self.path, config=self._settings())
        except duckdb.Error as error:
            if not _is_damaged(error):
                raise
            # What was measured is worth less than a control plane that starts: the file is kept for a look, and a new
            # one begun. Only one is kept, since it takes room.
            aside = self.path.with_name(self.path.name + ".damaged")
            log.error("a damaged file is set aside", file=str(self.path), to=str(aside), error=_first_line(error))
            self.path.replace(aside)
            self._log.unlink(missing_ok=True)
            return duckdb.connect(self.path, config=self._settings())

    def _settings(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "memory_limit": f"{self._memory_mib}MiB",
            "threads": 2,
            "checkpoint_threshold": f"{self.log_bytes}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_access": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": True,
            "storage_compatibility_version": "latest",
        }

    def _abandon(self) -> None:
        with self._changed:
            connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except duckdb.Error as error:
                log.debug("closing a dead database", file=self.path.name, error=_first_line(error))

    def _lay_reserve(self) -> None:
        size = min(self.reserve_bytes, shutil.disk_usage(self.path.parent).free // 2)
        if size <= 0 or (self._reserve.exists() and self._reserve.stat().st_size >= size):
            return
        with self._reserve.open("wb") as reserve:
            os.posix_fallocate(reserve.fileno(), 0, size)

    def _close_all(self) -> None:
        self._readers.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._abandon()


def _is_damaged(error: duckdb.Error) -> bool:
    # Tried by overwriting and cutting files; one held by another process or written by a newer DuckDB is whole.
    text = str(error).lower()
    return any(mark in text for mark in ("not a valid duckdb", "corrupt database", "could not read enough bytes"))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
