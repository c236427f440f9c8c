"""Waiting for AWS: always bounded, with growing pauses, and always saying what for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from controlplane.cloud.port import Progress
from controlplane.domain.failure import CloudFailure, FailureCode

T = TypeVar("T")
PAUSE_GROWTH = 1.5


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds."""

    # For what was just created to be visible: the AWS eventual-consistency guide speaks of seconds up to a minute.
    visible: float = 60.0
    # For a create without client token whose reply was lost to show up before it is sent again.
    unsure: float = 10.0
    running: float = 600.0
    volume: float = 300.0
    gone: float = 600.0
    dependents: float = 300.0
    first_pause: float = 0.1
    longest_pause: float = 5.0


class NotYet(Exception):
    """Not an error but the state of affairs: it is not so yet, and the text says what is waited for."""


async def until(
    look: Callable[[], Awaitable[T]], *, within: float, patience: Patience, progress: Progress | None = None
) -> T:
    """Call `look` until it does not raise NotYet. CLOUD_UNAVAILABLE, retryable, when the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    pause = patience.first_pause
    while True:
        try:
            return await look()
        except NotYet as reason:
            state = str(reason)
        if loop.time() + pause > deadline:
            text = f"{state}; gave up waiting after {within:g} s"
            raise CloudFailure(FailureCode.CLOUD_UNAVAILABLE, text, retryable=True)
        if progress is not None:
            await progress(state)
        await asyncio.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, patience.longest_pause)
