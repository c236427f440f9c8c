"""Log lines in CloudWatch Logs: one group for the installation, one stream for each node.

CloudWatch answers the oldest first, so a search goes back through windows of time, longer ones where little was found.
It stores whatever it is sent, so a line that was sent twice is stored twice, and shown once. How long lines are kept is
the group's own setting: set where we make the group, and left alone where it is there already.
"""

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from controlplane.telemetry import cloudwatch_events as events
from controlplane.telemetry import log_pages
from controlplane.telemetry.log_pages import Position
from controlplane.telemetry.port import LogLine, LogPage, LogQuery, StoreUnavailable
from controlplane.telemetry.tail import Matching

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

T = TypeVar("T")

# Why lines were not stored, as the counters name it.
TOO_OLD = "older than CloudWatch takes (14 days)"
TOO_NEW = "newer than CloudWatch takes (2 hours)"
REJECTED = "rejected by CloudWatch"

THREADS = 8
PATIENCE = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=THREADS,
)
# What PutRetentionPolicy takes, in days.
RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
# A search that has not filled its page by then answers what it has; the next page goes on from there.
SEARCH_SECONDS = 8.0
# FilterLogEvents takes so many streams; beyond, all are read and compared here.
MOST_STREAMS = 100
# A window with more lines is read again in parts, so that a page does not need them all in memory.
MOST_IN_WINDOW = 20_000
FIRST_WINDOW_MILLIS = 5 * 60 * 1000
_RELIST_SECONDS = 30.0


