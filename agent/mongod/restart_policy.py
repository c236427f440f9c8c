"""When a mongod that died is started again. Pure: times, bytes and causes in, a decision out."""

from dataclasses import dataclass

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# A mongod that ran this long starts the back-off anew.
STABLE_SECONDS = 60.0
NEEDED_BYTES = 100 * 1024 * 1024
TRIES_WHILE_FULL = 3


@dataclass(frozen=True)
class Death:
    """One end of mongod that nobody asked for."""

    at: float  # monotonic seconds
    uptime: float
    out_of_space: bool
    free_bytes: int  # of the data volume at that moment


@dataclass(frozen=True)
class Restart:
    """Start it at this monotonic time."""

    at: float


@dataclass(frozen=True)
class Hold:
    """Do not start it; `problem` says why, for people."""

    problem: str


class RestartPolicy:
    """1, 2, 4 .. 30 s between attempts; after three attempts on a full disk none until there is space again.

    mongod aborts within a second on a full disk, and every attempt writes more of its journal.
    """

    def __init__(self) -> None:
        self._deaths = 0
        self._full_deaths = 0
        self._last: Death | None = None

    def died(self, death: Death) -> None:
        """Count a death."""
        if death.uptime >= STABLE_SECONDS:
            self.reset()
        self._deaths += 1
        self._last = death
        if _full(death):
            self._full_deaths += 1

    def reset(self) -> None:
        """mongod was started or stopped on order: what was before does not count."""
        self._deaths = self._full_deaths = 0
        self._last = None

    def decide(self, free_bytes: int) -> Restart | Hold:
        """What to do with `free_bytes` on the data volume now."""
        last = self._last
        if last is None:
            return Restart(0.0)
        if _full(last) and free_bytes < _enough(last):
            if self._full_deaths > TRIES_WHILE_FULL:
                return Hold(_disk_full(free_bytes, _enough(last)))
        elif self._full_deaths > TRIES_WHILE_FULL:
            self.reset()  # there is space again: at once, with a fresh count
            return Restart(0.0)
        delay = BACKOFF_SECONDS[min(self._deaths, len(BACKOFF_SECONDS)) - 1]
        return Restart(last.at + delay)


def _full(death: Death) -> bool:
    return death.out_of_space or death.free_bytes < NEEDED_BYTES


def _enough(death: Death) -> int:
    # A mongod that wanted more than there was needs more than there was.
    return NEEDED_BYTES + (death.free_bytes if death.out_of_space else 0)


def _disk_full(free_bytes: int, enough: int) -> str:
    mib = 1024 * 1024
    return (
        f"disk full: {free_bytes // mib} MiB free on the data volume; mongod is started again "
        f"when {enough // mib} MiB are free"
    )
