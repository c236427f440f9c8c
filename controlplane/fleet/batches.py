"""Many small pieces of work in one transaction: what thousands of agents do at once must not cost a commit each.

Nothing waits for company: the first piece starts at once, and what comes while a transaction runs makes up the next.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from controlplane.store.database import Database, is_connection_loss

Item = TypeVar("Item")
Value = TypeVar("Value")
LARGEST = 1000


class Batch(Generic[Item, Value]):
    """Collects items and hands them to `work(tx, items)`, which returns one value for each and may run twice."""

    def __init__(self, database: Database, work: Callable[[Session, list[Item]], Sequence[Value]]) -> None:
        self._database, self._work = database, work
        self._waiting: list[tuple[Item, asyncio.Future[Value]]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Value]:
        """The item's value, when its transaction has committed; the transaction's error otherwise."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Value] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            await self._do(batch)

    async def _do(self, batch: list[tuple[Item, asyncio.Future[Value]]]) -> None:
        items = [item for item, _ in batch]
        try:
            values = await self._database.ensure(lambda tx: self._work(tx, items))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            if len(batch) > 1 and not is_connection_loss(error):
                for one in batch:  # what the database does not take from one must not be everybody's failure
                    await self._do([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), value in zip(batch, values, strict=True):
            if not future.done():
                future.set_result(value)
