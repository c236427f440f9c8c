"""Waiting for the results of commands: one look at the database for all that wait, however many they are."""

import asyncio
import contextlib
from collections.abc import Collection, Iterator

import structlog

from controlplane.fleet.wakeups import Wakeups
from controlplane.store import commands
from controlplane.store.commands import Fact
from controlplane.store.database import Database

log = structlog.get_logger(__name__)
# A look at the database in case a wake-up call was lost, or was another process's on SQLite.
POLL_SECONDS = 2.0


class Wait:
    """One caller's wait for one command."""

    __slots__ = ("_news", "fact", "stored")

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.fact: Fact | None = None
        # Whether the command is known to be in the database; before that, a look that misses it says nothing.
        self.stored = False

    def expect(self, fact: Fact) -> None:
        """What is known before the first look; what a look has told meanwhile is newer."""
        self.stored = True
        if not self._news.is_set():
            self.fact = fact

    def tell(self, fact: Fact | None) -> None:
        """There was a look at the database: this is what stands there; None when the command is gone."""
        self.fact = fact
        self._news.set()

    async def look(self, timeout: float) -> Fact | None:
        """The fact after the next look, or the last one known after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        self._news.clear()
        return self.fact


class Waits:
    """All waits of this process. It looks only while somebody waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, set[Wait]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def of(self, command_id: str) -> Iterator[Wait]:
        """A wait for this command, for the time of the context."""
        wait = Wait()
        self._waiting.setdefault(command_id, set()).add(wait)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield wait
        finally:
            others = self._waiting[command_id]
            others.discard(wait)
            if not others:
                del self._waiting[command_id]

    async def _run(self) -> None:
        with self._database.bus.subscribe("result/") as subscription:
            results = Wakeups(subscription, POLL_SECONDS)
            while self._waiting:
                names = await results.next()
                await self._look(tuple(self._waiting) if names is None else names & self._waiting.keys())

    async def _look(self, command_ids: Collection[str]) -> None:
        if not command_ids:
            return
        certain = {wait for command_id in command_ids for wait in self._waiting.get(command_id, ()) if wait.stored}
        try:
            found = await self._database.read(lambda tx: commands.facts(tx, command_ids))
        except Exception:
            log.exception("could not look for results")
            await asyncio.sleep(POLL_SECONDS)
            return
        for command_id in command_ids:
            fact = found.get(command_id)
            for wait in self._waiting.get(command_id, ()):
                if fact is not None or wait in certain:
                    wait.tell(fact)
