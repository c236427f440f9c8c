"""From bytes to a request that can be worked with: what no database column and no log line should ever meet ends here."""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import DecodeError, Message

from controlplane.domain.failure import FailureCode, Refused, invalid

# Characters of one text: names, ids and sentences; a certificate request in what agents send is longer.
MAX_TEXT, MAX_AGENT_TEXT = 1024, 65536


def parse(raw: bytes, decode: Callable[[bytes], Any], limit: int) -> Any:
    """The message; MESSAGE_TOO_LARGE over `limit` bytes, INVALID_ARGUMENT for bytes that are none."""
    if len(raw) > limit:
        raise Refused(
            FailureCode.MESSAGE_TOO_LARGE,
            f"the request has {len(raw)} bytes, more than {limit}",
            field="request",
            given=f"{len(raw)} bytes",
            allowed=f"at most {limit} bytes",
        )
    try:
        return decode(raw)
    except DecodeError:
        raise invalid("request", f"{len(raw)} bytes", "a message of this call, as in the proto files") from None


def check_text(message: Message) -> None:
    """Refuse text that PostgreSQL cannot hold (NUL) or that nobody would write (over MAX_TEXT characters)."""
    most = MAX_AGENT_TEXT if message.DESCRIPTOR.full_name.startswith("wap.agent.") else MAX_TEXT
    for path, text in _texts(message, ""):
        if "\x00" in text:
            raise invalid(path, text.replace("\x00", "\\0"), "text without NUL characters")
        if len(text) > most:
            raise invalid(path, text, f"at most {most} characters")


def _texts(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        many = value if field.is_repeated else [value]
        for index, item in enumerate(many):
            path = f"{prefix}{field.name}" + (f"[{index}]" if field.is_repeated else "")
            if isinstance(item, str):
                yield path, item
            elif isinstance(item, Message):
                yield from _texts(item, f"{path}.")


def check_printable(field: str, text: str, most: int, *, least: int = 1) -> str:
    """The text, if it has `least` to `most` printable characters."""
    if not least <= len(text) <= most or not text.isprintable():
        raise invalid(field, text, f"{least} to {most} printable characters")
    return text
