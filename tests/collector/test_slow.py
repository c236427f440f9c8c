"""Slow queries: which belong together, and the index that would help."""

import json
from typing import Any

import pytest

from collector import logs, slow
from collector.redaction import redacted
from tests.collector.test_logs import line


def seen(command: dict[str, Any], **attributes: Any) -> slow.SlowQuery:
    told = {"type": "command", "ns": "shop.orders", "command": command, "planSummary": "COLLSCAN"} | attributes
    parsed = logs.parse(line(attributes=told))
    query = slow.slow_query(parsed)
    assert query is not None
    assert slow.slow_query(redacted(parsed)) == query, "redaction changes the shape"
    return query


def find(predicate: dict[str, Any], order: dict[str, Any] | None = None) -> slow.SlowQuery:
    return seen({"find": "orders", "filter": predicate, **({"sort": order} if order else {}), "$db": "shop"})


def shape(predicate: dict[str, Any], order: dict[str, Any] | None = None, **changes: Any) -> slow.Shape:
    query = find(predicate, order)
    figures: dict[str, Any] = {
        "count": 10,
        "docs_examined": 50_000,
        "docs_returned": 100,
        "collection_scans": 10,
        "sorts_in_memory": 0,
    } | changes
    return slow.Shape(query.namespace, query.operation, query.predicate_shape, query.sort_shape, **figures)


def keys(predicate: dict[str, Any], order: dict[str, Any] | None = None, **changes: Any) -> dict[str, int] | None:
    advice = slow.advise(shape(predicate, order, **changes))
    return None if advice is None else dict(json.loads(advice.keys))


def test_what_a_slow_query_cost() -> None:
    command = {"find": "orders", "filter": {"status": "open", "n": {"$gt": 5}}, "sort": {"b": -1, "a": 1}}
    figures = {"keysExamined": 3, "docsExamined": 4000, "nreturned": 2, "durationMillis": 120, "hasSortStage": True}
    assert seen(command, **figures) == slow.SlowQuery(
        namespace="shop.orders",
        operation="find",
        predicate_shape='{"n": {"$gt": "?int"}, "status": "?string"}',
        sort_shape='{"b": -1, "a": 1}',
        plan_summary="COLLSCAN",
        duration_millis=120,
        keys_examined=3,
        docs_examined=4000,
        docs_returned=2,
        collection_scan=True,
        sorted_in_memory=True,
    )


def test_literals_and_the_order_of_conditions_make_no_difference() -> None:
    assert find({"a": 1, "b": {"$in": [1, 2, 3]}}) == find({"b": {"$in": [4]}, "a": {"$eq": 7}})
    assert find({"$or": [{"a": 1}, {"b": 2}]}) == find({"$or": [{"b": 3}, {"a": 4}, {"a": 5}]})
    assert find({"a": 1}) != find({"a": {"$gt": 1}})
    assert find({}, {"a": 1, "b": 1}) != find({}, {"b": 1, "a": 1})


@pytest.mark.parametrize(
    ("command", "changes", "operation", "predicate"),
    [
        (
            {"aggregate": "orders", "pipeline": [{"$match": {"a": 1}}, {"$group": {"_id": "$b"}}]},
            {},
            "aggregate",
            '{"a": "?int"}',
        ),
        ({"aggregate": "orders", "pipeline": [{"$group": {"_id": "$b"}}, {"$match": {"a": 1}}]}, {}, "aggregate", "{}"),
        ({"count": "orders", "query": {"a": 1}}, {}, "count", '{"a": "?int"}'),
        ({"distinct": "orders", "key": "b", "query": {"a": 1}}, {}, "distinct", '{"a": "?int"}'),
        ({"q": {"a": 1}, "u": {"$set": {"b": 1}}}, {"type": "update"}, "update", '{"a": "?int"}'),
        ({"q": {"a": 1}, "limit": 0}, {"type": "remove"}, "remove", '{"a": "?int"}'),
        ({"findAndModify": "orders", "query": {"a": 1}}, {}, "findAndModify", '{"a": "?int"}'),
        (
            {"getMore": 7, "collection": "orders"},
            {"originatingCommand": {"find": "orders", "filter": {"a": 1}}},
            "getMore",
            '{"a": "?int"}',
        ),
    ],
)
def test_each_operation(command: dict[str, Any], changes: dict[str, Any], operation: str, predicate: str) -> None:
    query = seen(command, **changes)
    assert (query.operation, query.predicate_shape) == (operation, predicate)


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "type": "command",
            "ns": "shop.$cmd",
            "command": {"update": "orders", "ordered": True},
        },  # its statements count
        {"type": "command", "ns": "admin.$cmd", "command": {"hello": 1}},
        {"type": "command", "ns": "local.oplog.rs", "command": {"find": "oplog.rs"}, "planSummary": "COLLSCAN"},
        {"type": "command", "ns": "shop.orders"},
        {"command": []},
        {},
    ],
)
def test_what_is_no_slow_query_of_a_user(attributes: dict[str, Any]) -> None:
    assert slow.slow_query(logs.parse(line(attributes=attributes))) is None


