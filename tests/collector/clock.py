"""A clock for what happens once a minute."""

import time


class Clock:
    """Real time, with jumps from one round to the next."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds
