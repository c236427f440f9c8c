"""Metrics, logs and alerts in the client: what their requests are made of, and tails that outlive a broken connection.

Both clients hold the typed stubs as `.metrics`, `.logs` and `.alerts`; with them every call can be made. This module adds
what every program that asks them needs: times from plain seconds, requests from plain arguments, and `follow` (for
`AsyncClient`: `follow_async`), which opens StreamMetrics, TailLogs or WatchAlerts again when the control plane goes away.

    for reply in monitoring.follow(client.logs.TailLogs, TailLogsRequest(filter=log_filter(cluster_id=cluster.id))):
        ...
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1.log_pb2 import LogFilter, SearchLogsRequest
from wap.control.v1.metric_pb2 import QueryMetricsRequest, SummariseMetricsRequest

from console.client import wire
from console.client.errors import WapError

HOUR = 3600.0


def stamp(seconds: float) -> Timestamp:
    """A moment from seconds since the epoch."""
    moment = Timestamp()
    moment.FromNanoseconds(round(seconds * 1_000_000) * 1000)
    return moment


def span(seconds: float) -> Duration:
    """A duration from seconds."""
    length = Duration()
    length.FromNanoseconds(round(seconds * 1_000_000) * 1000)
    return length


def query_times(last_seconds: float, end: float | None = None) -> tuple[Timestamp, Timestamp]:
    """Start and end of the `last_seconds` before `end` (seconds since the epoch; None: now)."""
    until = time.time() if end is None else end
    return stamp(until - last_seconds), stamp(until)


def query_request(
    metrics: Sequence[str],
    *,
    cluster_id: str = "",
    node_id: str = "",
    last_seconds: float = HOUR,
    end: float | None = None,
    step_seconds: float | None = None,
    object_name: str = "",
) -> QueryMetricsRequest:
    """Series of the `last_seconds` before `end` (seconds since the epoch; None: now). Name a cluster or a node."""
    start_time, end_time = query_times(last_seconds, end)
    return QueryMetricsRequest(
        cluster_id=cluster_id,
        node_id=node_id,
        metrics=metrics,
        start_time=start_time,
        end_time=end_time,
        step=None if step_seconds is None else span(step_seconds),
        object=object_name,
    )


def summary_request(
    metric: str,
    *,
    project_id: str = "",
    cluster_id: str = "",
    last_seconds: float = HOUR,
    end: float | None = None,
    quantile: float = 0.95,
) -> SummariseMetricsRequest:
    """One number per node: `quantile` (0 to 1) of the samples in the `last_seconds` before `end` (None: now)."""
    start_time, end_time = query_times(last_seconds, end)
    return SummariseMetricsRequest(
        project_id=project_id,
        cluster_id=cluster_id,
        metric=metric,
        start_time=start_time,
        end_time=end_time,
        quantile=quantile,
    )


def log_filter(
    *,
    project_id: str = "",
    cluster_id: str = "",
    node_id: str = "",
    text: str = "",
    component: str = "",
    minimum_severity: str = "",
    message_id: int = 0,
) -> LogFilter:
    """Which lines; what is left out does not filter."""
    return LogFilter(
        project_id=project_id,
        cluster_id=cluster_id,
        node_id=node_id,
        text=text,
        component=component,
        minimum_severity=minimum_severity,
        message_id=message_id,
    )


def search_request(
    wanted: LogFilter,
    *,
    last_seconds: float = HOUR,
    end: float | None = None,
    page_size: int = 0,
    page_token: str = "",
) -> SearchLogsRequest:
    """Lines of the `last_seconds` before `end` (None: now). The pages of one search must all carry the same `end`."""
    start_time, end_time = query_times(last_seconds, end)
    return SearchLogsRequest(
        filter=wanted,
        start_time=start_time,
        end_time=end_time,
        page_size=page_size,
        page_token=page_token,
    )


def follow(
    call: Callable[..., Any],
    request: Message,
    *,
    timeout: float | None = None,
    patience: float = wire.PATIENCE,
) -> Iterator[Any]:
    """The replies of a stream of `Client`, opened again whenever it breaks off, until `timeout` seconds are over.

    WapError when the control plane refuses, or is away for longer than `patience` seconds. What was said while nobody
    listened is not said again: a tail begins with the present.
    """
    watch = _Tail(timeout, patience)
    pausing = threading.Event()
    while True:
        try:
            for reply in call(request, timeout=watch.span()):
                watch.reached()
                yield reply
            pause = wire.REOPEN_PAUSE
        except WapError as error:
            pause = watch.pause_after(error)
        if watch.is_over:
            return
        pausing.wait(pause)


async def follow_async(
    call: Callable[..., Any],
    request: Message,
    *,
    timeout: float | None = None,
    patience: float = wire.PATIENCE,
) -> AsyncIterator[Any]:
    """`follow` for the streams of `AsyncClient`."""
    watch = _Tail(timeout, patience)
    while True:
        try:
            async for reply in call(request, timeout=watch.span()):
                watch.reached()
                yield reply
            pause = wire.REOPEN_PAUSE
        except WapError as error:
            pause = watch.pause_after(error)
        if watch.is_over:
            return
        await asyncio.sleep(pause)


class _Tail:
    """The time rules of one tail; as those of a wait, but its end is no error."""

    def __init__(self, timeout: float | None, patience: float) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout
        self._watch = wire.Watch(time.monotonic, None, patience)

    @property
    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def span(self) -> float:
        if self._end is None:
            return wire.WATCH_SPAN
        return max(0.001, min(wire.WATCH_SPAN, self._end - time.monotonic()))

    def reached(self) -> None:
        self._watch.reached()

    def pause_after(self, error: WapError) -> float:
        return self._watch.pause_after(error)
