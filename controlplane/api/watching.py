"""How a watch sends: at once, then after every change, never twice the same, and a burst of changes as one."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from controlplane.store.bus import Bus

M = TypeVar("M", bound=Message)
# The steps of one stage end within moments of each other: they are one change to who looks on.
SETTLE_SECONDS = 0.1
# Health changes by time alone when agents fall silent, and a wake-up call may be lost.
LOOK_SECONDS = 3.0


async def watch(bus: Bus, topics: tuple[str, ...], look: Callable[[], Awaitable[M]]) -> AsyncGenerator[M]:
    """What `look` returns, whenever it is something new; it is asked when one of the topics changes."""
    last: bytes | None = None
    with bus.subscribe(*topics) as changes:  # before the first look, so that nothing falls between
        while True:
            found = await look()
            text = found.SerializeToString(deterministic=True)
            if text != last:
                last = text
                yield found
            if await changes.wait(LOOK_SECONDS):
                await asyncio.sleep(SETTLE_SECONDS)
