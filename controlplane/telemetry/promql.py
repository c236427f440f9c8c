"""Reading series back from a server of Prometheus's kind, on a grid.

A step of a grid is [start, end), a range in PromQL ends with its moment: so each step is asked for at the last millisecond
in it, over one step back.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, TypeVar

import httpx

from controlplane.telemetry.grid import end_of
from controlplane.telemetry.port import Grid, MetricQuery, Series, StoreUnavailable

_MILLISECOND = timedelta(milliseconds=1)
_PARTS = ("avg_over_time", "min_over_time", "max_over_time")
# Servers bound the length of an expression: VictoriaMetrics at 16 KiB.
_MOST_CHARACTERS = 8_000
_AT_ONCE = 8
K = TypeVar("K")
V = TypeVar("V")


class PromQLReader:
    """Queries by the HTTP API of Prometheus."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def query(self, query: MetricQuery) -> list[Series]:
        """Series with at least one value, by node, metric, object. Raises StoreUnavailable."""
        found = await asyncio.gather(*(self._metric(query, metric) for metric in query.metrics))
        series = [one for some in found for one in some]
        return sorted(series, key=lambda one: (one.node_id, one.metric, one.object))

    async def summarise(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        """The quantile (0 to 1) of each node's samples in [start, end). Raises StoreUnavailable."""
        found: dict[str, float] = {}
        span = (end - start) // _MILLISECOND
        for nodes in _in_bounds(node_ids):
            selector = _selector(metric, nodes, "")
            expression = f"quantile_over_time({quantile}, {selector}[{span}ms])"
            parameters = {"query": expression, "time": _seconds(end - _MILLISECOND)}
            found |= await self._ask("query", parameters, _by_node)
        return found

    async def _metric(self, query: MetricQuery, metric: str) -> list[Series]:
        series = []
        for nodes in _in_bounds(query.node_ids):
            selector = _selector(metric, nodes, query.object)
            averages, minima, maxima = await asyncio.gather(
                *(self._range(part, selector, query.grid) for part in _PARTS)
            )
            for key in averages.keys() & minima.keys() & maxima.keys():
                series.append(Series(key[0], metric, key[1], averages[key], minima[key], maxima[key]))
        return series

    async def _range(self, part: str, selector: str, grid: Grid) -> dict[tuple[str, str], list[float | None]]:
        step = grid.step // _MILLISECOND
        parameters = {
            "query": f"{part}({selector}[{step}ms])",
            "start": _seconds(grid.start + grid.step - _MILLISECOND),
            "end": _seconds(end_of(grid) - _MILLISECOND),
            "step": f"{step}ms",
        }
        return await self._ask("query_range", parameters, lambda result: _on_grid(result, grid))

    async def _ask(self, what: str, parameters: Mapping[str, str], read: Callable[[Any], dict[K, V]]) -> dict[K, V]:
        # nocache: VictoriaMetrics would move the start and the end of the range to where its cache likes them.
        host = httpx.URL(self._url).host  # not the URL, which may hold a password
        try:
            async with self._turns:
                answer = await self._client.post(f"{self._url}/api/v1/{what}", data={**parameters, "nocache": "1"})
            if answer.is_success:
                return read(answer.json()["data"]["result"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise StoreUnavailable(f"metrics from {host}: {error!r}") from error
        raise StoreUnavailable(f"metrics from {host}: answered {answer.status_code}: {answer.text.strip()[:200]}")


def series_name(metric: str) -> str:
    """What a metric is called on the server: `wap_` and its name with an underscore for each other character."""
    return "wap_" + re.sub(r"[^a-zA-Z0-9_]", "_", metric)


def _by_node(result: Any) -> dict[str, float]:
    """An instant vector, by the label node_id."""
    values = {one["metric"]["node_id"]: float(one["value"][1]) for one in result}
    return {node_id: value for node_id, value in values.items() if isfinite(value)}


def _on_grid(result: Any, grid: Grid) -> dict[tuple[str, str], list[float | None]]:
    """A range vector as values on the grid, by node and object."""
    step, first = grid.step // _MILLISECOND, _millis(grid.start)
    found = {}
    for one in result:
        values: list[float | None] = [None] * grid.count
        for time, text in one["values"]:
            place, value = (round(time * 1000) - first) // step, float(text)
            if 0 <= place < grid.count and isfinite(value):
                values[place] = value
        if any(value is not None for value in values):
            found[one["metric"]["node_id"], one["metric"].get("object", "")] = values
    return found


def _selector(metric: str, node_ids: Sequence[str], object_: str | None) -> str:
    labels = [f"node_id=~{_quoted('|'.join(map(re.escape, node_ids)))}"]
    if object_ is not None:
        labels.append(f"object={_quoted(object_)}")
    return f"{series_name(metric)}{{{','.join(labels)}}}"


def _quoted(text: str) -> str:
    # A string of Go, of which JSON's is one.
    return json.dumps(text, ensure_ascii=False)


def _in_bounds(node_ids: Sequence[str]) -> Iterator[list[str]]:
    """The nodes in as many parts as expressions of bounded length need."""
    some: list[str] = []
    length = 0
    for node_id in node_ids:
        length += len(node_id) + 8
        if some and length > _MOST_CHARACTERS:
            yield some
            some, length = [], len(node_id) + 8
        some.append(node_id)
    if some:
        yield some


def _millis(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND


def _seconds(time: datetime) -> str:
    return f"{_millis(time) / 1000:.3f}"
