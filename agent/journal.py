"""What became of each command, on disk before anybody is told.

A command's body is never stored: it may hold passwords and keyfiles. Its SHA-256 is enough to tell a repeat from an id
that is used again for something else.
"""

import asyncio
import hashlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from wap.agent.v1 import command_pb2

from agent.files import PRIVATE, make_private_directory, write_private

KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """One command: `result` is a serialized CommandResult once it is done."""

    digest: bytes
    result: bytes | None


class Journal:
    """An SQLite file with full fsync: an entry that was written is there after a power failure."""

    def __init__(self, path: Path) -> None:
        make_private_directory(path.parent)
        path.touch(mode=PRIVATE)
        self._lock = asyncio.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS command "
            "(id TEXT PRIMARY KEY, digest BLOB NOT NULL, result BLOB, time REAL NOT NULL) WITHOUT ROWID"
        )
        self._database.execute(
            "DELETE FROM command WHERE result IS NOT NULL AND time < ?", (time.time() - KEPT_SECONDS,)
        )

    async def find(self, command_id: str) -> Entry | None:
        """What is known of a command, or None."""
        rows = await self._run("SELECT digest, result FROM command WHERE id = ?", (command_id,))
        return Entry(rows[0][0], rows[0][1]) if rows else None

    async def started(self, command_id: str, digest: bytes) -> None:
        """The command is taken on. Saying so again changes nothing."""
        await self._run(
            "INSERT INTO command (id, digest, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (command_id, digest, time.time()),
        )

    async def done(self, command_id: str, result: bytes) -> None:
        """The command's final answer. Old answers go at the same time."""
        await self._run("UPDATE command SET result = ?, time = ? WHERE id = ?", (result, time.time(), command_id))
        await self._run("DELETE FROM command WHERE result IS NOT NULL AND time < ?", (time.time() - KEPT_SECONDS,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    async def _run(self, statement: str, values: tuple[object, ...]) -> list[tuple[bytes, bytes | None]]:
        async with self._lock:  # one connection, used by one thread at a time
            return await asyncio.to_thread(lambda: self._database.execute(statement, values).fetchall())


class Epoch:
    """The highest fencing number that this node has seen: an order with a lower one comes from a replaced leader."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.highest = int(path.read_text()) if path.exists() else 0

    def raise_to(self, epoch: int) -> None:
        """Remember a higher number, on disk first."""
        if epoch > self.highest:
            write_private(self._path, str(epoch))
            self.highest = epoch


def digest_of(command: command_pb2.Command) -> bytes:
    """SHA-256 of the command's body, secrets included; id, epoch and deadline do not count."""
    body = command_pb2.Command()
    body.CopyFrom(command)
    for name in ("id", "epoch", "deadline"):
        body.ClearField(name)
    return hashlib.sha256(body.SerializeToString(deterministic=True)).digest()
