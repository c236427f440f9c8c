"""What happens to an hour of samples when it is over, and to tables that are too old.

Each function is part of one transaction of the store's writer, and may be repeated: an hour that is rolled up again,
since something came in late, takes the place of its earlier roll-up.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import duckdb

from controlplane.telemetry.duckdb_tables import FAMILIES, HOUR_MILLIS, OPEN, Catalog, Table, table_at
from controlplane.telemetry.grid import DAYS, HOURS, MINUTES, SAMPLES, TIERS, Tier

# What comes in later than this after its hour costs a second roll-up.
GRACE = timedelta(minutes=5)
DAY_MILLIS = 24 * HOUR_MILLIS
_KEPT = {OPEN: SAMPLES.kept, **{tier.name: tier.kept for tier in TIERS}}


def hours_to_close(catalog: Catalog, now: datetime) -> list[int]:
    """Hours that are over and not rolled up as they are now, the oldest first."""
    over = millis(now - GRACE) - HOUR_MILLIS
    return sorted(hour for hour, state in catalog.hours.items() if state in ("open", "late") and hour <= over)


def close_hour(connection: duckdb.DuckDBPyConnection, catalog: Catalog, hour: int) -> None:
    """Move the hour's samples to the table of their day, and roll them up."""
    for family in FAMILIES:
        source = table_at(family, OPEN, hour)
        metrics = catalog.tables.get(source)
        if metrics is not None:
            _move(connection, catalog, source, metrics)
            _roll_up_hour(connection, catalog, family, hour)
    catalog.mark(connection, {hour: "closed"})


def tables_too_old(catalog: Catalog, now: datetime) -> list[Table]:
    """Tables that hold nothing that is to be kept."""
    return [
        table
        for table in sorted(catalog.tables)
        if (kept := _KEPT[table.tier]) is not None and table.end <= millis(now - kept)
    ]


def tables_by_worth(catalog: Catalog) -> list[list[Table]]:
    """What to drop when the disk is full, the least missed first: days of samples, days of minutes, hours, months.

    The hour that is being written, the newest month and what is kept for ever are not in it.
    """
    periods = {
        tier: [
            [table for table in catalog.tables if table.tier == tier and table.start == start]
            for start in sorted({table.start for table in catalog.tables if table.tier == tier})
        ]
        for tier in (SAMPLES.name, MINUTES.name, OPEN, HOURS.name)
    }
    samples, minutes, hours, months = periods.values()
    return [*samples[:-1], *minutes[:-1], *samples[-1:], *minutes[-1:], *hours[:-1], *months[:-1]]


def millis(time: datetime) -> int:
    """Milliseconds since 1970."""
    return round(time.timestamp() * 1000)


def _move(connection: duckdb.DuckDBPyConnection, catalog: Catalog, source: Table, metrics: Iterable[str]) -> None:
    day = table_at(source.family, SAMPLES.name, source.start)
    catalog.ensure(connection, day, metrics)
    columns = _columns(day, sorted(metrics))
    connection.execute(
        f"INSERT INTO {day.name} ({columns}) SELECT {columns} FROM {source.name} ORDER BY node, object, millis"
    )
    catalog.drop(connection, source)


def _roll_up_hour(connection: duckdb.DuckDBPyConnection, catalog: Catalog, family: str, hour: int) -> None:
    samples = table_at(family, SAMPLES.name, hour)
    minutes = table_at(family, MINUTES.name, hour)
    hours = table_at(family, HOURS.name, hour)
    days = table_at(family, DAYS.name, hour)
    day = hour // DAY_MILLIS * DAY_MILLIS
    _roll_up(connection, catalog, samples, minutes, MINUTES, (hour, hour + HOUR_MILLIS))
    _roll_up(connection, catalog, minutes, hours, HOURS, (hour, hour + HOUR_MILLIS))
    _roll_up(connection, catalog, hours, days, DAYS, (day, day + DAY_MILLIS))


def _roll_up(
    connection: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    source: Table,
    target: Table,
    tier: Tier,
    between: tuple[int, int],
) -> None:
    """Make the target's rows of [start, end) anew from the source's."""
    metrics = sorted(catalog.tables[source])
    catalog.ensure(connection, target, metrics)
    step = tier.step // timedelta(milliseconds=1)
    parts = ", ".join(part for metric in metrics for part in _parts(source, metric))
    connection.execute(f"DELETE FROM {target.name} WHERE millis >= ? AND millis < ?", between)
    connection.execute(
        f"INSERT INTO {target.name} ({_columns(target, metrics)}) "
        f"SELECT node, object, millis // {step} * {step}, {parts} FROM {source.name} "
        "WHERE millis >= ? AND millis < ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        between,
    )


def _parts(source: Table, metric: str) -> list[str]:
    if not source.rolled_up:
        (value,) = source.columns_of(metric)
        return [f"avg({value})", f"min({value})", f"max({value})", f"nullif(count({value}), 0)"]
    average, minimum, maximum, count = source.columns_of(metric)
    return [f"sum({average}::DOUBLE * {count}) / sum({count})", f"min({minimum})", f"max({maximum})", f"sum({count})"]


def _columns(table: Table, metrics: Iterable[str]) -> str:
    return ", ".join(
        ("node", "object", "millis", *(column for metric in metrics for column in table.columns_of(metric)))
    )
