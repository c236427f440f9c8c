"""Lines of a log, whatever bytes are in them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import logs, redaction, slow

WHEN = datetime(2026, 11, 26, 15, 6, 35, 599000, tzinfo=UTC)


def line(message: str = "Slow query", severity: str = "I", attributes: Any = None, **changes: Any) -> bytes:
    entry = {
        "t": {"$date": "2026-11-26T15:06:35.599+00:00"},
        "s": severity,
        "c": "COMMAND",
        "id": 51803,
        "ctx": "conn2",
        "msg": message,
        **({} if attributes is None else {"attr": attributes}),
        **changes,
    }
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()


def test_a_line_of_mongod() -> None:
    assert logs.parse(line(attributes={"ns": "shop.orders"})) == logs.Parsed(
        WHEN, "I", "COMMAND", 51803, "conn2", "Slow query", {"ns": "shop.orders"}
    )


def test_local_time_is_utc_here() -> None:
    assert logs.parse(line(t={"$date": "2026-11-26T17:06:35.599+02:00"})).time == WHEN


@pytest.mark.parametrize("text", ["exec: not found", "", "{", '{"t":1}', '{"msg":"no time"}', "[1,2]", '"x"', "null"])
def test_any_other_line_is_text(text: str) -> None:
    assert logs.parse(text.encode()) == logs.Parsed(None, "I", "", 0, "", text)


def test_terminal_codes_and_control_characters_go() -> None:
    hostile = "\x1b[31mred\x1b[0m \x1b]0;title\x07 a\x00b\tc\r\n \u202eback \x9b31m"
    parsed = logs.parse(line(message=hostile, ctx=hostile, attributes={hostile: [hostile, {"deep": hostile}]}))
    told = parsed.text + parsed.context + logs.attributes_json(parsed)
    assert told.isprintable()
    assert parsed.text == "red  ab c   back 31m"
    assert logs.parse(hostile.encode()).text == "red  ab c   back 31m"


def test_invalid_utf_8_is_replaced() -> None:
    assert logs.parse(b"caf\xe9 \xff\xfe").text == "caf\ufffd \ufffd\ufffd"
    raw = line(message="caf\xe9", attributes={"name": "caf\xe9"}).replace("\xe9".encode(), b"\xe9")
    parsed = logs.parse(raw)
    assert (parsed.text, parsed.attributes) == ("caf\ufffd", {"name": "caf\ufffd"})


def test_halves_of_surrogate_pairs_do_not_reach_the_wire() -> None:
    parsed = logs.parse(
        rb'{"t":{"$date":"2026-11-26T15:06:35.599+00:00"},"s":"I","msg":"a\ud800b","attr":{"\udfff":1}}'
    )
    assert (parsed.text, parsed.attributes) == ("a\ufffdb", {"\ufffd": 1})


def test_a_text_line_is_cut_with_a_mark() -> None:
    parsed = logs.parse("ü".encode() * 500_000)
    assert parsed.cut
    assert len(parsed.text.encode()) <= logs.MOST_BYTES
    assert parsed.text.endswith(" ?cut")


def test_attributes_that_are_too_long_go_and_the_others_stay() -> None:
    parsed = logs.parse(line(attributes={"ns": "shop.orders", "command": {"filter": {"a": "x" * 100_000}}, "n": 7}))
    assert parsed.cut
    assert json.loads(logs.attributes_json(parsed)) == {"ns": "shop.orders", "command": "?cut", "n": 7}
    many = logs.parse(line(attributes={f"key{number}": "x" * 100 for number in range(5000)}))
    assert json.loads(logs.attributes_json(many)) == {"?cut": 5000}


def test_a_line_whose_end_is_missing_keeps_its_head_and_no_literal() -> None:
    whole = line(severity="E", attributes={"command": {"find": "orders", "filter": {"name": "CANARY" * 1000}}})
    parsed = logs.parse(whole[:3000])
    assert (parsed.time, parsed.severity, parsed.component, parsed.message_id) == (WHEN, "E", "COMMAND", 51803)
    assert (parsed.context, parsed.text, parsed.cut) == ("conn2", "Slow query", True)
    assert "CANARY" not in parsed.text + logs.attributes_json(parsed)


@pytest.mark.parametrize(
    "changes",
    [
        {"s": "X"},
        {"s": ["E"]},
        {"id": -1},
        {"id": 2**40},
        {"id": True},
        {"id": "7"},
        {"c": 7},
        {"ctx": {}},
        {"attr": []},
        {"attr": None},
        {"t": {}},
        {"t": "now"},
        {"t": {"$date": "yesterday"}},
        {"t": {"$date": "0001-01-01T00:00:00+14:00"}},
        {"t": {"$date": 5}},
    ],
)
def test_parts_that_are_not_what_they_should_be(changes: dict[str, Any]) -> None:
    parsed = logs.parse(line(**changes))
    assert parsed.text == "Slow query"
    assert parsed.severity == "I"
    assert 0 <= parsed.message_id < 2**32
    assert logs.glance(line(**changes))[0] == "I"


def test_numbers_that_json_does_not_know() -> None:
    parsed = logs.parse(line().replace(b'"msg"', b'"attr":{"a":NaN,"b":[1e999,-Infinity],"c":1},"msg"'))
    assert json.loads(logs.attributes_json(parsed)) == {"a": None, "b": [None, None], "c": 1}


def test_json_that_is_too_deep_is_text() -> None:
    deep = b"[" * 100_000
    assert logs.parse(b'{"t":{"$date":"2026-11-26T15:06:35.599+00:00"},"s":"W","msg":"x","attr":' + deep).text
    assert logs.parse(deep).cut


def test_a_glance_sees_severity_and_time() -> None:
    assert logs.glance(line(severity="W")) == ("W", WHEN.timestamp())
    assert logs.glance(line(severity="D2", t={"$date": "bad"})) == ("D2", 0.0)
    assert logs.glance(b"\xff text") == ("I", 0.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=200).map(lambda raw: line()[:-1] + raw),
    st.fixed_dictionaries(
        {"t": JSON, "msg": JSON}, optional={name: JSON for name in ("s", "c", "id", "ctx", "attr")}
    ).map(lambda entry: json.dumps(entry).encode()),
    JSON.map(
        lambda value: line(attributes={"command": value, "ns": value, "planSummary": value, "durationMillis": value})
    ),
)


@given(HOSTILE)
def test_nothing_that_a_line_may_hold_raises(raw: bytes) -> None:
    parsed = redaction.redacted(logs.parse(raw))
    logs.glance(raw)
    told = [parsed.text, parsed.context, parsed.component, logs.attributes_json(parsed)]
    found = slow.slow_query(parsed)
    if found is not None:
        told += [found.namespace, found.operation, found.predicate_shape, found.sort_shape, found.plan_summary]
    assert not logs.UNWANTED.search("".join(told))
    assert len("".join(told).encode()) < 3 * logs.MOST_BYTES
