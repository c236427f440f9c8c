"""Connections and transactions, on SQLite and PostgreSQL alike.

SQLite runs in WAL mode and every transaction begins IMMEDIATE: a transaction that starts as a reader and turns into a
writer could otherwise fail in the middle with SQLITE_BUSY, however long the busy timeout is.
"""

import asyncio
import functools
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
import stamina
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from controlplane.store.bus import Bus, take_topics

T = TypeVar("T")
WORKERS = 8
SQLITE_BUSY_MILLIS = 30_000
# A control plane that freezes inside a transaction loses it after this, and with it the locks that others wait for.
_SESSION = "-c lock_timeout=15000 -c idle_in_transaction_session_timeout=5000 -c timezone=UTC"
# Advisory locks of two numbers; those of one number (migrations, memberships) are other locks.
TURNS = 7_461


def engine_for(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://...` (psycopg 3). Raises ValueError for other databases."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, pool_size=WORKERS * 2, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    if parsed.get_backend_name() == "postgresql":
        # pre_ping: the first query after a database restart would otherwise fail on a dead pooled connection.
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=WORKERS,
            max_overflow=WORKERS * 2,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5, "options": _SESSION},
        )
    raise ValueError(f"database URL must begin with sqlite:/// or postgresql://, not {parsed.drivername}://")


def _sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MILLIS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def take_turns(tx: Session, subject: str) -> None:
    """Until the end of the transaction no other one is past this line with the same subject: for "is there one already?
    if not, add it". On SQLite no other transaction writes at all, so there is nothing to do.
    """
    if tx.get_bind().dialect.name == "postgresql":
        tx.execute(
            text("select pg_advisory_xact_lock(:space, hashtext(:subject))"), {"space": TURNS, "subject": subject}
        )


def is_connection_loss(error: BaseException) -> bool:
    """Whether the database went away (restart, failover), as opposed to refusing what was asked."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, InterfaceError):
        return True
    # A refused connection and "the database system is starting up" carry no SQLSTATE or class 57/08. SQLite has no
    # connection to lose, and calls even an error of syntax operational.
    cause = getattr(error, "orig", None)
    if not isinstance(error, OperationalError) or not isinstance(cause, psycopg.Error):
        return False
    return cause.sqlstate is None or cause.sqlstate[:2] in {"08", "57"}


class Database:
    """Runs transactions in worker threads and tells the bus what they changed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = engine_for(url)
        self.is_postgres = self.engine.dialect.name == "postgresql"
        self.bus = Bus(self.engine if self.is_postgres else None)
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="db")

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction and return its value; survives one short loss of the database."""
        return await self._retrying(work)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction that commits when it returns and rolls back when it raises.

        Not repeated when the connection is lost, since the commit may have happened; use `ensure` for work that may
        run twice.
        """
        return await self._in_thread(work)

    async def ensure(self, work: Callable[[Session], T]) -> T:
        """Like `write`, for work that may run twice: carried through a database restart of up to two minutes."""
        return await self._retrying(work)

    async def _retrying(self, work: Callable[[Session], T]) -> T:
        async for attempt in stamina.retry_context(
            on=is_connection_loss_exception, attempts=None, timeout=120.0, wait_initial=0.1, wait_max=2.0
        ):
            with attempt:
                return await self._in_thread(work)
        raise AssertionError("unreachable")

    async def _in_thread(self, work: Callable[[Session], T]) -> T:
        loop = asyncio.get_running_loop()
        value, topics = await loop.run_in_executor(self._threads, functools.partial(self._transaction, work))
        self.bus.deliver(topics)
        return value

    def _transaction(self, work: Callable[[Session], T]) -> tuple[T, list[str]]:
        with Session(self.engine, expire_on_commit=False) as session:
            value = work(session)
            topics = take_topics(session)
            if self.is_postgres:
                self.bus.notify(session, topics)
            session.commit()
            return value, topics

    async def close(self) -> None:
        """End the bus, the threads and the pool."""
        await self.bus.close()
        self._threads.shutdown(wait=True)
        self.engine.dispose()


def is_connection_loss_exception(error: Exception) -> bool:
    """`is_connection_loss` in the form stamina asks for."""
    return is_connection_loss(error)
