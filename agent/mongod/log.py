"""Reading the end of mongod's structured log: why it ended. What users put into queries is not repeated."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TAIL_BYTES = 256 * 1024
SHUTTING_DOWN_ID = 23138
# "Writing fatal message" and what else every abort says after its reason: assertion, aborting, signal, backtrace.
LAST_RITES = frozenset({6384300, 23089, 23090, 23091, 23092, 31380, 31431, 31445})
NO_SPACE = "No space left on device"
LINE_LIMIT = 240
# Long runs of base64 or hex may be keys.
SECRET_LIKE = re.compile(r"[A-Za-z0-9+/=_-]{40,}")


def size(path: Path) -> int:
    """Bytes in the log so far: what comes later belongs to the next run."""
    return path.stat().st_size if path.exists() else 0


def last_error(log: Path, output: Path, since: int) -> str:
    """The newest error or fatal line after byte `since`, else the last line that mongod printed; redacted."""
    for entry in reversed([*_entries(output, 0), *_entries(log, since)]):
        if entry.get("s") in {"E", "F"} and entry.get("id") not in LAST_RITES:
            return redacted(_sentence(entry))
    plain = [line for line in _lines(output, 0) if line.strip() and not line.startswith("{")]
    return redacted(plain[-1]) if plain else ""


def out_of_space(log: Path, since: int) -> bool:
    """Whether mongod said after byte `since` that the disk is full."""
    return any(NO_SPACE in line for line in _lines(log, since))


def exit_code(log: Path, since: int) -> int | None:
    """The exit code that mongod wrote as its last word, for a mongod that is not the agent's child."""
    for entry in reversed(list(_entries(log, since))):
        if entry.get("id") == SHUTTING_DOWN_ID:
            code = entry.get("attr", {}).get("exitCode")
            return code if isinstance(code, int) else None
    return None


def redacted(text: str) -> str:
    """Cut, and without anything that looks like a key."""
    return SECRET_LIKE.sub("***", "".join(c if c.isprintable() else " " for c in text))[:LINE_LIMIT]


def _sentence(entry: dict[str, Any]) -> str:
    message, attributes = str(entry.get("msg", "")), entry.get("attr", {})
    if not isinstance(attributes, dict):
        return message
    error, detail = attributes.get("error"), attributes.get("message")
    if isinstance(error, dict):
        error = error.get("errmsg")
    if isinstance(detail, dict):  # WiredTiger's own
        error = detail.get("msg", error)
    return f"{message}: {error}" if error else message


def _entries(log: Path, since: int) -> Iterator[dict[str, Any]]:
    for line in _lines(log, since):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the first line of a tail is cut
        if isinstance(entry, dict):
            yield entry


def _lines(log: Path, since: int) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(since if since <= size(log) else 0, size(log) - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
