"""Lines of mongod's structured log as data, whatever bytes are in them.

A line that is not mongod's JSON becomes a text line of its own; nothing that a line may contain raises.
"""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MOST_BYTES = 16 * 1024
CUT = "?cut"
SEVERITIES = frozenset({"F", "E", "W", "I", "D", "D1", "D2", "D3", "D4", "D5"})
MOST_MESSAGE_ID = 2**32 - 1
# mongod writes the same head always: {"t":{"$date":"..."},"s":"I",  "c":"REPL",     "id":123,   "ctx":"conn1","msg":"...
HEAD = re.compile(
    r'\{"t":\{"\$date":"([^"]{1,40})"\},\s*"s":"(\w{1,2})",\s*"c":"([\w-]{1,20})",\s*"id":(\d{1,10}),'
    r'(?:\s*"ctx":"((?:[^"\\]|\\.){0,200})",)?(?:\s*"svc":"[^"]{0,10}",)?(?:\s*"msg":"((?:[^"\\]|\\.){0,400})")?'
)
GLANCE = re.compile(rb'\{"t":\{"\$date":"([^"]{1,40})"\},\s*"s":"(\w{1,2})"')
# Terminal codes: CSI and OSC sequences with all they carry, and the two-character ones.
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -~]")
# Control characters, those that turn the direction of text around, and halves of surrogate pairs.
SPACES = re.compile(r"[\t\r\n\v\f\x85\u2028\u2029]")
UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
SURROGATES = re.compile(r"[\ud800-\udfff]")
# What the JSON reader makes control characters of.
ESCAPES = re.compile(r"\\[bfnrt]|\\u(?:00[0189]|007[fF]|[dD][89a-fA-F]|20|[fF][eE])")


@dataclass(frozen=True, slots=True)
class Parsed:
    """One line. Literals are still in it: see `redaction`."""

    # In UTC; None where the line says none.
    time: datetime | None
    # mongod's letter: "F", "E", "W", "I", "D1" to "D5".
    severity: str
    # "REPL", "NETWORK", ...; "" for a line that is not mongod's JSON.
    component: str
    message_id: int
    # mongod's "ctx": the thread or connection.
    context: str
    text: str
    attributes: dict[str, Any] = field(default_factory=dict)
    # The line was longer than MOST_BYTES: something may be left out.
    cut: bool = False


def glance(line: bytes) -> tuple[str, float]:
    """Severity and Unix time of a line at a tenth of the cost of parsing it; ("I", 0.0) where it says none."""
    head = GLANCE.match(line)
    if head is None:
        return "I", 0.0
    time, severity = _time(head[1].decode(errors="replace")), head[2].decode(errors="replace")
    return severity if severity in SEVERITIES else "I", time.timestamp() if time else 0.0


def parse(line: bytes) -> Parsed:
    """The line as data: no control characters, no ANSI codes, valid UTF-8; the text has at most MOST_BYTES."""
    decoded = line.decode(errors="replace")
    cut = len(line) > MOST_BYTES
    entry = _object(decoded)
    if entry is None:
        return _from_head(decoded) or Parsed(None, "I", "", 0, "", shortened(clean(decoded)), cut=cut)
    if not decoded.isprintable() or ("\\" in decoded and ESCAPES.search(decoded)):
        entry = _cleaned(entry)
    severity, message_id = entry.get("s"), entry.get("id")
    attributes = entry.get("attr")
    return Parsed(
        time=_time_of(entry),
        severity=severity if isinstance(severity, str) and severity in SEVERITIES else "I",
        component=_word(entry.get("c")),
        message_id=message_id if type(message_id) is int and 0 <= message_id <= MOST_MESSAGE_ID else 0,
        context=_word(entry.get("ctx")),
        text=shortened(str(entry["msg"])),
        attributes=attributes if isinstance(attributes, dict) else {},
        cut=cut,
    )


def attributes_json(parsed: Parsed) -> str:
    """The attributes as a JSON object of at most MOST_BYTES; "" for none. What does not fit is left out with a mark."""
    if not parsed.attributes:
        return ""
    text = _json(parsed.attributes)
    if len(text.encode()) <= MOST_BYTES:
        return text
    mark = len(_json(CUT))
    sizes = {name: len(_json(value).encode()) for name, value in parsed.attributes.items()}
    excess, kept = len(text.encode()) - MOST_BYTES, dict(parsed.attributes)
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if excess > 0 and sizes[name] > mark:
            kept[name] = CUT
            excess -= sizes[name] - mark
    return _json(kept if excess <= 0 else {CUT: len(kept)})


def clean(text: str) -> str:
    """Without terminal codes and control characters; line ends and tabs are spaces."""
    text = UNWANTED.sub("", SPACES.sub(" ", ANSI.sub("", text)))
    return SURROGATES.sub("\ufffd", text)


def shortened(text: str, most_bytes: int = MOST_BYTES) -> str:
    """At most so many bytes of UTF-8, with a mark at the end where something is missing."""
    if len(text) * 4 <= most_bytes or len(text.encode()) <= most_bytes:
        return text
    return text.encode()[: most_bytes - len(CUT) - 1].decode(errors="ignore") + " " + CUT


def _object(decoded: str) -> dict[str, Any] | None:
    if not decoded.startswith("{"):
        return None
    try:
        entry = json.loads(decoded, strict=False)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("msg"), str) and "t" in entry else None


def _from_head(decoded: str) -> Parsed | None:
    """What stands before the attributes of a line whose end is missing. The rest is left out: it cannot be redacted."""
    head = HEAD.match(decoded)
    if head is None:
        return None
    time, severity, component, message_id, context, text = head.groups()
    return Parsed(
        time=_time(time),
        severity=severity if severity in SEVERITIES else "I",
        component=component,
        message_id=min(int(message_id), MOST_MESSAGE_ID),
        context=clean(context or ""),
        text=clean(text or ""),
        attributes={CUT: "the line is incomplete"},
        cut=True,
    )


def _time_of(entry: dict[str, Any]) -> datetime | None:
    time = entry["t"]
    text = time.get("$date") if isinstance(time, dict) else None
    return _time(text) if isinstance(text, str) else None


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _word(value: Any) -> str:
    return shortened(value, 200) if isinstance(value, str) else ""


def _cleaned(value: Any) -> Any:
    """Every string in it clean. As deep as the JSON reader went, which has a limit of its own."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _cleaned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:  # JSON has no NaN
        return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
