"""LogService: lines of mongods and agents, then and now, and what they say of slow queries."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any

from wap.control.v1 import log_pb2 as pb
from wap.control.v1.log_pb2_grpc import LogServiceServicer

from controlplane.api import calls
from controlplane.api.following import Following
from controlplane.api.monitoring import asked, visible
from controlplane.api.pages import Pages, page_size
from controlplane.api.periods import period
from controlplane.api.services import Services
from controlplane.api.wire_logs import line_to_wire, shape_to_wire
from controlplane.domain.failure import invalid
from controlplane.store.nodes import NodeName
from controlplane.telemetry.checks import SEVERITIES
from controlplane.telemetry.port import LogLine, LogPage, LogQuery
from controlplane.telemetry.slow_queries import MOST_LOOKED_AT, group
from controlplane.telemetry.tail import Matching

DEFAULT_LINES, MAX_LINES = 200, 1000
DEFAULT_SHAPES, MAX_SHAPES = 50, 200
# Bytes of lines in one answer: within what gRPC carries in one message.
MAX_ANSWER = 3 * 2**20
# How long slow queries are gathered for one answer, and how many lines are asked for at once.
SLOW_SECONDS, SLOW_PAGE = 8.0, 5000


class Logs(LogServiceServicer):
    """Logs."""

    def __init__(self, services: Services) -> None:
        self._services, self._monitoring = services, services.monitoring
        self._database, self._clock = services.database, services.clock

    async def SearchLogs(self, request: pb.SearchLogsRequest, context: Any) -> pb.SearchLogsResponse:
        """Newest first. A page may be short of its size and yet not be the last: its token says so."""
        call, now = calls.current(), self._clock.now()
        size = page_size(request.page_size, DEFAULT_LINES, MAX_LINES)
        severities = _severities(request.filter.minimum_severity)
        start, end = period(request, now)
        given = request.filter.SerializeToString(deterministic=True).hex()
        times = [one.ToJsonString() if has else "" for one, has in _times(request)]
        pages = Pages(self._services.vault, now, call.name, given, *times)
        after = ""
        if cursor := pages.begin(request.page_token):  # a search without an end ends where its first page did
            start, end, after = datetime.fromisoformat(cursor[0]), datetime.fromisoformat(cursor[1]), cursor[2]
        nodes = await self._nodes(call, request.filter)
        if not nodes:
            return pb.SearchLogsResponse()
        page = await self._page(
            LogQuery(
                node_ids=list(nodes),
                start=start,
                end=end,
                text=request.filter.text,
                component=request.filter.component,
                severities=severities,
                message_id=request.filter.message_id,
                limit=size,
                after=after,
            )
        )
        following = pages.token([start.isoformat(), end.isoformat(), page.after]) if page.after else ""
        lines = [line_to_wire(line, nodes[line.node_id].name) for line in page.lines if line.node_id in nodes]
        return pb.SearchLogsResponse(lines=lines, next_page_token=following)

    async def _page(self, query: LogQuery) -> LogPage:
        """A page that fits into one message: of very long lines there are fewer on it."""
        while True:
            page = await asked("logs", self._monitoring.logs.search(query))
            size = sum(map(_bytes_of, page.lines))
            if size <= MAX_ANSWER or len(page.lines) <= 1:
                return page
            query = _limited(query, max(1, int(len(page.lines) * MAX_ANSWER / size * 0.9)))

    async def _nodes(self, call: calls.Call, wanted: pb.LogFilter) -> dict[str, NodeName]:
        return await self._database.read(
            visible(call, project_id=wanted.project_id, cluster_id=wanted.cluster_id, node_id=wanted.node_id)
        )

    async def TailLogs(self, request: pb.TailLogsRequest, context: Any) -> AsyncIterator[pb.TailLogsResponse]:
        """The first message comes at once and is empty: from there on no line is missed without being counted."""
        call, wanted = calls.current(), request.filter
        matching = Matching(
            text=wanted.text,
            component=wanted.component,
            severities=_severities(wanted.minimum_severity),
            message_id=wanted.message_id,
        )
        async with Following(self._monitoring, lambda: self._nodes(call, wanted), matching, self._clock) as following:
            yield pb.TailLogsResponse()
            async for lines, skipped in following:
                may_see = call.projects()  # read again by the gate while the stream is open
                shown = [line_to_wire(line, node.name) for line, node in lines if _is_in(node.project_id, may_see)]
                for number, part in enumerate(_parts(shown)):
                    yield pb.TailLogsResponse(lines=part, skipped=0 if number else skipped)

    async def ListSlowQueries(self, request: pb.ListSlowQueriesRequest, context: Any) -> pb.ListSlowQueriesResponse:
        """Grouped by shape, of the newest slow queries in the time."""
        if request.limit > MAX_SHAPES:
            raise invalid("limit", request.limit, f"1 to {MAX_SHAPES}, or 0 for {DEFAULT_SHAPES}")
        start, end = period(request, self._clock.now())
        find = visible(calls.current(), cluster_id=request.cluster_id, node_id=request.node_id)
        nodes = await self._database.read(find)
        if not nodes:
            return pb.ListSlowQueriesResponse()
        lines, partial = await self._slow_lines(list(nodes), start, end)
        shapes = await asyncio.to_thread(group, lines, request.namespace)
        shown = shapes[: request.limit or DEFAULT_SHAPES]
        return pb.ListSlowQueriesResponse(shapes=[shape_to_wire(one) for one in shown], partial=partial)

    async def _slow_lines(self, node_ids: list[str], start: datetime, end: datetime) -> tuple[list[LogLine], bool]:
        """The newest lines of slow queries, and whether there may be more."""
        found: list[LogLine] = []
        query = LogQuery(node_ids, start, end, only_slow_queries=True, limit=SLOW_PAGE)
        deadline = time.monotonic() + SLOW_SECONDS
        while True:
            page = await asked("logs", self._monitoring.logs.search(query))
            found += page.lines
            if not page.after:
                return found, False
            if len(found) >= MOST_LOOKED_AT or time.monotonic() > deadline:
                return found, True
            query = _limited(query, SLOW_PAGE, page.after)


def _severities(least: str) -> tuple[str, ...]:
    """This severity and worse ones; () for all."""
    if not least:
        return ()
    if least not in SEVERITIES:
        raise invalid("filter.minimum_severity", least, ", ".join(SEVERITIES))
    return SEVERITIES[: SEVERITIES.index(least) + 1]


def _times(request: pb.SearchLogsRequest) -> list[tuple[Any, bool]]:
    return [
        (request.start_time, request.HasField("start_time")),
        (request.end_time, request.HasField("end_time")),
    ]


def _limited(query: LogQuery, limit: int, after: str | None = None) -> LogQuery:
    return dataclasses.replace(query, limit=limit, after=query.after if after is None else after)


def _bytes_of(line: LogLine) -> int:
    return 200 + len(line.text.encode()) + len(line.attributes.encode())


def _is_in(project_id: str, projects: Collection[str] | None) -> bool:
    return projects is None or project_id in projects


def _parts(lines: list[pb.LogLine]) -> list[list[pb.LogLine]]:
    """The lines in messages that gRPC carries; one empty one where there is no line, since something was skipped."""
    parts: list[list[pb.LogLine]] = [[]]
    size = 0
    for line in lines:
        size += line.ByteSize()
        if size > MAX_ANSWER and parts[-1]:
            parts.append([])
            size = line.ByteSize()
        parts[-1].append(line)
    return parts
