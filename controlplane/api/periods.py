"""Times and lengths of time that callers give, checked."""

from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain.failure import invalid
from controlplane.telemetry.checks import moment

USUAL = timedelta(hours=1)


def period(request: Any, now: datetime, usual: timedelta = USUAL) -> tuple[datetime, datetime]:
    """From `start_time` to `end_time` of the request: without an end it is now, without a start the usual time before."""
    end = _moment("end_time", request.end_time) if request.HasField("end_time") else now
    start = _moment("start_time", request.start_time) if request.HasField("start_time") else end - usual
    if start >= end:
        raise invalid("end_time", f"{end:%FT%TZ}", f"later than start_time, which is {start:%FT%TZ}")
    return start, end


def length(field: str, given: Duration, least: timedelta, most: timedelta) -> timedelta:
    """The duration, if it is within these bounds."""
    # Compared as numbers: a Duration can be longer than any timedelta.
    seconds = given.seconds + given.nanos / 1e9
    if not least.total_seconds() <= seconds <= most.total_seconds() or abs(given.nanos) >= 10**9:
        allowed = f"{least.total_seconds():.15g} to {most.total_seconds():.15g} seconds"
        raise invalid(field, f"{seconds:.15g} seconds", allowed)
    return timedelta(seconds=seconds)


def _moment(field: str, stamp: Timestamp) -> datetime:
    found = moment(stamp)
    if found is None:
        raise invalid(field, f"{stamp.seconds} seconds, {stamp.nanos} ns", "a time from 1970 to 9999")
    return found
