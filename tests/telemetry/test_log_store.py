"""What every log store does: one suite, run against each."""

import random
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from mypy_boto3_logs import CloudWatchLogsClient

from controlplane.telemetry.cloudwatch_logs import CloudWatchLogStore
from controlplane.telemetry.duckdb_file import DuckDBFile
from controlplane.telemetry.duckdb_logs import DuckDBLogStore
from controlplane.telemetry.fake_logs import FakeLogStore
from controlplane.telemetry.port import LogLine, LogQuery, LogStore, SlowQuery
from scripts.sandbox import Sandbox

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
SLOW = SlowQuery(
    "shop.orders", "find", '{"status":"?string"}', '{"created":-1}', "COLLSCAN", 120, 0, 9000, 3, True, True
)


@pytest.fixture(scope="module")
def cloudwatch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudWatchLogsClient]:
    """CloudWatch Logs as the sandbox serves it."""
    with Sandbox(tmp_path_factory.mktemp("sandbox"), volumes="directory") as running:
        yield boto3.client(
            "logs",
            endpoint_url=running.endpoint,
            region_name="us-east-1",
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
        )


@pytest.fixture(params=["fake", "duckdb", "cloudwatch"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogStore]:
    if request.param == "fake":
        made: LogStore = FakeLogStore()
    elif request.param == "duckdb":
        made = DuckDBLogStore(DuckDBFile(tmp_path / "logs.duckdb"), segment_rows=100)
    else:
        made = CloudWatchLogStore(f"wap-{secrets.token_hex(4)}", client=request.getfixturevalue("cloudwatch"))
    yield made
    await made.close()


def line(sequence: int, *, node: str = "n1", ago: timedelta = timedelta(0), **fields: object) -> LogLine:
    """A line of `ago` before now; later sequences are later by a millisecond."""
    made = LogLine(
        node, "c1", sequence, NOW - ago + sequence * timedelta(milliseconds=1), "REPL", "I", 21, "Election won"
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def ask(**fields: object) -> LogQuery:
    return replace(LogQuery(["n1", "n2"], NOW - 30 * HOUR, NOW + HOUR), **fields)  # type: ignore[arg-type]


async def search(store: LogStore, **fields: object) -> list[int]:
    """Sequences of the lines found, over all pages."""
    return [found.sequence for found in await everything(store, ask(**fields))]


async def everything(store: LogStore, query: LogQuery) -> list[LogLine]:
    found: list[LogLine] = []
    while True:
        page = await store.search(query)
        assert len(page.lines) <= query.limit
        found += page.lines
        if not page.after:
            return found
        query = replace(query, after=page.after)


async def test_a_line_comes_back_as_it_was_written(store: LogStore) -> None:
    full = line(
        1,
        component="COMMAND",
        severity="W",
        message_id=51803,
        text='Slow "query" – ü \U0001f600 \\',
        context="conn12",
        attributes='{"ns":"shop.orders","durationMillis":120}',
        slow_query=SLOW,
        time=NOW + timedelta(microseconds=123_456),
    )
    await store.write([full, line(2, text="", message_id=0)])
    assert await everything(store, ask()) == [full, line(2, text="", message_id=0)]


async def test_the_newest_come_first_and_only_those_of_the_time_and_the_nodes(store: LogStore) -> None:
    await store.write([line(1, ago=3 * HOUR), line(2, ago=2 * HOUR), line(3, ago=HOUR), line(4, node="n3")])
    await store.write([line(5, node="n2", ago=90 * timedelta(minutes=1))])
    assert await search(store) == [3, 5, 2, 1]
    assert await search(store, node_ids=["n2"]) == [5]
    assert await search(store, node_ids=[]) == []
    assert await search(store, node_ids=["nobody"]) == []
    start, end = line(2, ago=2 * HOUR).time, line(3, ago=HOUR).time
    assert await search(store, start=start, end=end) == [5, 2]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"text": "ELECTION"}, [5, 4, 1]),
        ({"text": "shop.Orders"}, [3, 2]),
        ({"text": "100%_'"}, [2]),
        ({"text": "%"}, [2]),
        ({"text": "nowhere"}, []),
        ({"component": "REPL"}, [5, 4, 1]),
        ({"severities": ("F", "E", "W")}, [4, 2]),
        ({"severities": ("W",)}, [2]),
        ({"severities": ("F", "E")}, [4]),
        ({"message_id": 51803}, [3]),
        ({"message_id": 5180}, []),
        ({"only_slow_queries": True}, [3]),
        ({"text": "election", "severities": ("F", "E"), "component": "REPL", "message_id": 21}, [4]),
        ({"text": "election", "component": "WRITE"}, []),
    ],
)
async def test_filters(store: LogStore, wanted: dict[str, object], found: list[int]) -> None:
    await store.write(
        [
            line(1),
            line(
                2, component="WRITE", severity="W", message_id=7, text="100%_' done", attributes='{"ns":"Shop.orders"}'
            ),
            line(
                3,
                component="COMMAND",
                message_id=51803,
                text="Slow",
                attributes='{"ns":"shop.orders"}',
                slow_query=SLOW,
            ),
            line(4, severity="E"),
            line(5, severity="D1"),
        ]
    )
    assert await search(store, **wanted) == found