class CloudWatchLogStore:
    """A LogStore. `group` is made when it is not there, then with a retention of at least `keep_days`.

    Endpoint and credentials are found as boto3 does, and so is the region where none is given.
    """

    def __init__(
        self,
        group: str,
        *,
        region: str | None = None,
        keep_days: int = 30,
        client: "CloudWatchLogsClient | None" = None,
        search_seconds: float = SEARCH_SECONDS,
        most_in_window: int = MOST_IN_WINDOW,
    ) -> None:
        self._group = group
        self._region, self._keep_days = region, keep_days
        self._search_seconds, self._most_in_window = search_seconds, most_in_window
        self._found_client = client
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cloudwatch")
        self._lost: Counter[str] = Counter()
        # What was sent of writes that failed in part, so that a repeat does not send it again.
        self._sent: set[Position] = set()
        self._streams: frozenset[str] = frozenset()
        self._listed = -_RELIST_SECONDS

    @property
    def lost(self) -> Mapping[str, int]:
        """How many lines CloudWatch does not take, by reason."""
        return dict(self._lost)

    async def write(self, lines: Sequence[LogLine]) -> None:
        """Send what was not sent yet. Lines too old or too new for CloudWatch are dropped and counted."""
        by_node: dict[str, list[LogLine]] = defaultdict(list)
        for line in self._acceptable(lines, datetime.now(UTC)):
            by_node[line.node_id].append(line)
        sending = (self._in_thread(partial(self._send, of_node)) for of_node in by_node.values())
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        # What may succeed later first: the outbox then asks again, and finds out about the rest.
        for kind in (StoreUnavailable, BaseException):
            for outcome in outcomes:
                if isinstance(outcome, kind):
                    raise outcome
        self._sent.clear()

    async def search(self, query: LogQuery) -> LogPage:
        """The newest lines that match; fewer than the limit, with more to come, when the search takes too long."""
        position = log_pages.parse(query.after)
        return await self._in_thread(lambda: self._search(query, position))

    async def upkeep(self, now: datetime) -> None:
        """Nothing: CloudWatch drops what is older than the group's retention."""

    async def close(self) -> None:
        """Let the threads end."""
        await asyncio.to_thread(self._pool.shutdown)

    def _acceptable(self, lines: Sequence[LogLine], now: datetime) -> Iterable[LogLine]:
        for line in lines:
            if log_pages.position_of(line) in self._sent:
                continue
            if now - line.time >= events.OLDEST:
                self._lost[TOO_OLD] += 1
            elif line.time - now >= events.NEWEST:
                self._lost[TOO_NEW] += 1
            else:
                yield line

    def _send(self, lines: Sequence[LogLine]) -> None:
        """Send lines of one node, in order and within CloudWatch's limits."""
        node_id = lines[0].node_id
        by_moment = sorted(lines, key=log_pages.position_of)
        sent = 0
        for batch in events.batches(map(events.event, by_moment)):
            reply = self._put(node_id, batch)
            rejected = _rejected(reply.get("rejectedLogEventsInfo", {}), len(batch))
            if rejected:
                with self._lock:
                    self._lost[REJECTED] += rejected
            self._sent.update(map(log_pages.position_of, by_moment[sent : sent + len(batch)]))
            sent += len(batch)

    def _put(self, node_id: str, batch: Sequence[events.Event]) -> Mapping[str, Any]:
        request = [{"timestamp": each.timestamp, "message": each.message} for each in batch]
        arguments: dict[str, Any] = {"logGroupName": self._group, "logStreamName": node_id, "logEvents": request}
        try:
            return self._client().put_log_events(**arguments)
        except ClientError as error:
            if _code(error) != "ResourceNotFoundException":
                raise
        self._make(node_id)
        return self._client().put_log_events(**arguments)

    def _make(self, node_id: str) -> None:
        """Make the group and the stream where they are not there."""
        client = self._client()
        if _made(client.create_log_group, logGroupName=self._group):
            days = next((days for days in RETENTIONS if days >= self._keep_days), RETENTIONS[-1])
            client.put_retention_policy(logGroupName=self._group, retentionInDays=days)
        _made(client.create_log_stream, logGroupName=self._group, logStreamName=node_id)

    def _search(self, query: LogQuery, position: Position | None) -> LogPage:
        deadline = time.monotonic() + self._search_seconds
        matches = _matching(query)
        first, end = events.millis(query.start), events.millis(query.end) + 1
        if position:
            end = min(end, position.micros // 1000 + 1)
        streams = list(query.node_ids)
        window = FIRST_WINDOW_MILLIS
        found: list[LogLine] = []
        # An inverted or empty time needs no call, nor does the case of no nodes.
        while end > first and streams:
            start, began = max(first, end - window), time.monotonic()
            lines = self._read(query, streams, start, end, most=self._most_in_window if window > 1 else None)
            if lines is None:
                window = max(1, window // 16)
                continue
            found += [
                line for line in lines if matches(line) and (position is None or log_pages.position_of(line) < position)
            ]
            end = start
            rest = log_pages.Position(end * 1000, "", 0)
            if len(set(map(log_pages.position_of, found))) > query.limit or time.monotonic() > deadline:
                return log_pages.page(found, query.limit, rest if end > first else None)
            window = window * 4 if time.monotonic() - began < 1 else max(1, window // 2)
        return log_pages.page(found, query.limit)

    def _read(
        self, query: LogQuery, streams: list[str], start: int, end: int, most: int | None
    ) -> list[LogLine] | None:
        """Lines in [start, end) milliseconds that the pattern lets through; None when there are more than `most`.

        Streams that are not there leave the list: CloudWatch refuses the whole request for one of them.
        """
        arguments: dict[str, Any] = {"logGroupName": self._group, "startTime": start, "endTime": end - 1}
        if pattern := events.pattern(query):
            arguments["filterPattern"] = pattern
        found: list[LogLine] = []
        while streams:
            if len(streams) <= MOST_STREAMS:
                arguments["logStreamNames"] = streams
            try:
                reply = self._client().filter_log_events(**arguments)
            except ClientError as error:
                if _code(error) != "ResourceNotFoundException":
                    raise
                known = self._known_streams()
                if known.issuperset(streams):
                    raise
                streams[:] = [name for name in streams if name in known]
                continue
            lines = (events.line(each["logStreamName"], each["message"]) for each in reply.get("events", []))
            found += [line for line in lines if line]
            if most is not None and len(found) > most:
                return None
            if not reply.get("nextToken"):
                break
            arguments["nextToken"] = reply["nextToken"]
        return found

    def _known_streams(self) -> frozenset[str]:
        if time.monotonic() - self._listed >= _RELIST_SECONDS:
            self._streams = self._list_streams()
            self._listed = time.monotonic()
        return self._streams

    def _list_streams(self) -> frozenset[str]:
        try:
            pages = self._client().get_paginator("describe_log_streams").paginate(logGroupName=self._group)
            return frozenset(stream["logStreamName"] for page in pages for stream in page["logStreams"])
        except ClientError as error:
            if _code(error) != "ResourceNotFoundException":
                raise
            return frozenset()

    def _client(self) -> "CloudWatchLogsClient":
        # Making a client is not thread-safe; using it is.
        with self._lock:
            if self._found_client is None:
                self._found_client = boto3.session.Session(region_name=self._region).client("logs", config=PATIENCE)
            return self._found_client

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except ClientError as error:
            # The one complaint that is about what was sent; all others may pass, or be put right by a person.
            if _code(error) in {"InvalidParameterException", "ValidationException"}:
                raise ValueError(f"CloudWatch Logs refuses: {error}") from error
            raise StoreUnavailable(f"CloudWatch Logs group {self._group}: {error}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"CloudWatch Logs group {self._group}: {error}") from error


def _matching(query: LogQuery) -> Callable[[LogLine], bool]:
    matches = Matching(
        node_ids=frozenset(query.node_ids),
        text=query.text,
        component=query.component,
        severities=query.severities,
        message_id=query.message_id,
        only_slow_queries=query.only_slow_queries,
    )
    return lambda line: query.start <= line.time < query.end and matches(line)


def _made(create: Callable[..., Any], **arguments: str) -> bool:
    """Whether this call made it; False when it was there."""
    try:
        create(**arguments)
    except ClientError as error:
        if _code(error) != "ResourceAlreadyExistsException":
            raise
        return False
    return True


def _rejected(info: Mapping[str, int], count: int) -> int:
    """How many of a batch CloudWatch left out: those before an end index, and those from a start index on."""
    too_old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    return too_old + count - info.get("tooNewLogEventStartIndex", count)


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])
