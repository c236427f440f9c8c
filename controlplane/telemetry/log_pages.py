"""Pages of log lines: the order they stand in, and where the next one begins. The same for every store.

The order is by time, node and sequence, all descending; it is total, so a page begins where the last one ended whatever
was stored or dropped in between. A line that comes again has the same place; a node that lost its disk numbers its lines
anew, but at other times.
"""

import base64
import binascii
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from controlplane.telemetry.port import LogLine, LogPage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Position(NamedTuple):
    """Where a line stands in the order; what comes after it on later pages is smaller. Time in microseconds since 1970."""

    micros: int
    node_id: str
    sequence: int

    @property
    def time(self) -> datetime:
        """The time of the line."""
        return _EPOCH + self.micros * _MICROSECOND

    def token(self) -> str:
        """As `LogPage.after` carries it."""
        return base64.urlsafe_b64encode(json.dumps(list(self)).encode()).decode().rstrip("=")


def position_of(line: LogLine) -> Position:
    """Where the line stands."""
    return Position((line.time - _EPOCH) // _MICROSECOND, line.node_id, line.sequence)


def before(time: datetime) -> Position:
    """Where everything older than `time` begins."""
    return Position((time - _EPOCH) // _MICROSECOND, "", 0)


def parse(after: str) -> Position | None:
    """The position in a token, None for an empty one. ValueError for a token that no page gave."""
    if not after:
        return None
    try:
        micros, node_id, sequence = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        position = Position(micros, node_id, sequence)
        if not (type(micros) is int and type(node_id) is str and type(sequence) is int and 0 <= sequence < 1 << 64):
            raise ValueError("wrong types")
        position.time  # noqa: B018 - a time that no datetime holds is refused here
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise ValueError(f"not a position in the logs: {after[:80]!r}") from error
    return position


def page(lines: Iterable[LogLine], limit: int, rest: Position | None = None) -> LogPage:
    """The first `limit` of the lines, newest first, a repeated line once.

    `rest` is where lines that were not looked at begin; None when all were.
    """
    found = {position_of(line): line for line in lines}
    ordered = [line for _, line in sorted(found.items(), reverse=True)]
    if len(ordered) > limit:
        shown = ordered[:limit]
        return LogPage(shown, position_of(shown[-1]).token() if shown else "")
    return LogPage(ordered, rest.token() if rest else "")
