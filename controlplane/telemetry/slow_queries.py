"""Slow queries grouped by shape: those that differ in literals only are one; the bad ones carry the index that would help."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime

from collector import slow
from collector.slow import Advice
from controlplane.telemetry.port import LogLine, SlowQuery

# How many slow queries one answer is made from at most; the newest count.
MOST_LOOKED_AT = 20_000
_FIELDS = [field.name for field in fields(SlowQuery)]


@dataclass(frozen=True, slots=True)
class Shape:
    """Slow queries of one namespace, operation, predicate and sort. Durations in milliseconds.

    `plan_summary` and `last_time` are those of the newest one. `advice` is set where an index would help.
    """

    namespace: str
    operation: str
    predicate_shape: str
    sort_shape: str
    count: int
    p50_millis: int
    p95_millis: int
    total_millis: int
    keys_examined: int
    docs_examined: int
    docs_returned: int
    collection_scans: int
    sorts_in_memory: int
    plan_summary: str
    last_time: datetime
    advice: Advice | None


def group(lines: Iterable[LogLine], namespace: str = "") -> list[Shape]:
    """Shapes by total time, the largest first. Lines without a slow query, or of another namespace, do not count."""
    groups: dict[tuple[str, str, str, str], list[tuple[datetime, SlowQuery]]] = defaultdict(list)
    for line in lines:
        query = line.slow_query
        if query and (not namespace or query.namespace == namespace):
            key = (query.namespace, query.operation, query.predicate_shape, query.sort_shape)
            groups[key].append((line.time, query))
    return sorted(map(_shape, groups.values()), key=lambda shape: shape.total_millis, reverse=True)


def encode(query: SlowQuery) -> str:
    """A slow query as stores keep it: a JSON list in the order of the fields."""
    return json.dumps(astuple(query), ensure_ascii=False, separators=(",", ":"))


def decode(text: str) -> SlowQuery:
    """What `encode` gave. Fields that a newer version added and this text lacks cannot be had: ValueError."""
    values = json.loads(text)
    if not isinstance(values, list) or len(values) < len(_FIELDS):
        raise ValueError("not a slow query as it was stored")
    return SlowQuery(*values[: len(_FIELDS)])


def _shape(queries: Sequence[tuple[datetime, SlowQuery]]) -> Shape:
    durations = sorted(query.duration_millis for _, query in queries)
    last_time, last = max(queries, key=lambda timed: timed[0])
    sums = slow.Shape(
        namespace=last.namespace,
        operation=last.operation,
        predicate_shape=last.predicate_shape,
        sort_shape=last.sort_shape,
        count=len(queries),
        docs_examined=sum(query.docs_examined for _, query in queries),
        docs_returned=sum(query.docs_returned for _, query in queries),
        collection_scans=sum(query.collection_scan for _, query in queries),
        sorts_in_memory=sum(query.sorted_in_memory for _, query in queries),
        plan_summary=last.plan_summary,
    )
    return Shape(
        namespace=sums.namespace,
        operation=sums.operation,
        predicate_shape=sums.predicate_shape,
        sort_shape=sums.sort_shape,
        count=sums.count,
        p50_millis=_quantile(durations, 0.5),
        p95_millis=_quantile(durations, 0.95),
        total_millis=sum(durations),
        keys_examined=sum(query.keys_examined for _, query in queries),
        docs_examined=sums.docs_examined,
        docs_returned=sums.docs_returned,
        collection_scans=sums.collection_scans,
        sorts_in_memory=sums.sorts_in_memory,
        plan_summary=last.plan_summary,
        last_time=last_time,
        advice=slow.advise(sums),
    )


def _quantile(ordered: Sequence[int], quantile: float) -> int:
    """The nearest rank: always one of the values."""
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]
