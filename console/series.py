"""The series behind the charts of a page, as JSON over one request for all of them.

The rule this module guards: a request is answered only for a live session, with that user's own token, so that the control
plane decides what may be seen.
"""

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from wap.control.v1.metric_pb2 import Point, QueryMetricsResponse, Series
from wap.control.v1.operation_pb2 import ListOperationsRequest, OperationKind

from console.client import AsyncClient, WapError
from console.client.monitoring import query_request
from console.parts.charts import LIVE_SECONDS, RANGES, Chart, charts_of, line_name, metrics_of
from console.parts.words import seconds, sentence, word
from console.sessions import Sessions

MOST_METRICS = 20
"""Per request, as QueryMetrics allows."""

OPERATIONS_MARKED = 50
STATE = "replica_set.state"
RESTARTS = "mongod.restarts"
PRIMARY = 1.0
FINE_STEP = 10.0
"""Up to this step a point is one sample, and least and most say no more than the value."""

STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAVAILABLE: 503,
}


def register(app: FastAPI, sessions: Sessions) -> None:
    """Add the route; it must stand before NiceGUI's."""

    @app.get("/series")
    async def series(request: Request) -> Response:
        session = sessions.by_cookies(request.cookies)
        if session is None:
            return JSONResponse({"message": "You are not signed in any more"}, status_code=401)
        asked = request.query_params
        charts, length = charts_of(asked.get("charts", "")), asked.get("seconds", "")
        if not charts or not length.isdigit() or int(length) not in (*RANGES, LIVE_SECONDS):
            return JSONResponse({"message": "There are no such charts"}, status_code=400)
        try:
            body = await read(
                session.api,
                charts,
                int(length),
                asked.get("cluster", ""),
                asked.get("node", ""),
                asked.get("prefix", ""),
            )
        except WapError as error:
            return JSONResponse({"message": error.message}, status_code=STATUS.get(error.code, 500))
        return JSONResponse(body)


async def read(
    api: AsyncClient, charts: Sequence[Chart], length: int, cluster_id: str, node_id: str, prefix: str = ""
) -> dict[str, Any]:
    """All series of these charts over the last `length` seconds, on one grid, and what happened meanwhile.

    `node_id` wins over `cluster_id`, which then only says whose operations to mark. `prefix` is left out of members' names.
    """
    now = time.time()
    names = [*metrics_of(charts), STATE, RESTARTS]
    parts = [names[place : place + MOST_METRICS] for place in range(0, len(names), MOST_METRICS)]
    replies, operations = await asyncio.gather(
        _on_one_grid(api, parts, "" if node_id else cluster_id, node_id, length, now),
        _operations(api, cluster_id, now - length),
    )
    # Thousands of points: not on the event loop that all pages share.
    return await asyncio.to_thread(_body, charts, replies, operations, now, prefix)


async def _on_one_grid(
    api: AsyncClient, parts: Sequence[Sequence[str]], cluster_id: str, node_id: str, length: int, now: float
) -> list[QueryMetricsResponse]:
    """An answer for each part. Where the control plane made the steps of a large one longer, the others follow."""

    async def ask(part: Sequence[str], step: float | None) -> QueryMetricsResponse:
        request = query_request(
            part, cluster_id=cluster_id, node_id=node_id, last_seconds=length, end=now, step_seconds=step
        )
        return await api.metrics.QueryMetrics(request)

    replies = await asyncio.gather(*(ask(part, None) for part in parts))
    longest = max(_Grid(reply).step for reply in replies)
    if all(_Grid(reply).step == longest for reply in replies):
        return replies
    return await asyncio.gather(*(ask(part, longest) for part in parts))


def current(
    chart: Chart, members: Mapping[str, str], latest: Mapping[tuple[str, str], float]
) -> dict[str, float | None]:
    """The newest value of each line of a chart; `latest` is by (metric, node), `members` are names by node."""
    if chart.by_member:
        return {
            line_name(chart, name, label): _rounded(latest.get((metric, node)))
            for node, name in members.items()
            for metric, label in chart.lines
        }
    together: dict[str, float | None] = {}
    for metric, label in chart.lines:
        values = [latest[metric, node] for node in members if (metric, node) in latest]
        total = sum(values) / (len(values) if chart.mean else 1) if values else None
        together[line_name(chart, "", label)] = _rounded(total)
    return together