def test_another_message_is_no_slow_query() -> None:
    attributes = {"ns": "shop.orders", "command": {"find": "orders"}, "planSummary": "COLLSCAN"}
    assert slow.slow_query(logs.parse(line(attributes=attributes, id=51803))) is not None
    assert slow.slow_query(logs.parse(line(attributes=attributes, id=51800))) is None


def test_a_shape_is_bounded() -> None:
    query = find({f"field{number}": number for number in range(1000)})
    assert len(query.predicate_shape) < 100
    assert keys({f"field{number}": number for number in range(1000)}) is None


@pytest.mark.parametrize(
    ("predicate", "order", "expected"),
    [
        ({"status": "open"}, None, {"status": 1}),
        ({"n": {"$gt": 5}, "status": "open"}, {"created": -1}, {"status": 1, "created": -1, "n": 1}),
        ({"b": {"$in": [1, 2]}, "a": None}, None, {"a": 1, "b": 1}),
        ({"n": {"$gt": 5}}, {"n": -1}, {"n": -1}),
        ({"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1}),
        ({}, {"created": -1}, {"created": -1}),
        ({"$and": [{"a": 1}, {"n": {"$lt": 3}}]}, None, {"a": 1, "n": 1}),
        ({"tags": {"$elemMatch": {"k": "x", "v": {"$gt": 1}}}}, None, {"tags.k": 1, "tags.v": 1}),
        ({"name": {"$regularExpression": {"pattern": "^a", "options": ""}}, "a": 1}, None, {"a": 1, "name": 1}),
        ({"address": {"city": "Bern"}}, None, {"address": 1}),
        ({"$or": [{"a": 1}, {"b": 2}]}, None, {"a": 1}),
        ({"a": {"$ne": 1}}, None, None),  # selects nearly everything
        ({"$expr": {"$eq": ["$a", 1]}}, None, None),
        ({"$text": {"$search": "x"}, "a": 1}, None, None),
        ({"place": {"$near": [1, 2]}}, None, None),
        ({"_id": 7}, None, None),
        ({}, None, None),
    ],
)
def test_equality_then_sort_then_range(
    predicate: dict[str, Any], order: dict[str, Any] | None, expected: dict[str, int] | None
) -> None:
    found = keys(predicate, order, sorts_in_memory=10 if order else 0)
    assert found == expected
    assert list(found or {}) == list(expected or {})


def test_the_reason_says_what_is_bad_and_why_this_index() -> None:
    advice = slow.advise(shape({"n": {"$gt": 5}, "status": "open"}, {"created": -1}, sorts_in_memory=4))
    assert advice is not None
    assert advice.reason == (
        "The whole collection read by all 10 queries; 500 documents read for each one found; sorted in memory by 4 of"
        " 10 queries. Index: status for equality, then created for the order, so that nothing is sorted, then n for the"
        " range."
    )


@pytest.mark.parametrize(
    ("changes", "is_advised"),
    [
        ({}, True),
        ({"docs_examined": 200}, False),  # small: nothing to gain
        ({"docs_returned": 40_000}, False),  # most of the collection is wanted
        ({"collection_scans": 0}, True),
        ({"collection_scans": 0, "docs_returned": 10_000}, False),
        ({"collection_scans": 0, "docs_returned": 50_000, "sorts_in_memory": 1}, True),
        ({"plan_summary": "IXSCAN { a: 1, b: 1 }"}, False),  # it is there, and used
        ({"plan_summary": "IXSCAN { a: 1 }"}, True),
        ({"plan_summary": "IXSCAN { a: 1, b: 1, c: 1 }"}, False),
        ({"count": 0}, False),
    ],
)
def test_numbers_that_are_a_reason(changes: dict[str, Any], is_advised: bool) -> None:
    assert (slow.advise(shape({"a": 1}, {"b": 1}, **changes)) is not None) == is_advised


@pytest.mark.parametrize("text", ["", "x", "[]", "null", '{"?cut": 9}', '{"$or": 7}', '{"a": {"$elemMatch": 3}}'])
def test_shapes_that_no_agent_sent(text: str) -> None:
    for predicate, order in ((text, "{}"), ("{}", text), (text, text)):
        slow.advise(slow.Shape("shop.orders", "find", predicate, order, 10, 50_000, 1, 10, 10))
