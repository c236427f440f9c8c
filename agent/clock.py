"""Deadlines are set by the control plane's clock; this node's may be wrong by minutes."""

from datetime import UTC, datetime, timedelta

TOLERATED_SECONDS = 5.0


class ServerClock:
    """The control plane's time, as far as the last Welcome told."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    def now(self) -> datetime:
        """The time there, UTC."""
        return datetime.now(UTC) + self._offset

    def heard(self, server_time: datetime) -> None:
        """Take the time in a Welcome; the way here takes milliseconds, deadlines are seconds."""
        self._offset = server_time - datetime.now(UTC)

    @property
    def problem(self) -> str:
        """One sentence when this node's clock is off so far that it matters to MongoDB; else empty."""
        off = -self._offset.total_seconds()
        if abs(off) <= TOLERATED_SECONDS:
            return ""
        return f"the node's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the control plane's"
