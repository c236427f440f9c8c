"""From counters to rates, once, on the node: whoever reads a rate later needs to know nothing of restarts."""

import math
from collections.abc import Mapping


class Rates:
    """Remembers the counters of the last tick. Keys are the caller's; each counter stands for itself.

    No rate is better than a wrong one: at the first tick, for a counter that is new or has gone back, after another
    boot and while time stands still there is none, and the next tick measures from here.
    """

    def __init__(self) -> None:
        self._time_s = -math.inf
        self._boot: object = None
        self._counters: dict[str, float] = {}

    def per_second(self, time_s: float, counters: Mapping[str, float], boot: object = None) -> dict[str, float]:
        """The rates since the last tick of those counters that have one; `boot` names the run that counted.

        `time_s` is any clock in seconds that ran on between the ticks.
        """
        finite = {key: float(value) for key, value in counters.items() if math.isfinite(value)}
        seconds, before = time_s - self._time_s, self._counters
        comparable = boot == self._boot and 0 < seconds < math.inf
        self._time_s, self._boot, self._counters = time_s, boot, finite
        if not comparable:
            return {}
        return {
            key: (value - before[key]) / seconds
            for key, value in finite.items()
            if key in before and value >= before[key]
        }

    def forget(self) -> None:
        """Measure anew: something lies between this tick and the next that no rate may span."""
        self._boot, self._counters, self._time_s = None, {}, -math.inf


def quotient(over: float | None, under: float | None) -> float | None:
    """One rate for each of another, such as seconds per operation; None where nothing happened or nothing is known."""
    return over / under if over is not None and under else None


def percent(part: float | None, whole: float | None) -> float | None:
    """The part of the whole, 0 to 100; None without a whole."""
    return min(100.0, max(0.0, 100.0 * part / whole)) if part is not None and whole else None


def known(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that are there and finite: what was not measured is left out, never zero."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