def _body(
    charts: Sequence[Chart],
    replies: Sequence[QueryMetricsResponse],
    operations: Sequence[dict[str, Any]],
    now: float,
    prefix: str,
) -> dict[str, Any]:
    found = {(one.metric, one.node_id): one for reply in replies for one in reply.series if not one.object}
    members = sorted({(one.node_name, one.node_id) for one in found.values()})
    short = {node: name.removeprefix(prefix) for name, node in members}
    grid = _Grid(replies[0])
    return {
        "now": now,
        "start": grid.start,
        "step": grid.step,
        "members": list(short.values()),
        "charts": {chart.key: _lines(chart, short, found, with_range=grid.step > FINE_STEP) for chart in charts},
        "events": sorted([*operations, *_events(found, short, grid)], key=lambda event: event["at"]),
    }


class _Grid:
    def __init__(self, reply: QueryMetricsResponse) -> None:
        self.start = seconds(reply.start_time)
        self.step = reply.step.seconds + reply.step.nanos / 1e9

    def at(self, place: int) -> float:
        return self.start + place * self.step


def _lines(
    chart: Chart, members: Mapping[str, str], found: Mapping[tuple[str, str], Series], *, with_range: bool
) -> list[dict[str, Any]]:
    if chart.by_member:
        return [
            _line(line_name(chart, name, label), name, found[metric, node].points, with_range)
            for node, name in members.items()
            for metric, label in chart.lines
            if (metric, node) in found
        ]
    lines = []
    for metric, label in chart.lines:
        every = [found[metric, node].points for node in members if (metric, node) in found]
        if every:
            together = every[0] if len(every) == 1 else _together(every, mean=chart.mean)
            lines.append(_line(line_name(chart, "", label), "", together, with_range and len(every) == 1))
    return lines


def _line(name: str, member: str, points: Iterable[Point], with_range: bool) -> dict[str, Any]:
    points = list(points)
    line: dict[str, Any] = {"name": name, "member": member, "values": [_average(point) for point in points]}
    if with_range:
        line["low"] = [_rounded(point.minimum) if point.HasField("minimum") else None for point in points]
        line["high"] = [_rounded(point.maximum) if point.HasField("maximum") else None for point in points]
    return line


def _together(every: Sequence[Sequence[Point]], *, mean: bool) -> list[Point]:
    """Of all members that measured; a step that nobody measured stays a gap."""
    made = []
    for points in zip(*every, strict=True):
        values = [point.average for point in points if point.HasField("average")]
        made.append(Point(average=sum(values) / (len(values) if mean else 1)) if values else Point())
    return made


def _average(point: Point) -> float | None:
    return _rounded(point.average) if point.HasField("average") else None


def _rounded(value: float | None) -> float | None:
    """Four digits: more than a pixel shows."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


async def _operations(api: AsyncClient, cluster_id: str, since: float) -> list[dict[str, Any]]:
    if not cluster_id:
        return []
    request = ListOperationsRequest(cluster_id=cluster_id, page_size=OPERATIONS_MARKED)
    reply = await api.operations.ListOperations(request)
    return [
        {"at": began, "name": sentence(word(OperationKind.DESCRIPTOR, one.kind).replace("_", " "))}
        for one in reply.operations
        if (began := seconds(one.start_time) or seconds(one.create_time)) >= since
    ]


def _events(found: Mapping[tuple[str, str], Series], members: Mapping[str, str], grid: _Grid) -> list[dict[str, Any]]:
    states = {node: list(found[STATE, node].points) for node in members if (STATE, node) in found}
    events = _failovers(states, members, grid)
    for node, name in members.items():
        if (RESTARTS, node) in found:
            points = found[RESTARTS, node].points
            events += [
                {"at": grid.at(place), "name": f"{name} restarted"}
                for place, point in enumerate(points)
                if point.HasField("maximum") and point.maximum >= 1
            ]
    return events


def _failovers(states: Mapping[str, Sequence[Point]], members: Mapping[str, str], grid: _Grid) -> list[dict[str, Any]]:
    """A new primary; where only one member is looked at, also that it stopped being primary."""
    events: list[dict[str, Any]] = []
    leader: str | None = None
    for place in range(max((len(points) for points in states.values()), default=0)):
        known = {node: points[place] for node, points in states.items() if points[place].HasField("minimum")}
        leading = [node for node, point in known.items() if point.minimum == PRIMARY]
        if leading and (leader is None or leader not in leading):
            if leader is not None:
                who = "Now" if len(states) == 1 else members[leading[0]]
                events.append({"at": grid.at(place), "name": f"{who} primary"})
            leader = leading[0]
        elif len(states) == 1 and known and not leading:
            if leader:
                events.append({"at": grid.at(place), "name": "No longer primary"})
            leader = ""
    return events
