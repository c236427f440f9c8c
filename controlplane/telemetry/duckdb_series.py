"""Reading series from the tables of the embedded metric store: one statement for all metrics of a query.

An hour that is not rolled up yet is read from its samples, every other from the coarsest tier that the grid's steps can be
made of; averages are weighted by counts, so that both give the same answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from controlplane.telemetry.duckdb_rollup import millis
from controlplane.telemetry.duckdb_tables import FAMILIES, NODE, OPEN, Catalog, Table, quoted
from controlplane.telemetry.grid import HOURS, MINUTES, SAMPLES, coarsest_for, end_of
from controlplane.telemetry.port import MetricQuery, Series

Columns = Mapping[str, NDArray[Any]]


def read_series(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, query: MetricQuery) -> list[Series]:
    """The series of a query, by node, metric, object."""
    found: list[Series] = []
    for family in FAMILIES:
        if query.object is None or (query.object == "") == (family == NODE):
            found += _family(cursor, catalog, query, family)
    return sorted(found, key=lambda series: (series.node_id, series.metric, series.object))


def read_quantiles(
    cursor: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    metric: str,
    node_ids: Sequence[str],
    between: tuple[datetime, datetime],
    quantile: float,
) -> dict[str, float]:
    """The quantile of each node's samples, or of its minutes' or hours' averages where the samples are gone or too many.

    The quantiles 0 and 1 are the true minimum and maximum in any case.
    """
    start, end = millis(between[0]), millis(between[1])
    part = {0.0: "min", 1.0: "max"}.get(quantile, "avg")
    tier = _tier_for_quantiles(catalog, start, end)
    tables = [table for table in _sources(catalog, NODE, tier, start, end) if metric in catalog.tables[table]]
    if not tables or not node_ids:
        return {}
    rows = " UNION ALL ".join(_values(table, metric, part, node_ids, start, end) for table in tables)
    found = cursor.execute(
        f"SELECT node, quantile_cont(value, {float(quantile)}) FROM ({rows}) WHERE value IS NOT NULL GROUP BY node",
        list(node_ids) * len(tables),
    ).fetchall()
    return {node: float(value) for node, value in found}


def _family(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, query: MetricQuery, family: str) -> list[Series]:
    start, end = millis(query.grid.start), millis(end_of(query.grid))
    tables = list(_sources(catalog, family, coarsest_for(query.grid).name, start, end))
    metrics = [metric for metric in query.metrics if any(metric in catalog.tables[table] for table in tables)]
    if not metrics or not query.node_ids:
        return []
    parameters: list[str] = []
    selects = []
    for table in tables:
        where = f"millis >= {start} AND millis < {end} AND node IN ({_marks(query.node_ids)})"
        parameters += query.node_ids
        if query.object:
            where += " AND object = ?"
            parameters.append(query.object)
        selects.append(_select(table, catalog.tables[table], metrics, where))
    step = query.grid.step // timedelta(milliseconds=1)
    cells = ", ".join(_aggregate(index) for index in range(len(metrics)))
    statement = (
        f"SELECT node, object, (millis - {start}) // {step} AS step, {cells} "
        f"FROM ({' UNION ALL '.join(selects)}) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return _series(cursor.execute(statement, parameters).fetchnumpy(), metrics, query.grid.count)


def _sources(catalog: Catalog, family: str, tier: str, start: int, end: int) -> Iterable[Table]:
    """Tables to read: together they hold every sample of [start, end) once."""
    yield from catalog.within(family, (tier,), start, end)
    for table in catalog.within(family, (OPEN,), start, end):
        # What came in late for an hour is in its roll-up after the next upkeep; to count it here would count twice.
        if tier == SAMPLES.name or catalog.hours.get(table.start) == "open":
            yield table


def _select(table: Table, known: frozenset[str], metrics: Sequence[str], where: str) -> str:
    cells = []
    for index, metric in enumerate(metrics):
        if metric not in known:
            names = ["NULL::FLOAT"] * 3 + ["NULL::UINTEGER"]
        elif table.rolled_up:
            names = table.columns_of(metric)
        else:
            (value,) = table.columns_of(metric)
            names = [value, value, value, f"CASE WHEN {value} IS NULL THEN NULL ELSE 1 END"]
        cells += [f"{name} AS {part}{index}" for name, part in zip(names, "alhn", strict=True)]
    return f"SELECT node, object, millis, {', '.join(cells)} FROM {table.name} WHERE {where}"


def _aggregate(index: int) -> str:
    return (
        f"sum(a{index}::DOUBLE * n{index}) / sum(n{index}) AS a{index}, "
        f"min(l{index})::DOUBLE AS l{index}, max(h{index})::DOUBLE AS h{index}"
    )


def _series(found: Columns, metrics: Sequence[str], count: int) -> list[Series]:
    """Rows by node, object and step, as series with gaps."""
    nodes, objects, steps = found["node"], found["object"], found["step"]
    if not len(nodes):
        return []
    begins = np.flatnonzero((nodes[1:] != nodes[:-1]) | (objects[1:] != objects[:-1])) + 1
    series = []
    for first, last in zip([0, *begins], [*begins, len(nodes)], strict=True):
        for index, metric in enumerate(metrics):
            columns = [_spread(found[f"{part}{index}"][first:last], steps[first:last], count) for part in "alh"]
            if columns[0] is not None:
                series.append(Series(str(nodes[first]), metric, str(objects[first]), *(c or [] for c in columns)))
    return series


def _spread(values: NDArray[Any], steps: NDArray[Any], count: int) -> list[float | None] | None:
    """The values at their steps and None elsewhere; None where there is no value at all."""
    absent = np.ma.getmaskarray(values)
    if absent.all():
        return None
    spread: list[float | None] = [None] * count
    for step, value, gone in zip(steps.tolist(), np.ma.getdata(values).tolist(), absent.tolist(), strict=True):
        if not gone:
            spread[int(step)] = value
    return spread


def _tier_for_quantiles(catalog: Catalog, start: int, end: int) -> str:
    span = timedelta(milliseconds=end - start)
    if span <= timedelta(hours=12) and _reaches_back(catalog, SAMPLES.name, start):
        return SAMPLES.name
    if span <= timedelta(days=7) and _reaches_back(catalog, MINUTES.name, start):
        return MINUTES.name
    return HOURS.name


def _reaches_back(catalog: Catalog, tier: str, start: int) -> bool:
    """Whether this tier holds all that any coarser tier holds from `start` on."""
    oldest = min((table.start for table in catalog.tables if table.tier == tier), default=None)
    coarser = min((table.start for table in catalog.tables if table.tier == HOURS.name), default=None)
    return coarser is None or (oldest is not None and (oldest <= start or oldest <= coarser))


def _values(table: Table, metric: str, part: str, node_ids: Sequence[str], start: int, end: int) -> str:
    column = quoted(f"{metric}|{part}") if table.rolled_up else quoted(metric)
    where = f"millis >= {start} AND millis < {end} AND node IN ({_marks(node_ids)})"
    return f"SELECT node, {column}::DOUBLE AS value FROM {table.name} WHERE {where}"


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
