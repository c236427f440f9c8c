"""No value that a user put into a query leaves the node; what an operator needs to read stays."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import logs
from collector.redaction import redact, redacted, scrubbed
from tests.collector.test_logs import line

CANARY, NUMBER = "CANARY", 777_777
FIND = {"find": "orders", "filter": {"name": CANARY}, "$db": "shop"}


def told(**attributes: Any) -> dict[str, Any]:
    """What is left of these attributes, tried for canaries."""
    left = redact(attributes)
    assert CANARY not in json.dumps(left)
    assert str(NUMBER) not in json.dumps(left)
    assert redact(left) == left, "redacting again changes something"
    return left


def test_without_redaction_the_canary_is_in_the_line() -> None:
    raw = line(attributes={"command": FIND, "errMsg": f'dup key: {{ name: "{CANARY}" }}'})
    assert CANARY in logs.attributes_json(logs.parse(raw))
    assert CANARY not in logs.attributes_json(redacted(logs.parse(raw)))


def test_types_stand_for_literals_and_operators_stay() -> None:
    predicate = {
        "a": CANARY,
        "b": {"$gt": NUMBER, "$lte": 7.5, "$exists": True},
        "c": {"$in": [1, 2, 3, "x"]},
        "d": {"$date": "2026-11-26T15:06:35.347Z"},
        "e": [None, True, {"$oid": "6b084afb6e7764f2cfc2e42a"}],
        "f": {"$regularExpression": {"pattern": CANARY, "options": "i"}},
        "g": {"$elemMatch": {"h": {"$numberDecimal": "7.1"}}},
        "$or": [{"a": 1}, {"a": 2}, {"b": CANARY}],
    }
    assert told(command={"find": "orders", "filter": predicate}) == {
        "command": {
            "find": "orders",
            "filter": {
                "a": "?string",
                "b": {"$gt": "?int", "$lte": "?double", "$exists": True},
                "c": {"$in": ["?int", "?string"]},
                "d": "?date",
                "e": ["?null", "?bool", "?objectId"],
                "f": "?regex",
                "g": {"$elemMatch": {"h": "?decimal"}},
                "$or": [{"a": "?int"}, {"b": "?string"}],
            },
        }
    }


def test_how_a_command_was_asked_stays() -> None:
    how = {
        "sort": {"a": 1, "b": -1, "c": {"$meta": "textScore"}},
        "limit": 5,
        "skip": 2,
        "batchSize": 100,
        "maxTimeMS": 50,
    }
    asked = FIND | how | {"hint": {"a": 1}, "readConcern": {"level": "majority"}, "projection": {"a": 1, "_id": 0}}
    left = told(command=asked)["command"]
    assert left == asked | {"filter": {"name": "?string"}}


def test_noise_goes() -> None:
    noise = {"lsid": {"id": {"$uuid": "x"}}, "$clusterTime": {"signature": {"keyId": 1}}}
    assert told(command=FIND | noise) == told(command=FIND)


def test_names_in_stages_stay_and_values_go() -> None:
    stages: list[dict[str, Any]] = [
        {"$match": {"status": CANARY, "from": CANARY}},
        {"$lookup": {"from": "items", "localField": "a", "foreignField": "b", "as": "c", "let": {"v": CANARY}}},
        {"$unwind": "$c"},
        {"$addFields": {"from": f"{CANARY} {CANARY}", "as": {"$literal": CANARY}, "path": "$c.d"}},
        {"$group": {"_id": "$name", "n": {"$sum": NUMBER}}},
        {"$sort": {"n": -1}},
        {"$limit": 3},
        {"$out": "summary"},
    ]
    left = told(command={"aggregate": "orders", "pipeline": stages})["command"]["pipeline"]
    assert left[0] == {"$match": {"status": "?string", "from": "?string"}}
    assert left[1] == {"$lookup": stages[1]["$lookup"] | {"let": {"v": "?string"}}}
    assert left[2:] == [
        {"$unwind": "$c"},
        {"$addFields": {"from": "?string", "as": {"$literal": "?string"}, "path": "$c.d"}},
        {"$group": {"_id": "$name", "n": {"$sum": "?int"}}},
        {"$sort": {"n": -1}},
        {"$limit": 3},
        {"$out": "summary"},
    ]


@pytest.mark.parametrize(
    "command",
    [
        {"q": {"a": CANARY}, "u": {"$set": {"b": CANARY}, "$push": {"c": {"$each": [NUMBER]}}}, "multi": True},
        {"q": {}, "u": [{"$set": {"b": {"$concat": ["$a", CANARY]}}}]},
        {"update": "orders", "updates": [{"q": {"a": CANARY}, "u": {"b": NUMBER}}]},
        {"insert": "orders", "documents": [{"a": CANARY}, {"b": [NUMBER]}]},
        {"findAndModify": "orders", "query": {"a": CANARY}, "update": {"b": CANARY}, "arrayFilters": [{"e": CANARY}]},
        {"explain": {"find": "orders", "filter": {"a": CANARY}}, "verbosity": "queryPlanner"},
        {"mapReduce": "orders", "map": {"$code": f"emit('{CANARY}')"}, "query": {"a": CANARY}},
        {"find": "orders", "filter": {"$where": f"this.a == '{CANARY}'"}, "comment": CANARY, "let": {"v": CANARY}},
        {"distinct": "orders", "key": "a", "query": {"b": CANARY}},
        {"aggregate": 1, "pipeline": [{"$match": {"$expr": {"$eq": ["$a", CANARY]}}}]},
        {"find": "orders", "min": {"a": CANARY}, "max": {"a": NUMBER}},
        {"create": "orders", "validator": {"$jsonSchema": {"properties": {"a": {"enum": [CANARY]}}}}},
        {"someNewCommand": CANARY, "withAnything": [{"a": CANARY}]},
        {"find": "orders", "filter": {"a": {"$binary": {"base64": CANARY, "subType": "0"}}}},
        {"find": "orders", "filter": {"a": {"$date": CANARY}, "b": {"$numberLong": str(NUMBER)}}},
    ],
)
def test_each_way_to_put_a_value_into_a_command(command: dict[str, Any]) -> None:
    for name in ("command", "originatingCommand", "commandArgs", "cmd", "cmdObj"):
        told(**{name: command})
    told(deep={"er": [{"command": command}]})


@pytest.mark.parametrize(
    "attributes",
    [
        {"error": {"code": 11000, "keyValue": {"email": CANARY}, "errmsg": f'dup key: {{ email: "{CANARY}" }}'}},
        {"stats": {"stage": "COLLSCAN", "filter": {"a": {"$eq": CANARY}}, "nReturned": 0}},
        {"document": {"a": CANARY}, "errInfo": {"failingDocumentId": {"$oid": CANARY}}},
        {"chunk": {"min": {"customer": CANARY}, "max": {"customer": NUMBER}}},
        {"properties": {"key": {"a": 1}, "partialFilterExpression": {"a": CANARY}}},
        {"anything": {"a": {"$gte": NUMBER}}},
        {"query": f'ns: shop.orders query: {{ a: "{CANARY}", n: {{ $gt: {NUMBER} }} }} sort: {{}}'},
        {"comment": CANARY},
    ],
)
def test_other_attributes_with_values_of_users(attributes: dict[str, Any]) -> None:
    told(**attributes)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('E11000 index: email_1 dup key: { email: "CANARY" }', 'E11000 index: email_1 dup key: { email: "?" }'),
        ('dup key: { a: "CANARY", b: "it "is" CANARY" }', 'dup key: { a: "?" }'),
        ("dup key: { n: 777777, d: -1.5e10 }", "dup key: { n: ?, d: ? }"),
        ("dup key: { _id: ObjectId('CANARY') }", "dup key: { _id: ObjectId('?') }"),
        ("dup key: { b: BinData(0, 43414E415259) }", "dup key: { b: BinData(?) }"),
        ("x: { a: /^CANARY/i }", "x: { a: /?/i }"),
        ('cut off: { a: "CANARY', 'cut off: { a: "?" }'),
        ("cut off: { a: 777777", "cut off: { a: ?"),
        ("Failed to parse number 'CANARY' in $convert", "Failed to parse number '?' in $convert"),
        ("name 'O'CANARY' is taken", "name '?' is taken"),
        ('said "CANARY", then "CANARY"', 'said "?"'),
        ("unknown operator '$nearby'", "unknown operator '$nearby'"),
        ("can't connect to 127.0.0.1:27017 :: caused by :: it's down", None),
        ("Slow query", None),
    ],
)
def test_prose_that_quotes_values(text: str, left: str | None) -> None:
    assert scrubbed(text) == (text if left is None else left)
    assert scrubbed(scrubbed(text)) == scrubbed(text)


def test_what_an_operator_reads_stays() -> None:
    attributes = {
        "type": "command",
        "ns": "shop.orders",
        "planSummary": 'IXSCAN { a: 1, b: -1 }, IXSCAN { c: "text" }',
        "keysExamined": 7,
        "remote": "10.0.0.1:5050",
        "locks": {"Global": {"acquireCount": {"r": 4}}},
        "uuid": {"uuid": {"$uuid": "7d5a"}},
        "options": {"net": {"port": 27017, "bindIp": "10.0.0.1"}},
        "doc": {"driver": {"name": "PyMongo", "version": "4.20"}},
        "error": "HostUnreachable: Connection refused",
        "newState": "SECONDARY",
    }
    assert told(**attributes) == attributes


def test_debug_lines_are_taken_for_users_documents() -> None:
    attributes = {"whatever": {"a": CANARY, "n": NUMBER}, "count": 7}
    debug = redacted(logs.parse(line(severity="D2", attributes=attributes)))
    assert debug.attributes == {"whatever": {"a": "?string", "n": "?int"}, "count": 7}
    # Elsewhere a document without any sign of a query is a statistic.
    assert redacted(logs.parse(line(attributes=attributes))).attributes == attributes


def test_a_document_deeper_than_any_query() -> None:
    deep: Any = CANARY
    for _ in range(200):
        deep = {"a": [deep]}
    told(command={"find": "orders", "filter": deep}, query=deep, other={"$x": deep})


NAMES = st.sampled_from(
    ["a", "b.c", "$gt", "$in", "$or", "$eq", "$elemMatch", "$not", "$expr", "$literal", "$set", "_id"]
)
LITERALS = st.sampled_from(
    [
        CANARY,
        f'"{CANARY}"',
        f"${CANARY} x",
        f"?{CANARY}",
        NUMBER,
        NUMBER + 0.5,
        {"$oid": CANARY},
        {"$date": CANARY},
        None,
    ]
)
QUERIES = st.recursive(
    LITERALS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
).filter(lambda query: isinstance(query, dict))
PLACES = st.sampled_from(["filter", "query", "q", "u", "update", "updates", "documents", "let", "comment", "unheardOf"])


@given(st.dictionaries(PLACES, QUERIES), QUERIES)
def test_whatever_the_query_no_literal_is_left(places: dict[str, Any], query: dict[str, Any]) -> None:
    told(command={"find": "orders", **places, "pipeline": [{"$match": query}, {"$project": {"x": query}}]})
    told(filter=query, other={"$and": [query]})
