"""How often is sampled: every ten seconds, and more often for a while when somebody looks."""

import asyncio
import contextlib
import time
from collections.abc import Callable

USUAL_SECONDS = 10.0
MIN_SECONDS, MAX_SECONDS, MAX_FOR_SECONDS = 1, 10, 600


class Pace:
    """The ticks of the sampling. Evenly spaced, however long a sample takes; what was missed is not made up for."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._interval, self._until = USUAL_SECONDS, 0.0
        self._changed = asyncio.Event()
        self._last = now() - USUAL_SECONDS

    @property
    def interval(self) -> float:
        """Seconds between two samples now."""
        return self._interval if self._now() < self._until else USUAL_SECONDS

    def hurry(self, interval_seconds: float, for_seconds: float) -> None:
        """Sample more often for so long; the newest wish counts."""
        self._interval, self._until = float(interval_seconds), self._now() + for_seconds
        self._changed.set()

    async def tick(self) -> None:
        """Wait until the next sample is due. The first is due at once."""
        while (wait := self._last + self.interval - self._now()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
        late = self._now() - self._last - self.interval
        self._last = self._now() - (late if late < self.interval / 2 else 0.0)
