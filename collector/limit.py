"""How many lines of one log may leave a node in a minute; warnings and worse always may."""

EXEMPT = frozenset({"F", "E", "W"})


class Limiter:
    """Counts lines by the minute they were written in, so that catching up after an outage loses no quiet minute."""

    def __init__(self, per_minute: int = 1000) -> None:
        self._per_minute = per_minute
        self._minute, self._admitted = 0, 0
        # Lines refused since the start.
        self.dropped = 0

    def admit(self, severity: str, time_s: float) -> bool:
        """Whether a line of this severity ("F", "E", "W", "I", "D1"...), written at `time_s` (Unix), may go on."""
        if severity in EXEMPT:
            return True
        minute = int(time_s // 60)
        # Threads write a little out of order; a clock that was set back is another matter.
        if minute > self._minute or minute < self._minute - 1:
            self._minute, self._admitted = minute, 0
        if self._admitted >= self._per_minute:
            self.dropped += 1
            return False
        self._admitted += 1
        return True
