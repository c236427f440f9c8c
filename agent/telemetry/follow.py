"""Log lines of mongod and of the agent itself on their way into the buffer.

How far a log was read is kept in the buffer, in the same transaction as the lines: so none is lost or doubled, whenever
the agent dies. Reading takes a share of one core at most, however fast a log grows; what is over the limit of lines a
minute is not even parsed.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import timestamp_pb2
from wap.agent.v1 import telemetry_pb2

from agent.failure import printable
from agent.logs import Log
from agent.telemetry.buffer import Buffer
from collector import logs, redaction, slow
from collector.follow import Batch, Follower
from collector.limit import Limiter

LOOK_SECONDS = 1.0
# Lines that are read together, and which part of the time may go into it.
LINES_AT_ONCE, SHARE = 500, 0.1
# The disk takes nothing: look again after so long.
FULL_SECONDS = 10.0
# The second counts files whose rest was not read, since nobody knows their lines.
RATE_LIMIT, ROTATED_AWAY, NOT_READABLE = "rate limit", "rotated away", "not readable"
MOST_CHARACTERS = 16 * 1024
SEVERITIES = {"debug": "D1", "info": "I", "warning": "W", "error": "E", "critical": "F"}
Record = Callable[[bytes], telemetry_pb2.LogRecord]
log = Log(__name__)


class LogSource:
    """One log. `name` is what its position is remembered under; `record` makes a record of a line."""

    def __init__(self, name: str, path: Path, buffer: Buffer, record: Record, limiter: Limiter | None = None) -> None:
        self._name, self._path, self._buffer, self._record = name, path, buffer, record
        self._limiter = limiter or Limiter()
        self._follower: Follower | None = None
        # Up to where lines are in the buffer; None before the buffer was asked.
        self._position: str | None = None
        self._gaps = 0
        self._thread = ThreadPoolExecutor(1, f"telemetry-{name}")
        # Lines that were dropped here, by reason.
        self.dropped: Counter[str] = Counter()

    async def run(self) -> None:
        """Follow the log. Never returns."""
        while True:
            try:
                pause = await self._turn()
            except Exception:
                log.exception("a log cannot be followed", path=str(self._path))
                pause = FULL_SECONDS
            await asyncio.sleep(pause)

    async def _turn(self) -> float:
        """Take what is there: how long to wait before the next look, seconds."""
        if self._position is None:
            self._position = await self._buffer.remembered(self._name)
        if self._follower is None:
            self._follower = Follower(self._path, position=self._position)
        loop = asyncio.get_running_loop()
        batch, records, spent = await loop.run_in_executor(self._thread, self._read, self._follower)
        if batch.position is not None and batch.lines:
            position = batch.position.dumps()
            if not await self._buffer.add(lines=records, remember={self._name: position}):
                self._follower.close()
                self._gaps, self._follower = self._gaps + self._follower.gaps, None  # to read the same lines again
                return FULL_SECONDS
            self._position = position
        rest = spent / SHARE - spent
        return rest if batch.more else max(rest, LOOK_SECONDS)

    def _read(self, follower: Follower) -> tuple[Batch, list[telemetry_pb2.LogRecord], float]:
        began = time.thread_time()
        records: list[telemetry_pb2.LogRecord] = []
        batch = follower.read(LINES_AT_ONCE)
        for line in batch.lines:
            if self._limiter.admit(*logs.glance(line)):
                self._take(line, records)
        self.dropped[RATE_LIMIT] = self._limiter.dropped
        self.dropped[ROTATED_AWAY] = self._gaps + follower.gaps
        return batch, records, time.thread_time() - began

    def _take(self, line: bytes, records: list[telemetry_pb2.LogRecord]) -> None:
        """A line that nobody has thought of must not hold up those behind it."""
        try:
            records.append(self._record(line))
        except Exception:
            if not self.dropped[NOT_READABLE]:
                log.exception("a line cannot be read", path=str(self._path))
            self.dropped[NOT_READABLE] += 1


def mongod_record(line: bytes) -> telemetry_pb2.LogRecord:
    """A line of mongod, its literals redacted; a slow query is told as such."""
    parsed = redaction.redacted(logs.parse(line))
    record = telemetry_pb2.LogRecord(
        time=_timestamp(parsed.time),
        component=parsed.component,
        severity=parsed.severity,
        message_id=parsed.message_id,
        context=parsed.context,
        text=parsed.text,
        attributes=logs.attributes_json(parsed),
    )
    found = slow.slow_query(parsed)
    if found is not None:
        record.slow_query.CopyFrom(
            telemetry_pb2.SlowQuery(
                namespace=found.namespace,
                operation=found.operation,
                predicate_shape=found.predicate_shape,
                sort_shape=found.sort_shape,
                plan_summary=found.plan_summary,
                duration_millis=found.duration_millis,
                keys_examined=found.keys_examined,
                docs_examined=found.docs_examined,
                docs_returned=found.docs_returned,
                collection_scan=found.collection_scan,
                sorted_in_memory=found.sorted_in_memory,
            )
        )
    return record


def agent_record(line: bytes) -> telemetry_pb2.LogRecord:
    """A line of the agent's own log."""
    text = line.decode(errors="replace")
    try:
        entry = json.loads(text)
        at = datetime.fromisoformat(entry.pop("timestamp"))
        severity = SEVERITIES.get(entry.pop("level"), "I")
        context, event = str(entry.pop("logger")), str(entry.pop("event"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        entry, at, severity, context, event = {}, None, "I", "", text
    attributes = json.dumps(entry) if entry else ""
    if len(attributes) > MOST_CHARACTERS:
        attributes = json.dumps({"cut": attributes[: MOST_CHARACTERS // 2]})
    return telemetry_pb2.LogRecord(
        time=_timestamp(at),
        component="agent",
        severity=severity,
        context=printable(context),
        text=printable(event)[:MOST_CHARACTERS],
        attributes=attributes,
    )


def _timestamp(at: datetime | None) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(at if at is not None and at.tzinfo is not None else datetime.now(UTC))
    return stamp
