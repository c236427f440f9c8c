"""The tables of the embedded metric store, by tier and period, so that keeping less is DROP TABLE.

Two families: `node` for what nodes say of themselves, `object` for namespaces and disks within them. A table is as wide
as its family has metrics: a column each for samples, four (average, minimum, maximum, count) where samples are rolled up.
Columns come with the first sample of a metric. Values are FLOAT: seven digits are enough to draw and to alarm, and take
half the room of DOUBLE. Times are milliseconds since 1970.

What comes in goes to `open` tables of one hour in the order it comes. When the hour is over it is moved, in the order of
nodes, to the table of its day: neighbours are alike then, and take about two thirds of the room.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from controlplane.telemetry.grid import DAYS, HOURS, MINUTES, SAMPLES

OPEN = "open"
HOUR_MILLIS = 3_600_000
NODE, OBJECT = "node", "object"
FAMILIES = (NODE, OBJECT)
PARTS = ("avg", "min", "max", "n")
# strftime of the period that one table holds: hour, day, month or year, by how long the tier is kept.
_PERIODS = {OPEN: "%Y%m%d%H", SAMPLES.name: "%Y%m%d", MINUTES.name: "%Y%m%d", HOURS.name: "%Y%m", DAYS.name: "%Y"}
_NAME = re.compile(rf"({NODE}|{OBJECT})_({'|'.join(_PERIODS)})_(\d+)")
_KEY = ("node", "object", "millis")


@dataclass(frozen=True, slots=True, order=True)
class Table:
    """One table: rows of [start, end), in milliseconds since 1970."""

    start: int
    end: int
    tier: str
    family: str

    @property
    def name(self) -> str:
        """Its name in the database."""
        return f"{self.family}_{self.tier}_{_moment(self.start).strftime(_PERIODS[self.tier])}"

    @property
    def rolled_up(self) -> bool:
        """Whether it has four columns for each metric."""
        return self.tier not in (OPEN, SAMPLES.name)

    def columns_of(self, metric: str) -> list[str]:
        """The quoted columns of a metric."""
        return [quoted(f"{metric}|{part}") for part in PARTS] if self.rolled_up else [quoted(metric)]


def table_at(family: str, tier: str, millis: int) -> Table:
    """The table that holds a moment."""
    text = _moment(millis).strftime(_PERIODS[tier])
    return Table(*_period(tier, text), tier, family)


def table_named(name: str) -> Table | None:
    """The table of this name; None for a name that is none."""
    match = _NAME.fullmatch(name)
    return Table(*_period(match[2], match[3]), match[2], match[1]) if match else None


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


@dataclass
class Catalog:
    """Which tables there are with which metrics, and how far each hour has come; as of the last finished write."""

    tables: dict[Table, frozenset[str]] = field(default_factory=dict)
    # Hours with data: open (never rolled up), closed, late (closed, and something came in since), gone
    # (the samples were dropped to make room).
    hours: dict[int, str] = field(default_factory=dict)

    def copy(self) -> "Catalog":
        """One to change while others read this one."""
        return Catalog(dict(self.tables), dict(self.hours))

    def within(self, family: str, tiers: Iterable[str], start: int, end: int) -> Iterator[Table]:
        """Tables of these tiers that may have rows in [start, end), the oldest first."""
        wanted = set(tiers)
        for table in sorted(self.tables):
            if table.family == family and table.tier in wanted and table.start < end and table.end > start:
                yield table

    def ensure(self, connection: duckdb.DuckDBPyConnection, table: Table, metrics: Iterable[str]) -> None:
        """Have the table, with columns for these metrics."""
        known = self.tables.get(table)
        missing = sorted(set(metrics) - (known or frozenset()))
        columns = [
            f"{column} {'UINTEGER' if column.endswith('|n' + chr(34)) else 'FLOAT'}"
            for metric in missing
            for column in table.columns_of(metric)
        ]
        if known is None:
            rows = ", ".join(("node VARCHAR, object VARCHAR, millis BIGINT", *columns))
            connection.execute(f"CREATE TABLE {table.name} ({rows})")
        else:
            for column in columns:
                connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {column}")
        self.tables[table] = (known or frozenset()) | frozenset(missing)

    def drop(self, connection: duckdb.DuckDBPyConnection, table: Table) -> None:
        """Drop the table."""
        connection.execute(f"DROP TABLE {table.name}")
        del self.tables[table]

    def mark(self, connection: duckdb.DuckDBPyConnection, hours: Mapping[int, str]) -> None:
        """Set how far hours have come."""
        changed = {hour: state for hour, state in hours.items() if self.hours.get(hour) != state}
        for hour, state in changed.items():
            connection.execute("INSERT OR REPLACE INTO hours VALUES (?, ?)", [hour, state])
        self.hours.update(changed)

    def forget_hours(self, connection: duckdb.DuckDBPyConnection, before: int) -> None:
        """Drop the marks of hours that have no samples any more."""
        connection.execute("DELETE FROM hours WHERE millis < ?", [before])
        self.hours = {hour: state for hour, state in self.hours.items() if hour >= before}


def read_catalog(connection: duckdb.DuckDBPyConnection) -> Catalog:
    """The catalogue of a database, which may be empty."""
    connection.execute("CREATE TABLE IF NOT EXISTS hours (millis BIGINT PRIMARY KEY, state VARCHAR)")
    catalog = Catalog(hours=dict(connection.execute("SELECT millis, state FROM hours").fetchall()))
    found = connection.execute("SELECT table_name, list(column_name) FROM duckdb_columns() GROUP BY 1").fetchall()
    for name, columns in found:
        table = table_named(name)
        if table is not None:
            catalog.tables[table] = _metrics(table, columns)
    return catalog


def _metrics(table: Table, columns: Sequence[str]) -> frozenset[str]:
    if table.rolled_up:
        return frozenset(column.removesuffix("|avg") for column in columns if column.endswith("|avg"))
    return frozenset(columns) - frozenset(_KEY)


def _period(tier: str, text: str) -> tuple[int, int]:
    start = datetime.strptime(text, _PERIODS[tier]).replace(tzinfo=UTC)
    begin = int(start.timestamp()) * 1000
    match _PERIODS[tier]:
        case "%Y":
            return begin, int(start.replace(year=start.year + 1).timestamp()) * 1000
        case "%Y%m":
            later = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
            return begin, int(later.timestamp()) * 1000
        case "%Y%m%d":
            return begin, begin + 24 * HOUR_MILLIS
        case _:
            return begin, begin + HOUR_MILLIS


def _moment(millis: int) -> datetime:
    return datetime.fromtimestamp(millis // 1000, UTC)
