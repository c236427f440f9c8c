"""Transactions of calls that change something.

Two calls at the same moment may both find a name, a network or a key free; the database lets one of them through. The
other runs again and then sees what the first one made. On SQLite transactions that write never overlap.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.store.database import Database

T = TypeVar("T")
ATTEMPTS = 10
PAUSE_SECONDS = 0.05
# PostgreSQL: serialization failure, deadlock detected, lock not available.
COLLISIONS = frozenset({"40001", "40P01", "55P03"})


async def change(database: Database, work: Callable[[Session], T]) -> T:
    """Run `work` in a transaction, again when a concurrent one was faster. It must raise rather than return to undo."""
    for attempt in range(ATTEMPTS):
        try:
            return await database.write(work)
        except DBAPIError as error:
            if not _collided(error):
                raise
        await asyncio.sleep(random.uniform(0, PAUSE_SECONDS * (attempt + 1)))
    raise WapFailure(FailureCode.UNAVAILABLE, "too many changes at the same moment; try again", retryable=True)


def _collided(error: DBAPIError) -> bool:
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in COLLISIONS
