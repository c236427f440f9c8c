"""Slow queries by shape: counts, quantiles, and advice for those that need it."""

import json
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collector.logs import parse
from collector.slow import slow_query
from controlplane.telemetry import slow_queries
from controlplane.telemetry.port import LogLine, SlowQuery
from tests.collector.mongod import Mongod
from tests.waiting import wait_until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCAN = SlowQuery("shop.orders", "find", '{"status":"?string"}', "{}", "COLLSCAN", 100, 0, 9000, 3, True, False)


def line(number: int, query: SlowQuery | None, **fields: object) -> LogLine:
    made = LogLine("n1", "c1", number, NOW + timedelta(seconds=number), "COMMAND", "I", 51803, "Slow query")
    return replace(made, slow_query=query, **fields)  # type: ignore[arg-type]


def test_queries_of_one_shape_are_counted_together() -> None:
    lines = [line(number, replace(SCAN, duration_millis=number)) for number in range(1, 101)]
    lines += [line(200, None), line(201, replace(SCAN, namespace="shop.items", duration_millis=9))]
    first, second = slow_queries.group(lines)
    assert (first.namespace, first.operation, first.predicate_shape) == ("shop.orders", "find", '{"status":"?string"}')
    assert (first.count, first.p50_millis, first.p95_millis, first.total_millis) == (100, 50, 95, 5050)
    assert (first.docs_examined, first.docs_returned, first.collection_scans) == (900_000, 300, 100)
    assert first.last_time == lines[99].time
    assert (second.namespace, second.count, second.p50_millis, second.p95_millis) == ("shop.items", 1, 9, 9)


def test_shapes_differ_by_operation_predicate_and_sort_and_the_costly_come_first() -> None:
    others = [
        replace(SCAN, operation="update"),
        replace(SCAN, predicate_shape='{"city":"?string"}', duration_millis=900),
        replace(SCAN, sort_shape='{"created":-1}', duration_millis=500),
    ]
    shapes = slow_queries.group(line(number, query) for number, query in enumerate([SCAN, *others]))
    assert [shape.total_millis for shape in shapes] == [900, 500, 100, 100]


def test_one_namespace_can_be_asked_for() -> None:
    lines = [line(1, SCAN), line(2, replace(SCAN, namespace="shop.items"))]
    assert [shape.namespace for shape in slow_queries.group(lines, "shop.items")] == ["shop.items"]
    assert slow_queries.group(lines, "shop") == []
    assert slow_queries.group([]) == []


def test_the_plan_is_that_of_the_newest() -> None:
    fixed = replace(SCAN, plan_summary="IXSCAN { status: 1 }", collection_scan=False)
    [shape] = slow_queries.group([line(2, fixed), line(1, SCAN)])
    assert shape.plan_summary == "IXSCAN { status: 1 }"
    assert shape.collection_scans == 1


def test_a_bad_shape_carries_advice_and_a_good_one_none() -> None:
    good = replace(SCAN, plan_summary="IXSCAN { status: 1 }", keys_examined=3, docs_examined=3, collection_scan=False)
    [bad] = slow_queries.group(line(number, SCAN) for number in range(10))
    [fine] = slow_queries.group(line(number, good) for number in range(10))
    assert bad.advice is not None
    assert json.loads(bad.advice.keys) == {"status": 1}
    assert bad.advice.reason
    assert fine.advice is None


def test_a_slow_query_comes_back_from_its_stored_form() -> None:
    assert slow_queries.decode(slow_queries.encode(SCAN)) == SCAN
    newer = json.dumps([*astuple(SCAN), "a field of a newer version"])
    assert slow_queries.decode(newer) == SCAN
    for text in ("{}", "[]", "[1,2]", "x", ""):
        with pytest.raises(ValueError, match=r".*"):
            slow_queries.decode(text)


@pytest.fixture
def mongod(mongodb_dir: Path, tmp_path: Path) -> Iterator[Mongod]:
    """A real mongod that logs every operation as slow."""
    made = Mongod(tmp_path, mongodb_dir, "--slowms", "0")
    yield made.start()
    made.destroy()


def test_a_real_mongods_log_gives_shapes_and_advice(mongod: Mongod) -> None:
    orders = mongod.client().shop.orders
    orders.insert_many([{"number": number, "status": f"s{number % 50}", "created": number} for number in range(3000)])
    for number in range(8):
        list(orders.find({"status": f"s{number}"}).sort("created", -1))
    wait_until(lambda: mongod.log.read_text().count('"planSummary":"COLLSCAN"') >= 8, within=20)
    parsed = [slow_query(parse(raw)) for raw in mongod.log.read_bytes().splitlines()]
    lines = [line(number, SlowQuery(*astuple(found))) for number, found in enumerate(parsed) if found]
    [found] = [each for each in slow_queries.group(lines, "shop.orders") if each.operation == "find"]
    assert (found.count, found.collection_scans, found.docs_examined, found.docs_returned) == (8, 8, 24_000, 480)
    assert "s1" not in found.predicate_shape
    assert found.advice is not None
    assert json.loads(found.advice.keys) == {"status": 1, "created": -1}
