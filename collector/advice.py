"""The index that would help slow queries of one shape, and why: the rule "equality, sort, range".

Fields that are compared for equality come first, then those that give the order, then ranges: so an index narrows the
search as far as it can and still hands out documents in order.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# `key` of an index is compared with what a plan used: IXSCAN { status: 1, created: -1 }
USED = re.compile(r"IXSCAN \{ ([^}]*) \}")
EQUALITIES = frozenset({"$eq", "$in"})
RANGES = frozenset({"$gt", "$gte", "$lt", "$lte", "$regex"})
# These have kinds of indexes of their own.
SPECIAL = frozenset({"$text", "$near", "$nearSphere", "$geoWithin", "$geoIntersects", "$within", "$comment"})
MOST_KEYS = 5
# Fewer documents than this are read faster than any index is looked up.
MANY = 100
# Documents read for each one returned: from here on too many, and what an index must save at least.
BAD_RATIO, LEAST_RATIO = 10.0, 2.0
INTERNAL = ("admin.", "config.", "local.")


@dataclass(frozen=True, slots=True)
class Shape:
    """What slow queries that differ in literals only have in common, and their sums."""

    namespace: str
    operation: str
    # As in SlowQuery.
    predicate_shape: str
    sort_shape: str
    count: int
    docs_examined: int
    docs_returned: int
    collection_scans: int
    sorts_in_memory: int
    # Of the newest one: an index that is used already is not advised.
    plan_summary: str = ""


class Advice(NamedTuple):
    """An index as createIndex takes it ('{"status": 1, "created": -1}'), and why."""

    keys: str
    reason: str


@dataclass(slots=True)
class _Fields:
    """What a filter does with which field."""

    equal: list[str] = field(default_factory=list)
    ranged: list[str] = field(default_factory=list)
    special: bool = False


def advise(shape: Shape) -> Advice | None:
    """The index that would help; None where the numbers are no reason for one, or the filter gives no hint."""
    cost = _cost(shape)
    predicate, order = _document(shape.predicate_shape), _document(shape.sort_shape)
    if not cost or predicate is None or order is None or _is_internal(shape.namespace):
        return None
    branches = predicate.get("$or")
    if len(predicate) == 1 and isinstance(branches, list):
        return _for_branches(shape, branches, cost)
    fields = _fields(predicate)
    keys = _keys(fields, order)
    if fields.special or not keys or list(keys) == ["_id"] or _is_used(keys, shape.plan_summary):
        return None
    return Advice(json.dumps(keys), f"{cost} {_why(fields, order, keys)}")


def _is_internal(namespace: str) -> bool:
    return namespace.startswith(INTERNAL) or ".system." in namespace


def _for_branches(shape: Shape, branches: list[Any], cost: str) -> Advice | None:
    """$or uses indexes only if each of its branches has one."""
    indexes = []
    for branch in branches:
        fields = _fields(branch if isinstance(branch, dict) else {})
        keys = _keys(fields, {})
        if fields.special or not keys:
            return None
        if list(keys) != ["_id"] and not _is_used(keys, shape.plan_summary) and keys not in indexes:
            indexes.append(keys)
    if not indexes:
        return None
    every = ", ".join(json.dumps(keys) for keys in indexes)
    rest = f" Each branch of $or needs an index: {every}." if len(indexes) > 1 else ""
    return Advice(json.dumps(indexes[0]), f"{cost}{rest}")


def _cost(shape: Shape) -> str:
    """What is bad about these queries, as a sentence; "" if nothing is."""
    if shape.count < 1 or shape.docs_examined / shape.count < MANY:
        return ""
    ratio = shape.docs_examined / max(shape.docs_returned, 1)
    found = []
    if shape.collection_scans and ratio >= LEAST_RATIO:
        found.append(f"the whole collection read by {_share(shape.collection_scans, shape.count)}")
    if ratio >= BAD_RATIO:
        each = " for each one found" if shape.docs_returned else ""
        found.append(f"{ratio:,.0f} documents read{each}")
    if shape.sorts_in_memory and shape.sort_shape not in {"", "{}"}:  # the sort of a $group's results stays anyway
        found.append(f"sorted in memory by {_share(shape.sorts_in_memory, shape.count)}")
    text = "; ".join(found)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _share(part: int, whole: int) -> str:
    if whole == 1:
        return "the query"
    return f"all {whole:,} queries" if part >= whole else f"{part:,} of {whole:,} queries"


def _fields(predicate: dict[str, Any], prefix: str = "") -> _Fields:
    fields = _Fields()
    for name, value in predicate.items():
        if name == "$and" and isinstance(value, list):
            for part in value:
                _add(fields, _fields(part if isinstance(part, dict) else {}, prefix))
        elif name in SPECIAL:
            fields.special = fields.special or name != "$comment"
        elif not name.startswith("$"):
            _add(fields, _field(f"{prefix}{name}", value))
    return fields


def _field(path: str, value: Any) -> _Fields:
    fields = _Fields()
    if not isinstance(value, dict):
        (fields.ranged if value == "?regex" else fields.equal).append(path)
        return fields
    operators = {name for name in value if name.startswith("$")}
    if not operators:
        fields.equal.append(path)  # a whole document
    elif operators & SPECIAL:
        fields.special = True
    elif isinstance(value.get("$elemMatch"), dict):
        return _fields(value["$elemMatch"], f"{path}.")
    elif operators & RANGES:
        fields.ranged.append(path)
    elif operators & EQUALITIES:
        fields.equal.append(path)
    return fields


def _add(fields: _Fields, more: _Fields) -> None:
    fields.equal += [path for path in more.equal if path not in fields.equal]
    fields.ranged += [path for path in more.ranged if path not in fields.ranged]
    fields.special = fields.special or more.special


def _keys(fields: _Fields, order: dict[str, Any]) -> dict[str, int]:
    keys = dict.fromkeys(sorted(fields.equal), 1)
    for path, direction in order.items():
        if not isinstance(direction, int | float) or direction not in {1, -1}:
            break  # by a score: no index gives that order
        keys.setdefault(path, int(direction))
    for path in sorted(fields.ranged):
        keys.setdefault(path, 1)
    return dict(list(keys.items())[:MOST_KEYS])


def _is_used(keys: dict[str, int], plan_summary: str) -> bool:
    """Whether the plan used an index that begins with these keys."""
    wanted = ", ".join(f"{path}: {direction}" for path, direction in keys.items())
    return any(f"{used}, ".startswith(f"{wanted}, ") for used in USED.findall(plan_summary))


def _why(fields: _Fields, order: dict[str, Any], keys: dict[str, int]) -> str:
    equal = [path for path in keys if path in fields.equal]
    ordered = [path for path in keys if path in order and path not in equal]
    ranged = [path for path in keys if path in fields.ranged and path not in ordered]
    parts = []
    if equal:
        parts.append(f"{_names(equal)} for equality")
    if ordered:
        parts.append(f"{_names(ordered)} for the order, so that nothing is sorted")
    if ranged:
        parts.append(f"{_names(ranged)} for the range")
    return f"Index: {', then '.join(parts)}."


def _names(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{', '.join(paths[:-1])} and {paths[-1]}"


def _document(shape: str) -> dict[str, Any] | None:
    try:
        document = json.loads(shape or "{}")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "?cut" not in document else None
