"""LogService of the fake: a mongod's usual lines for every node, and a few slow queries."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from wap.control.v1 import log_pb2 as pb
from wap.control.v1.log_pb2_grpc import LogServiceServicer
from wap.control.v1.node_pb2 import AGENT_STATE_REMOVED, Node

from console.client.monitoring import span, stamp
from console.fake.gate import actor
from console.fake.refusals import invalid
from console.fake.world import World

SEVERITIES = "FEWI"
"""Worst first."""

EVERY = 7.0
"""Seconds between two lines of a node."""

TAIL_EVERY = 1.0

SLOW = {
    "type": "command",
    "ns": "shop.orders",
    "command": {
        "find": "orders",
        "filter": {"status": "?string", "total": {"$gt": "?number"}},
        "sort": {"created": -1},
    },
    "planSummary": "COLLSCAN",
    "docsExamined": 412_880,
    "nreturned": 20,
    "durationMillis": 1840,
}
LINES: tuple[tuple[str, str, int, str, str, dict[str, Any]], ...] = (
    ("I", "NETWORK", 22943, "Connection accepted", "listener", {"remote": "10.20.0.41:50512", "connectionCount": 1481}),
    ("I", "COMMAND", 51803, "Slow query", "conn42", SLOW),
    ("I", "NETWORK", 22944, "Connection ended", "conn41", {"remote": "10.20.0.38:49110", "connectionCount": 1480}),
    ("I", "STORAGE", 22430, "WiredTiger message", "Checkpointer", {"message": "saving checkpoint snapshot min: 8211"}),
    ("W", "NETWORK", 23019, "Client's executor exceeded time limit", "conn44", {"elapsedMicros": 1_204_000}),
    ("I", "REPL", 21392, "New replica set config in use", "ReplCoord-3", {"config": {"_id": "rs0", "version": 4}}),
    (
        "I",
        "ACCESS",
        20250,
        "Authentication succeeded",
        "conn45",
        {"principalName": "shop", "mechanism": "SCRAM-SHA-256"},
    ),
    ("E", "ASSERT", 23076, "User assertion", "conn46", {"error": "DuplicateKey{ keyPattern: { sku: 1 } }"}),
    ("I", "ELECTION", 21450, "Election succeeded, assuming primary role", "ReplCoord-1", {"term": 7}),
)
"""Severity, component, id, text, context, attributes; each node writes them in turn."""

SHAPES = (
    pb.SlowQueryShape(
        namespace="shop.orders",
        operation="find",
        predicate_shape='{"status": "?string", "total": {"$gt": "?number"}}',
        sort_shape='{"created": -1}',
        count=1284,
        p50=span(0.62),
        p95=span(2.35),
        total=span(1096.4),
        docs_examined=530_112_000,
        docs_returned=25_680,
        collection_scans=1284,
        plan_summary="COLLSCAN",
        advice=pb.IndexAdvice(
            keys='{"status": 1, "created": -1, "total": 1}',
            reason="Every one of 1,284 queries read the whole collection and sorted in memory: 20,643 documents were "
            "examined for each one returned. Equality on status first, then the sort on created, then the range on total.",
        ),
    ),
    pb.SlowQueryShape(
        namespace="audit.events",
        operation="aggregate",
        predicate_shape='{"at": {"$gte": "?date"}, "actor": "?string"}',
        count=96,
        p50=span(1.9),
        p95=span(4.8),
        total=span(201.7),
        docs_examined=18_240_000,
        docs_returned=9_600,
        plan_summary="IXSCAN { at: 1 }",
        advice=pb.IndexAdvice(
            keys='{"actor": 1, "at": 1}',
            reason="The index on at alone leaves 1,900 documents examined for each one returned; equality on actor first.",
        ),
    ),
    pb.SlowQueryShape(
        namespace="shop.carts",
        operation="update",
        predicate_shape='{"_id": "?objectId"}',
        count=212,
        p50=span(0.11),
        p95=span(0.24),
        total=span(27.9),
        docs_examined=212,
        docs_returned=212,
        plan_summary="IDHACK",
    ),
)


class LogService(LogServiceServicer):
    """Lines are made from the time asked for, so that there are as many as anyone wants to page through."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def SearchLogs(self, request: pb.SearchLogsRequest, context: Any) -> pb.SearchLogsResponse:
        """Newest first; the page token is the number of lines that were shown."""
        if request.page_size > 1000:
            raise invalid("page_size", request.page_size, "1 to 1000")
        if request.page_token and not request.page_token.isdigit():
            raise invalid("page_token", request.page_token, "the next_page_token of the answer before")
        end = request.end_time.seconds if request.HasField("end_time") else time.time()
        start = request.start_time.seconds
        if start >= end:
            raise invalid("start_time", request.start_time.ToJsonString(), "a moment before end_time")
        skip, size = int(request.page_token or 0), request.page_size or 200
        matching = (line for line in self._backwards(request.filter, start, end) if _matches(line, request.filter))
        page = list(itertools.islice(matching, skip, skip + size + 1))
        following = str(skip + size) if len(page) > size else ""
        return pb.SearchLogsResponse(lines=page[:size], next_page_token=following)

    async def TailLogs(self, request: pb.TailLogsRequest, context: Any) -> AsyncIterator[pb.TailLogsResponse]:
        """A line of some node every second."""
        for number in itertools.count():
            nodes = self._nodes(request.filter)
            if nodes:
                line = _line(nodes[number % len(nodes)], number, time.time())
                if _matches(line, request.filter):
                    yield pb.TailLogsResponse(lines=[line], skipped=3 if number % 20 == 19 else 0)
            await asyncio.sleep(TAIL_EVERY)

    async def ListSlowQueries(self, request: pb.ListSlowQueriesRequest, context: Any) -> pb.ListSlowQueriesResponse:
        """The same three shapes for each cluster or node."""
        if bool(request.cluster_id) == bool(request.node_id):
            raise invalid("cluster_id", request.cluster_id, "one of cluster_id and node_id")
        if request.cluster_id:
            self._world.cluster_by(actor(), request.cluster_id)
        else:
            self._world.node_by(actor(), request.node_id)
        reply = pb.ListSlowQueriesResponse()
        for shape in SHAPES[: request.limit or 50]:
            if request.namespace in ("", shape.namespace):
                reply.shapes.add().CopyFrom(shape)
                reply.shapes[-1].last_time.CopyFrom(stamp(time.time() - 40))
        return reply

    def _nodes(self, wanted: pb.LogFilter) -> list[Node]:
        found = [
            node
            for node in self._world.nodes.values()
            if actor().sees(node.project_id)
            and wanted.project_id in ("", node.project_id)
            and wanted.cluster_id in ("", node.cluster_id)
            and wanted.node_id in ("", node.id)
            and node.agent_state != AGENT_STATE_REMOVED
        ]
        return sorted(found, key=lambda node: node.name)

    def _backwards(self, wanted: pb.LogFilter, start: float, end: float) -> Iterator[pb.LogLine]:
        nodes = self._nodes(wanted)
        number = int(end / EVERY)
        while nodes and number * EVERY >= start:
            for place, node in enumerate(nodes):
                yield _line(node, number + place, number * EVERY - place * 0.4)
            number -= 1


def _line(node: Node, number: int, at: float) -> pb.LogLine:
    severity, component, message_id, text, context, attributes = LINES[number % len(LINES)]
    return pb.LogLine(
        node_id=node.id,
        node_name=node.name,
        cluster_id=node.cluster_id,
        time=stamp(at),
        component=component,
        severity=severity,
        message_id=message_id,
        text=text,
        context=context,
        attributes=json.dumps(attributes),
    )


def _matches(line: pb.LogLine, wanted: pb.LogFilter) -> bool:
    worst = SEVERITIES.index(wanted.minimum_severity) if wanted.minimum_severity in tuple(SEVERITIES) else 3
    return (
        wanted.text.lower() in f"{line.text} {line.attributes}".lower()
        and wanted.component in ("", line.component)
        and SEVERITIES.index(line.severity) <= worst
        and wanted.message_id in (0, line.message_id)
    )
