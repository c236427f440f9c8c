"""Log lines without what users put into their queries: a type stands in the place of each literal.

mongod's own redaction blanks every string of every line. This one knows where users' values stand (commands, filters,
documents, error texts that quote them) and keeps the rest readable. In doubt a value goes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from collector.logs import Parsed, shortened

# Deeper than any query that a person wrote, and than Python's stack allows.
MOST_DEPTH = 40
MOST_ITEMS = 20
# Extended JSON of single values, by their type.
WRAPPERS = {
    "$date": "?date",
    "$oid": "?objectId",
    "$binary": "?binary",
    "$uuid": "?uuid",
    "$timestamp": "?timestamp",
    "$numberInt": "?int",
    "$numberLong": "?long",
    "$numberDouble": "?double",
    "$numberDecimal": "?decimal",
    "$regularExpression": "?regex",
    "$code": "?code",
    "$symbol": "?string",
    "$minKey": "?minKey",
    "$maxKey": "?maxKey",
    "$undefined": "?undefined",
    "$dbPointer": "?dbPointer",
}
# Those hold what a user wrote wherever they stand.
WRITTEN = frozenset({"$regularExpression", "$code", "$symbol", "$dbPointer"})
MARKS = frozenset(WRAPPERS.values()) | {"?string", "?int", "?double", "?bool", "?null", "?deep", "?more", "?cut"}
# Attributes that are commands, and those that are parts of one or documents of users.
COMMANDS = frozenset({"command", "originatingCommand", "cmd", "cmdObj", "commandArgs", "request", "requestObj"})
DOCUMENTS = frozenset(
    "arrayFilters bounds canonicalQuery comment doc docId document documentKey documents dupKey errInfo expression"
    " failingDocument filter foundValue keyValue let max min o o2 object oplogEntry parsedQuery partialFilterExpression"
    " pipeline predicate q query shardKeyValue splitKeys splitPoint u update updateObj updates validator value".split()
)
# Commands whose first value is the name of a collection.
ON_COLLECTIONS = frozenset(
    "aggregate collMod collStats count create createIndexes delete distinct drop dropIndexes explain find findAndModify"
    " findandmodify insert killCursors listIndexes mapReduce mapreduce update validate".split()
)
# What else stays of a command: how, not what.
HOW = frozenset(
    "$db $readPreference allowDiskUse autocommit awaitData batchSize bypassDocumentValidation collation collection"
    " cursor getMore hint indexes key limit maxTimeMS multi new noCursorTimeout ordered readConcern remove"
    " singleBatch skip startTransaction tailable upsert v writeConcern".split()
)
ORDERS = frozenset({"sort", "$sort", "projection", "fields"})
# Of no use to anyone who reads a log, and long.
NOISE = frozenset({"$clusterTime", "lsid", "signature", "$configTime", "$topologyTime", "operationSessionInfo"})
# Stages that name fields and collections in strings, and where in them.
NAMING = frozenset({"$lookup", "$graphLookup", "$unionWith", "$merge", "$out", "$unwind", "$count", "$unset"})
NAMES = frozenset(
    "from localField foreignField as into coll db startWith connectFromField connectToField depthField path"
    " includeArrayIndex".split()
)
AMOUNTS = frozenset({"$limit", "$skip"})
FIELD_PATH = re.compile(r"\$\$?[A-Za-z_][\w.]{0,200}")
SCORES = frozenset({"textScore", "indexKey", "searchScore", "sortKey", "geoNearDistance"})
INDEX_KINDS = frozenset({"text", "2d", "2dsphere", "2dsphere_bucket", "hashed", "columnstore"})
OPERATOR = re.compile(r"\$[a-z][A-Za-z]{1,30}")
SINGLE_QUOTED = re.compile(r"(?<!\w)'(.*?)'(?!\w)")
NUMBER = re.compile(r"(?<![\w$.])-?\d[\w.+-]*")
BINARY = re.compile(r"BinData\([^)]*\)?")


def redacted(parsed: Parsed) -> Parsed:
    """The whole line, text and attributes, without literals. Doing it twice changes nothing more."""
    strict = parsed.severity.startswith("D")  # what developers of mongod look at may hold anything
    return dataclasses.replace(
        parsed,
        text=shortened(scrubbed(parsed.text)),
        attributes=redact(parsed.attributes, strict=strict),
    )


def redact(attributes: Mapping[str, Any], *, strict: bool = False) -> dict[str, Any]:
    """mongod's attributes with "?string", "?int", "?date", ... for literals.

    Names of fields, operators, collections and the numbers of statistics stay; `strict` takes every document for one
    that a user wrote.
    """
    return {name: _attribute(name, value, strict, 0) for name, value in attributes.items()}


def shape_of(value: Any) -> Any:
    """A filter, or any part of one, with types for literals."""
    return _literal(value, False, 0)


def order_shape(value: Any) -> Any:
    """A sort with its directions; types for anything else."""
    return _order(value, 0)


def scrubbed(text: str) -> str:
    """Prose without what it quotes: `dup key: { email: "a@b" }` becomes `dup key: { email: "?" }`."""
    if '"' not in text and "{" not in text and "'" not in text:
        return text
    start = text.find("{")
    if start < 0:
        return _unquoted(text)
    end = text.rfind("}") + 1 or len(text)
    if end <= start:
        end = len(text)
    return _unquoted(text[:start]) + _unvalued(text[start:end]) + _unquoted(text[end:])


def _attribute(name: str, value: Any, strict: bool, depth: int) -> Any:
    """One attribute that is a statistic unless its name or its form says otherwise."""
    if isinstance(value, str):
        if name == "planSummary" or value in MARKS:
            return value
        return scrubbed(value) if name not in DOCUMENTS or "{" in value else "?string"
    if not isinstance(value, dict | list):
        return value
    if depth >= MOST_DEPTH:
        return "?deep"
    if name in COMMANDS and isinstance(value, dict):
        return _command(value, depth)
    if name in DOCUMENTS and not (name == "doc" and "driver" in value):  # the driver's description of itself
        return _literal(value, name == "pipeline", depth)
    if isinstance(value, list):
        return [_attribute("", item, strict, depth + 1) for item in value]
    wrapper = _wrapper(value)
    if wrapper:
        return WRAPPERS[wrapper] if wrapper in WRITTEN else value
    if strict or any(key.startswith("$") and key != "$date" for key in value):
        return _literal(value, False, depth)
    return {key: _attribute(key, item, strict, depth + 1) for key, item in value.items()}


def _command(command: Mapping[str, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for position, (name, value) in enumerate(command.items()):
        if name in NOISE:
            continue
        if position == 0 and isinstance(value, dict) and name == "explain":
            kept[name] = _command(value, depth + 1)
        elif position == 0 and (name in ON_COLLECTIONS or not isinstance(value, str | dict | list)):
            kept[name] = value if not isinstance(value, dict | list) else _literal(value, False, depth + 1)
        elif name in HOW:
            kept[name] = _attribute(name, value, False, depth + 1)
        elif name in ORDERS:
            kept[name] = _order(value, depth + 1)
        elif name == "pipeline" or (name == "u" and isinstance(value, list)):
            kept[name] = _stages(value, depth + 1)
        else:
            kept[name] = _literal(value, False, depth + 1)
    return kept


def _literal(value: Any, paths: bool, depth: int) -> Any:
    """What a user wrote. `paths`: strings that begin with $ name fields, as in expressions of a pipeline."""
    if isinstance(value, str):
        return value if value in MARKS or (paths and FIELD_PATH.fullmatch(value)) else "?string"
    if isinstance(value, dict | list) and depth >= MOST_DEPTH:
        return "?deep"
    if isinstance(value, list):
        return _items([_literal(item, paths, depth + 1) for item in value])
    if not isinstance(value, dict):
        return _scalar(value)
    wrapper = _wrapper(value)
    if wrapper:
        return WRAPPERS[wrapper]
    return {name: _field(name, item, paths, depth + 1) for name, item in value.items()}


def _field(name: str, value: Any, paths: bool, depth: int) -> Any:
    if name == "pipeline":
        return _stages(value, depth)
    if name == "$sort" or (name == "key" and _is_index(value)):
        return _order(value, depth)
    if name == "$exists" and isinstance(value, bool):
        return value
    if name == "$meta" and isinstance(value, str) and value in SCORES:
        return value
    if paths and name in NAMING:
        return _naming(value, depth)
    if paths and name in AMOUNTS and isinstance(value, int):
        return value
    return _literal(value, name == "$expr" or (paths and name not in {"$match", "$literal"}), depth)


def _naming(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return _literal(value, True, depth)
    return {
        name: item if name in NAMES and isinstance(item, str) else _field(name, item, True, depth)
        for name, item in value.items()
    }


def _stages(value: Any, depth: int) -> Any:
    if not isinstance(value, list) or depth >= MOST_DEPTH:
        return _literal(value, False, depth)
    stages = [_literal(stage, True, depth + 1) for stage in value[:MOST_ITEMS]]
    return stages if len(value) <= MOST_ITEMS else [*stages, "?more"]


def _order(value: Any, depth: int) -> Any:
    """A sort, a projection, the keys of an index: 1, -1, 0 and kinds of indexes say how."""
    if not isinstance(value, dict):
        return _literal(value, False, depth)
    return {
        name: item
        if isinstance(item, int | float | str) and (item in {0, 1, -1} or item in INDEX_KINDS)
        else _field(name, item, True, depth)
        for name, item in value.items()
    }


def _is_index(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(kind, int | float | str) and (kind in {1, -1} or kind in INDEX_KINDS) for kind in value.values()
    )


def _items(items: list[Any]) -> list[Any]:
    """Each kind of item once: $in with a thousand values and $in with two are the same query."""
    different: list[Any] = []
    for item in items:
        if item not in different:
            if len(different) >= MOST_ITEMS:
                return [*different, "?more"]
            different.append(item)
    return different


def _scalar(value: Any) -> str:
    if value is None:
        return "?null"
    return "?bool" if isinstance(value, bool) else "?int" if isinstance(value, int) else "?double"


def _wrapper(value: dict[str, Any]) -> str:
    """The name of the extended JSON type that this document is; "" for a real document."""
    if not 1 <= len(value) <= 2:
        return ""
    name = next(iter(value))
    if name not in WRAPPERS or (len(value) == 2 and not (name == "$code" and "$scope" in value)):
        return ""
    return name


def _unquoted(text: str) -> str:
    """From the first double quote to the last: a value may hold quotes itself."""
    first, last = text.find('"'), text.rfind('"')
    if first >= 0:
        text = text[:first] + '"?"' + (text[last + 1 :] if last > first else "")
    return SINGLE_QUOTED.sub(lambda quoted: quoted[0] if OPERATOR.fullmatch(quoted[1]) else "'?'", text)


def _unvalued(text: str) -> str:
    """A document as mongod prints it within prose: the names that stand before its first quoted value stay."""
    for quote in ('"', "'", "/"):
        first, last = text.find(quote), text.rfind(quote)
        if first >= 0:
            text = text[:first] + f"{quote}?{quote}" + (text[last + 1 :] if last > first else " }")
    return NUMBER.sub("?", BINARY.sub("BinData(?)", text))
