"""What has changed under one topic, and from time to time everything, in case a wake-up call was lost.

"From time to time" goes by the clock and not by quiet: where something always changes, a lost call would else stay lost.
"""

import time

from controlplane.store.bus import Subscription


class Wakeups:
    """Names after the topic's slash."""

    def __init__(self, subscription: Subscription, every: float) -> None:
        self._subscription, self._every = subscription, every
        self._due = time.monotonic() + every

    async def next(self) -> set[str] | None:
        """Names that changed since the last call; None when everything is to be looked at."""
        topics = await self._subscription.wait(max(0.0, self._due - time.monotonic()))
        names = {topic.partition("/")[2] for topic in topics}
        if "" not in names and time.monotonic() < self._due:
            return names
        self._due = time.monotonic() + self._every
        return None
