"""Several control planes on one PostgreSQL: who lives, and who carries on for the dead.

Two signs of life, and either one missing means dead: a session advisory lock, which PostgreSQL drops with the
connection (a killed process is seen at once), and a heartbeat row by the database's clock (a frozen process is seen
after TTL). Every beat, each control plane looks for running work whose executor is dead and queues it again; looking
each time, and not once at a death, also finds what a lost connection made an earlier look miss.
"""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import Awaitable, Callable, Sequence

import psycopg
import structlog

from controlplane.domain.failure import FailureCode, WapFailure

BEAT_SECONDS = 0.5
TTL_SECONDS = 5.0
# A dead connection, and with it our lock, must not outlive us for hours in the eyes of PostgreSQL.
_SESSION = "-c tcp_keepalives_idle=3 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 -c tcp_user_timeout=5000"
log = structlog.get_logger(__name__)

_DEAD = """
select distinct w.executor_id
from dbos.workflow_status w left join control_plane c using (executor_id)
where w.status = 'PENDING' and w.executor_id <> %(me)s
  and (c.executor_id is null
       or c.heartbeat_at < now() - make_interval(secs => %(ttl)s)
       or not exists (
         select 1 from pg_locks l
         where l.locktype = 'advisory' and l.granted and l.objsubid = 1
           and ((l.classid::bigint << 32) | l.objid::bigint)
               = ('x' || left(encode(sha256(('wap.' || w.executor_id)::bytea), 'hex'), 16))::bit(64)::bigint))
"""
_BEAT = """
insert into control_plane (executor_id, started_at, heartbeat_at, host_name) values (%(me)s, now(), now(), %(host)s)
on conflict (executor_id) do update set heartbeat_at = now()
"""
_CLEAN = "delete from control_plane where heartbeat_at < now() - interval '1 day'"


def lock_key(executor_id: str) -> int:
    """The advisory lock of an executor: the first 8 bytes of SHA-256, as PostgreSQL computes it in the query above."""
    return int.from_bytes(hashlib.sha256(f"wap.{executor_id}".encode()).digest()[:8], "big", signed=True)


class Membership:
    """Keeps this control plane alive in the eyes of the others, and looks after the dead. PostgreSQL only."""

    def __init__(self, url: str, executor_id: str, take_over: Callable[[Sequence[str]], Awaitable[list[str]]]) -> None:
        self._url, self._me, self._take_over = url, executor_id, take_over
        self._connection: psycopg.AsyncConnection | None = None
        self._task: asyncio.Task[None] | None = None
        # Loop time before which nobody is declared dead.
        self._patient_until = 0.0

    async def join(self) -> None:
        """Take the lock and write the first heartbeat; call before the engine starts to work."""
        await self._connect()

    def start(self) -> None:
        """Begin to beat and to look after the dead."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def leave(self) -> None:
        """Say goodbye, so that the others take over at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                await self._connection.execute("delete from control_plane where executor_id = %s", (self._me,))
            await self._connection.close()

    async def _connect(self) -> psycopg.AsyncConnection:
        connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=5, options=_SESSION
        )
        cursor = await connection.execute("select pg_try_advisory_lock(%s)", (lock_key(self._me),))
        row = await cursor.fetchone()
        if not row or not row[0]:
            await connection.close()
            raise WapFailure(FailureCode.UNAVAILABLE, f"executor id {self._me} is in use by another control plane")
        await connection.execute(_BEAT, {"me": self._me, "host": socket.gethostname()})
        await connection.execute(_CLEAN)
        self._connection = connection
        return connection

    async def _run(self) -> None:
        while True:
            try:
                await self._beat()
            except Exception:  # whatever it is: who stops to beat is taken for dead
                log.exception("no sign of life written")
                await self._disconnect()
            await asyncio.sleep(BEAT_SECONDS)

    async def _beat(self) -> None:
        if self._connection is None:
            # The database was away, and everybody's lock with it: they get the time to come back.
            self._patient_until = asyncio.get_running_loop().time() + TTL_SECONDS
        connection = self._connection or await self._connect()
        await connection.execute(_BEAT, {"me": self._me, "host": socket.gethostname()})
        if asyncio.get_running_loop().time() >= self._patient_until:
            await self._look_after_the_dead(connection)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    async def _look_after_the_dead(self, connection: psycopg.AsyncConnection) -> None:
        cursor = await connection.execute(_DEAD, {"me": self._me, "ttl": TTL_SECONDS})
        dead = [row[0] for row in await cursor.fetchall()]
        if not dead:
            return
        workflows = await self._take_over(dead)
        await connection.execute("delete from control_plane where executor_id = any(%s)", (dead,))
        if workflows:
            log.warning("took over from dead control planes", executors=dead, operations=workflows)