async def test_a_line_that_comes_again_counts_once(store: LogStore) -> None:
    lines = [line(sequence) for sequence in range(10)]
    await store.write([*lines[:4], *lines[2:6]])
    await store.write(lines[3:8])
    await store.write([*lines, line(3, node="n2")])
    found = await everything(store, ask(limit=3))
    assert sorted((each.node_id, each.sequence) for each in found) == sorted(
        [("n1", sequence) for sequence in range(10)] + [("n2", 3)]
    )


async def test_a_node_that_lost_its_disk_and_counts_anew_loses_no_line(store: LogStore) -> None:
    before = [line(number, ago=timedelta(minutes=2)) for number in range(10)]
    anew = [line(number, ago=timedelta(minutes=1)) for number in range(5)]
    await store.write(before)
    await store.write(anew)
    await store.write([*before, *anew])
    assert await search(store) == [4, 3, 2, 1, 0, *range(9, -1, -1)]


async def test_pages_join_without_gap_or_repeat_while_lines_come_in(store: LogStore) -> None:
    # Many lines of the same moment, and over several hours and segments.
    ago = [timedelta(hours=number % 5, minutes=number % 7) for number in range(250)]
    lines = [line(number, ago=ago[number], time=NOW - ago[number]) for number in range(250)]
    shuffled = random.Random(3).sample(lines, len(lines))
    await store.write(shuffled[:120])
    await store.write(shuffled[120:])
    first = await store.search(ask(limit=90))
    await store.write([line(number, node="n2", time=NOW + timedelta(minutes=1)) for number in range(20)])
    rest = await everything(store, ask(limit=90, after=first.after))
    assert [*first.lines, *rest] == sorted(lines, key=lambda each: (each.time, each.sequence), reverse=True)


@pytest.mark.parametrize(
    "after", ["x", "!!", "WzFd", "WzEsImEiLCJiIl0", "WzEsMiwzXQ", "e30", "WzFlOTk5LCJhIiwxXQ", "ü"]
)
async def test_a_position_it_did_not_give_is_refused(store: LogStore, after: str) -> None:
    with pytest.raises(ValueError, match="position"):
        await store.search(ask(after=after))


async def test_upkeep_of_young_lines_drops_nothing(store: LogStore) -> None:
    await store.write([line(sequence, ago=HOUR) for sequence in range(5)])
    await store.upkeep(NOW)
    await store.upkeep(NOW)
    assert await search(store) == [4, 3, 2, 1, 0]


async def test_nothing_is_written_and_found_in_an_empty_store(store: LogStore) -> None:
    empty: Sequence[LogLine] = []
    await store.write(empty)
    await store.upkeep(NOW)
    assert await search(store) == []
