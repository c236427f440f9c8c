"""Small pieces of text for tables: states, moments, sizes, money. Nothing here trusts what a server sent."""

import time
import unicodedata

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

GIB = 2**30

GOOD = {"available", "healthy", "succeeded", "connected", "running", "active", "PRIMARY", "SECONDARY", "ok"}
BAD = {"failed", "unavailable", "banned", "disabled", "revoked", "disk full"}
BUSY = {
    "creating",
    "updating",
    "deleting",
    "queued",
    "cancelling",
    "degraded",
    "silent",
    "waiting",
    "STARTUP",
    "STARTUP2",
}


def safe(text: str) -> str:
    """Without control characters, which could drive the terminal; line ends and tabs become spaces."""
    return "".join(_printable(character) for character in text)


def _printable(character: str) -> str:
    if character in "\n\r\t":
        return " "
    # Cf holds the marks that turn the direction of writing around.
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in ("Cc", "Cf") else character


def word(enum: EnumDescriptor, number: int) -> str:
    """ "available" for CLUSTER_STATE_AVAILABLE; a number that this client does not know is shown as it is."""
    value = enum.values_by_number.get(number)
    if value is None:
        return f"unknown ({number})"
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(value.name).removeprefix(prefix).lower() if number else "-"


def state(text: str) -> Text:
    """A state in its colour; the word says it too."""
    colour = "green" if text in GOOD else "red" if text in BAD else "yellow" if text in BUSY else ""
    return Text(safe(text) or "-", style=colour)


def moment(stamp: Timestamp) -> str:
    """ "2026-03-01 12:00:05Z", or "-" where it is not set."""
    if not stamp.seconds:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(stamp.seconds))


def ago(stamp: Timestamp) -> str:
    """How long ago, in one unit: "12 s ago"; the future reads "in 3 d"."""
    if not stamp.seconds:
        return "-"
    seconds = time.time() - stamp.seconds
    text = duration(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def duration(seconds: float) -> str:
    """One unit, rounded down: "45 s", "12 min", "3 h", "2 d"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def between(start: Timestamp, end: Timestamp) -> str:
    """Time from start to end, or until now where there is no end yet: "4.2 s"."""
    if not start.seconds:
        return "-"
    stop = end.seconds + end.nanos / 1e9 if end.seconds else time.time()
    seconds = max(0.0, stop - start.seconds - start.nanos / 1e9)
    return f"{seconds:.1f} s" if seconds < 120 else duration(seconds)


def gib(size: int) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.1f} GiB"


def usd(amount: float) -> str:
    """ "$215.04"."""
    return f"${amount:,.2f}"
