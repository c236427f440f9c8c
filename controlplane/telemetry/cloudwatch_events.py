"""Log lines as events of CloudWatch Logs: their text, the limits of one request, and the patterns that find them.

An event is a JSON object, so that CloudWatch's own console and Logs Insights can read it too. Its tags are words made
for filter patterns: CloudWatch finds a quoted phrase anywhere in an event, but no field in any letter case, so patterns
narrow down and the store's own comparison decides.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from controlplane.telemetry import slow_queries
from controlplane.telemetry.port import LogLine, LogQuery

# Limits of PutLogEvents: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
OLDEST = timedelta(days=14)
NEWEST = timedelta(hours=2)
MOST_EVENTS = 10_000
MOST_BYTES = 1_048_576
EVENT_OVERHEAD = 26
LONGEST_SPAN_MILLIS = 24 * 3600 * 1000
# Below the 256 KB of the older limit for one event.
MOST_EVENT_BYTES = 250_000
CUT_TEXT = 16_384
CUT_MARK = "… (cut)"

# mongod's severities, the worst first.
SEVERITIES = ("F", "E", "W", "I", "D1", "D2", "D3", "D4", "D5")


class Event(NamedTuple):
    """An event: milliseconds since 1970, the message, and what it counts towards a request's bytes."""

    timestamp: int
    message: str
    size: int


def millis(moment: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def event(line: LogLine) -> Event:
    """The line as an event. One that is too long loses its attributes and the end of its text."""
    message = _message(line)
    size = len(message.encode())
    if size > MOST_EVENT_BYTES:
        message = _message(replace(line, attributes="", text=line.text[:CUT_TEXT] + CUT_MARK))
        size = len(message.encode())
    return Event(millis(line.time), message, size + EVENT_OVERHEAD)


def batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    """The events in order of time, in pieces that one request takes."""
    batch: list[Event] = []
    size = 0
    for each in sorted(events, key=lambda event: event.timestamp):
        too_long = batch and each.timestamp - batch[0].timestamp >= LONGEST_SPAN_MILLIS
        if len(batch) == MOST_EVENTS or size + each.size > MOST_BYTES or too_long:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


def line(node_id: str, message: str) -> LogLine | None:
    """The line in an event; None for an event that is not one of ours."""
    try:
        fields: dict[str, Any] = json.loads(message)
        attributes = fields["attributes"]
        return LogLine(
            node_id=node_id,
            cluster_id=fields["cluster"],
            sequence=fields["sequence"],
            time=datetime.fromisoformat(fields["time"]),
            component=fields["component"],
            severity=fields["severity"],
            message_id=fields["id"],
            text=fields["text"],
            context=fields["context"],
            attributes=attributes if isinstance(attributes, str) else _compact(attributes),
            slow_query=slow_queries.decode(json.dumps(fields["slow"])) if fields.get("slow") else None,
        )
    except (ValueError, TypeError, KeyError):
        return None


def pattern(query: LogQuery) -> str:
    """A filter pattern that lets through every line the query wants, and as few others as one phrase can; "" for all."""
    if query.only_slow_queries:
        return '"slow=1"'
    if query.message_id:
        return f'"id={query.message_id} "'
    # A component that is no plain word is left to the comparison: no quote may get into a pattern.
    if query.component.isalnum():
        return f'"component={query.component} "'
    for count, least in enumerate(SEVERITIES, 1):
        if set(query.severities) == set(SEVERITIES[:count]):
            return f'"upto={least} "'
    return ""


def _message(line: LogLine) -> str:
    return _compact(
        {
            "tags": _tags(line),
            "time": line.time.astimezone(UTC).isoformat(),
            "severity": line.severity,
            "component": line.component,
            "id": line.message_id,
            "context": line.context,
            "text": line.text,
            "attributes": _attributes(line.attributes),
            "cluster": line.cluster_id,
            "sequence": line.sequence,
            "slow": json.loads(slow_queries.encode(line.slow_query)) if line.slow_query else None,
        }
    )


def _tags(line: LogLine) -> str:
    """Words for patterns; a severity says every one that it is at least as bad as."""
    tags = [f"component={line.component}", f"id={line.message_id}", f"slow={int(line.slow_query is not None)}"]
    if line.severity in SEVERITIES:
        tags += [f"upto={least}" for least in SEVERITIES[SEVERITIES.index(line.severity) :]]
    return " ".join(tags) + " "


def _attributes(text: str) -> Any:
    """As an object, which CloudWatch can look into, where that gives the same text again."""
    try:
        found = json.loads(text)
        return found if isinstance(found, dict) and _compact(found) == text else text
    except ValueError:
        return text


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
