"""argon2id in a bounded pool: a hash costs 64 MiB and a good part of a core, and logins must not stop heartbeats."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from controlplane.domain.failure import FailureCode, Refused

T = TypeVar("T")
THREADS = 2
# More than wait here would be answered after their callers have given up.
MOST_WAITING = 16


class Passwords:
    """Hashes and verifies passwords. `hasher` sets what a hash costs."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._nobody = self._hasher.hash("nobody has this password")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The argon2id hash with its parameters."""
        return await self._in_turn(lambda: self._hasher.hash(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password fits; without a stored hash the same work is done and the answer is no."""

        def work() -> bool:
            try:
                return self._hasher.verify(stored or self._nobody, password) and stored is not None
            except (VerificationError, InvalidHashError):
                return False

        return await self._in_turn(work)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise Refused(
                FailureCode.TOO_MANY_ATTEMPTS,
                "too many logins at the same time; try again in a moment",
                allowed=f"at most {MOST_WAITING} at once",
                retryable=True,
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
