"""Waiting for a condition with a deadline: the only way tests let time pass."""

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


class NotInTimeError(AssertionError):
    """The condition did not come true before the deadline."""


@overload
async def eventually(check: Callable[[], Awaitable[T]], *, within: float, every: float = ...) -> T: ...


@overload
async def eventually(check: Callable[[], T], *, within: float, every: float = ...) -> T: ...


async def eventually(check: Callable[[], Any], *, within: float, every: float = 0.05) -> Any:
    """Call `check` until it returns something true and return that; NotInTimeError after `within` seconds.

    An AssertionError inside `check` counts as "not yet" and is told if the deadline passes.
    """
    deadline = time.monotonic() + within
    while True:
        last: object = None
        try:
            found = check()
            value = await found if inspect.isawaitable(found) else found
            if value:
                return value
            last = value
        except AssertionError as not_yet:
            last = not_yet
        if time.monotonic() > deadline:
            raise NotInTimeError(f"not true within {within} s; last seen: {last!r}")
        await asyncio.sleep(every)


def wait_until(check: Callable[[], T], *, within: float, every: float = 0.05) -> T:
    """The same for code without an event loop."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while True:
        last: object = None
        try:
            last = value = check()
            if value:
                return value
        except AssertionError as not_yet:
            last = not_yet
        if time.monotonic() > deadline:
            raise NotInTimeError(f"not true within {within} s; last seen: {last!r}")
        pause.wait(every)
