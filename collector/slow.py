"""Slow operations as mongod logs them: what they looked for and what it cost. What would help: see `advice`."""

import json
from dataclasses import dataclass
from typing import Any

from collector.advice import Advice, Shape, advise
from collector.logs import Parsed, shortened
from collector.redaction import order_shape, shape_of

__all__ = ["Advice", "Shape", "SlowQuery", "advise", "slow_query"]

SLOW_QUERY_ID = 51803
MOST_SHAPE_BYTES = 4096
MOST_NUMBER = 2**63 - 1
# Writes in bulk log a line for each statement and one for all, which has no plan: only the former count. An insert has
# never a plan.
PLANLESS = frozenset({"insert"})
RETURNED = ("nreturned", "nMatched", "ndeleted", "ninserted")


@dataclass(frozen=True, slots=True)
class SlowQuery:
    """One slow operation, without its literals. Durations in milliseconds."""

    namespace: str
    # "find", "aggregate", "update", "remove", "count", "distinct", "findAndModify", "getMore", "insert", ...
    operation: str
    # JSON with a type for each literal; the keys of a filter sorted, those of a sort in their order. "{}" for none.
    predicate_shape: str
    sort_shape: str
    plan_summary: str
    duration_millis: int
    keys_examined: int
    docs_examined: int
    docs_returned: int
    collection_scan: bool
    sorted_in_memory: bool


def slow_query(parsed: Parsed) -> SlowQuery | None:
    """What a line says of a slow operation; None for every other line. It may be redacted already."""
    attributes = parsed.attributes
    command = attributes.get("command")
    if parsed.message_id != SLOW_QUERY_ID or not isinstance(command, dict) or not command:
        return None
    operation = _operation(attributes, command)
    namespace, plan = _namespace(attributes, command), _text(attributes.get("planSummary"))
    if not (plan or "docsExamined" in attributes or operation in PLANLESS) or namespace.startswith("local."):
        return None
    asked = attributes.get("originatingCommand") if operation == "getMore" else command
    predicate, order = _asked(asked if isinstance(asked, dict) else {})
    return SlowQuery(
        namespace=namespace,
        operation=operation,
        predicate_shape=_shape(_normal(shape_of(predicate))),
        sort_shape=_shape(order_shape(order)),
        plan_summary=shortened(plan, 400),
        duration_millis=_number(attributes, "durationMillis"),
        keys_examined=_number(attributes, "keysExamined"),
        docs_examined=_number(attributes, "docsExamined"),
        docs_returned=max(_number(attributes, name) for name in RETURNED),
        collection_scan="COLLSCAN" in plan,
        sorted_in_memory=attributes.get("hasSortStage") is True,
    )


def _operation(attributes: dict[str, Any], command: dict[str, Any]) -> str:
    kind = _text(attributes.get("type"))
    return shortened(next(iter(command)) if kind in {"command", "none", ""} else kind, 100)


def _namespace(attributes: dict[str, Any], command: dict[str, Any]) -> str:
    """The collection's, also where mongod names the database only."""
    namespace = _text(attributes.get("ns"))
    collection = next(iter(command.values()))
    if namespace.endswith(".$cmd") and isinstance(collection, str):
        namespace = f"{namespace.removesuffix('$cmd')}{collection}"
    return shortened(namespace, 256)


def _asked(command: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Filter and sort of a command."""
    stages = command.get("pipeline")
    if isinstance(stages, list):
        return _asked_first(stages)
    predicate: dict[str, Any] = next(
        (command[name] for name in ("filter", "query", "q") if isinstance(command.get(name), dict)), {}
    )
    order = command.get("sort")
    return predicate, order if isinstance(order, dict) else {}


def _asked_first(stages: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a pipeline asks of the collection itself: its $match and $sort stages before any other."""
    predicates: list[dict[str, Any]] = []
    order: dict[str, Any] = {}
    for stage in stages:
        if not isinstance(stage, dict) or len(stage) != 1:
            break
        name, value = next(iter(stage.items()))
        if not isinstance(value, dict) or name not in {"$match", "$sort"}:
            break
        if name == "$sort":
            order = value
        else:
            predicates.append(value)
    names = [name for predicate in predicates for name in predicate]
    if len(set(names)) < len(names):
        return {"$and": predicates}, order
    return {name: value for predicate in predicates for name, value in predicate.items()}, order


def _normal(shape: Any) -> Any:
    """The same for filters that mean the same: keys sorted, $eq left out, branches of $or and $and in one order."""
    if isinstance(shape, list):
        return [_normal(item) for item in shape]
    if not isinstance(shape, dict):
        return shape
    normal = {name: _normal(shape[name]) for name in sorted(shape)}
    for name in ("$or", "$and", "$nor"):
        if isinstance(normal.get(name), list):
            normal[name] = sorted(normal[name], key=_json)
    return normal["$eq"] if len(normal) == 1 and isinstance(normal.get("$eq"), str) else normal


def _shape(shape: Any) -> str:
    text = _json(shape)
    return text if len(text.encode()) <= MOST_SHAPE_BYTES else _json({"?cut": len(text)})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(attributes: dict[str, Any], name: str) -> int:
    value = attributes.get(name)
    return min(max(int(value), 0), MOST_NUMBER) if isinstance(value, int | float) and value == value else 0
