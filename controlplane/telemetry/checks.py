"""What an agent sent, made fit to be kept: sample by sample and line by line, so that one bad value costs only itself.

An agent may be broken or hostile. Values are finite and within what a 32-bit float holds, rates are not negative, times
are near our own, text drives no terminal and fills no page.
"""

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from wap.agent.v1 import telemetry_pb2

from controlplane.telemetry.counters import Reason
from controlplane.telemetry.port import LogLine, SlowQuery

FUTURE = timedelta(minutes=5)
# An agent's buffer carries an hour and more; what is older than this is a clock that is off.
OLDEST = timedelta(hours=2)
# Lines may wait longer: a quiet node's buffer reaches back for days.
OLDEST_LINE = timedelta(days=7)
# Stores keep 32-bit floats, and 64-bit integers with a sign.
LARGEST, LARGEST_INT = 3.4e38, 2**63 - 1
MAX_OBJECT = 255
MAX_LINE, MAX_ATTRIBUTES, MAX_SHAPE, MAX_CONTEXT, MAX_COMPONENT = 16_384, 32_768, 4096, 128, 32
# From the worst to the most talkative.
SEVERITIES = ("F", "E", "W", "I", "D1", "D2", "D3", "D4", "D5")
# Escape sequences of terminals: CSI, OSC and the short ones.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)")
# Control characters but line ends and tabs; the marks that turn the direction of writing; lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(stamp: Timestamp) -> datetime | None:
    """The time, or None for one that no calendar has."""
    if not 0 <= stamp.nanos < 10**9 or not 0 <= stamp.seconds < 253_402_300_800:
        return None
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def time_refusal(time: datetime | None, now: datetime) -> Reason | None:
    """Why a sample of this time is not taken, or None."""
    if time is None or time > now + FUTURE:
        return Reason.FUTURE
    return Reason.TOO_OLD if time < now - OLDEST else None


def all_good(values: Sequence[float]) -> bool:
    """Whether every value is finite, small enough and not negative: three passes in C for the usual case."""
    return not values or (min(values) >= 0.0 and sum(values) < LARGEST)


def value_refusal(value: float, *, is_rate: bool) -> Reason | None:
    """Why this one value is not taken, or None."""
    if not math.isfinite(value) or abs(value) > LARGEST:
        return Reason.NOT_FINITE
    return Reason.NEGATIVE_RATE if is_rate and value < 0 else None


def clean(text: str, most: int) -> tuple[str, Reason | None]:
    """Text for people and columns, at most so long, and what was done to it."""
    if len(text) <= most and text.isprintable():
        return text, None
    # First cut, so that a line of megabytes is not searched as a whole.
    shorter = text[: 2 * most]
    plain = _CONTROL.sub("", _ANSI.sub("", shorter))
    if len(text) > most:
        return plain[: most - 1] + "…", Reason.LINE_CUT
    return plain, Reason.LINE_CLEANED if plain != text else None


def line_of(
    record: telemetry_pb2.LogRecord, node_id: str, cluster_id: str, now: datetime
) -> tuple[LogLine, list[Reason]]:
    """The line as it is kept, and what had to be done to it."""
    done: list[Reason] = []
    time = moment(record.time)
    if time is None or time > now + FUTURE or time < now - OLDEST_LINE:
        time = now
        done.append(Reason.LINE_TIME)
    text, text_done = clean(record.text, MAX_LINE)
    attributes, attributes_done = _attributes(record.attributes)
    done.extend(dict.fromkeys(one for one in (text_done, attributes_done) if one is not None))
    line = LogLine(
        node_id=node_id,
        cluster_id=cluster_id,
        sequence=record.sequence,
        time=time,
        component=clean(record.component, MAX_COMPONENT)[0],
        severity=record.severity if record.severity in SEVERITIES else "I",
        message_id=record.message_id,
        text=text,
        context=clean(record.context, MAX_CONTEXT)[0],
        attributes=attributes,
        slow_query=_slow_query(record.slow_query) if record.HasField("slow_query") else None,
    )
    return line, done


def _attributes(text: str) -> tuple[str, Reason | None]:
    """JSON stays JSON when it is cut."""
    if len(text) <= MAX_ATTRIBUTES:
        return clean(text, MAX_ATTRIBUTES)
    begin, _ = clean(text[: MAX_ATTRIBUTES // 2], MAX_ATTRIBUTES)
    return json.dumps({"cut": begin}, ensure_ascii=False), Reason.LINE_CUT


def _slow_query(found: telemetry_pb2.SlowQuery) -> SlowQuery:
    return SlowQuery(
        namespace=clean(found.namespace, MAX_OBJECT)[0],
        operation=clean(found.operation, MAX_COMPONENT)[0],
        predicate_shape=clean(found.predicate_shape, MAX_SHAPE)[0],
        sort_shape=clean(found.sort_shape, MAX_SHAPE)[0],
        plan_summary=clean(found.plan_summary, MAX_SHAPE)[0],
        duration_millis=min(found.duration_millis, LARGEST_INT),
        keys_examined=min(found.keys_examined, LARGEST_INT),
        docs_examined=min(found.docs_examined, LARGEST_INT),
        docs_returned=min(found.docs_returned, LARGEST_INT),
        collection_scan=found.collection_scan,
        sorted_in_memory=found.sorted_in_memory,
    )
