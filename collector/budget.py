"""A share of one core for measurements whose price depends on the data: many collections, many chunks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """Rounds at least `every_s` apart that together take at most `share` of the time.

    What a round took is wall time between question and answer, so it holds what mongod spent on it too. A round that
    took too long (one call cannot be cut short) is made up for by a longer pause, so the share holds in the long run.
    """

    def __init__(self, share: float, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._every_s, self._clock = share, every_s, clock
        self._next_s = -float("inf")
        self._ends_s = 0.0

    def due(self) -> bool:
        """Whether the next round may begin."""
        return self._clock() >= self._next_s

    @contextmanager
    def round(self) -> Iterator[None]:
        """Measure a round; also one that fails was paid for."""
        began = self._clock()
        self._ends_s = began + self._share * self._every_s
        try:
            yield
        finally:
            took = self._clock() - began
            self._next_s = began + max(self._every_s, took / self._share)

    def left_s(self) -> float:
        """How much of the round's time is left, in seconds; 0 when it is spent."""
        return max(0.0, self._ends_s - self._clock())
