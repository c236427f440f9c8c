"""Reading a list that comes in pages."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

PAGE_SIZE_MAX = 500
"""What the control API allows at most."""


class PageRequest(Protocol):
    """A request of a paged list."""

    page_size: int
    page_token: str


class PageReply(Protocol):
    """An answer of a paged list; its only repeated field holds the rows."""

    next_page_token: str


Request = TypeVar("Request", bound=PageRequest)
Reply = TypeVar("Reply", bound=Message)


def collect(call: Callable[[Request], Reply], request: Request, merged: Reply, limit: int) -> Reply:
    """Ask for pages until `limit` rows or the end; `merged` collects them and keeps the token of what was left out."""
    rows = next(field.name for field in merged.DESCRIPTOR.fields if field.is_repeated)
    while True:
        request.page_size = min(PAGE_SIZE_MAX, limit - len(getattr(merged, rows)))
        reply = call(request)
        merged.ClearField("next_page_token")
        merged.MergeFrom(reply)
        token = getattr(reply, "next_page_token", "")
        if not token or len(getattr(merged, rows)) >= limit:
            return merged
        request.page_token = token
