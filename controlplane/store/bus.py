"""Wake-up calls: "something about this topic has changed, look again". The rows are the truth; a lost call costs a poll.

Topics: "cluster/<id>", "operation/<id>", "node/<id>", "command/<node id>" (work for its session), "result/<command id>",
"session/<node id>" (ban or newer session), "access" (users, tokens). Inside a transaction `publish` notes a topic;
it goes out after the commit, in this process directly and to other control planes by PostgreSQL's NOTIFY.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator
from types import TracebackType

import psycopg
import structlog
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

CHANNEL = "wap"
_TOPICS = "wap.topics"
log = structlog.get_logger(__name__)


def publish(tx: Session, *topics: str) -> None:
    """Note that these topics change with this transaction."""
    tx.info.setdefault(_TOPICS, []).extend(topics)


def take_topics(tx: Session) -> list[str]:
    """The topics noted so far, each once, in order; forgets them."""
    return list(dict.fromkeys(tx.info.pop(_TOPICS, [])))


class Subscription:
    """Wakes a waiter when one of its topic prefixes changes. Use as a context manager."""

    def __init__(self, bus: "Bus", prefixes: tuple[str, ...]) -> None:
        self._bus, self.prefixes = bus, prefixes
        self._event = asyncio.Event()
        self._seen: set[str] = set()

    def wake(self, topic: str) -> None:
        """Remember the topic and wake the waiter."""
        self._seen.add(topic)
        self._event.set()

    async def wait(self, timeout: float) -> set[str]:
        """Topics that changed since the last call; empty after `timeout` seconds without a change."""
        # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()
        seen, self._seen = self._seen, set()
        return seen

    def __enter__(self) -> "Subscription":
        self._bus.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.remove(self)


class Bus:
    """Delivers topics to subscriptions of this process and, on PostgreSQL, of the others."""

    def __init__(self, engine: Engine | None) -> None:
        self._engine = engine
        self._origin = secrets.token_hex(8)
        self._subscriptions: set[Subscription] = set()
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    def subscribe(self, *prefixes: str) -> Subscription:
        """A subscription to all topics that begin with one of the prefixes."""
        return Subscription(self, prefixes)

    def add(self, subscription: Subscription) -> None:
        """Begin to wake the subscription."""
        self._subscriptions.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Stop waking the subscription."""
        self._subscriptions.discard(subscription)

    def deliver(self, topics: Iterable[str]) -> None:
        """Wake the subscriptions of this process; call in the event loop."""
        for topic in topics:
            for subscription in tuple(self._subscriptions):
                if topic.startswith(subscription.prefixes):
                    subscription.wake(topic)

    def notify(self, tx: Session, topics: list[str]) -> None:
        """Tell other control planes when this PostgreSQL transaction commits."""
        for chunk in _chunks(topics, 50):  # NOTIFY carries at most 8000 bytes
            payload = json.dumps({"from": self._origin, "topics": chunk})
            tx.execute(text("select pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})

    async def start(self) -> None:
        """Begin to listen to other control planes (PostgreSQL only); returns when it listens."""
        if self._engine is not None and self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen(self._engine))
            await self._listening.wait()

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    async def _listen(self, engine: Engine) -> None:
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self.deliver_all()  # what was missed while not listening
                    self._listening.set()
                    async for notice in connection.notifies():
                        message = json.loads(notice.payload)
                        if message["from"] != self._origin:
                            self.deliver(message["topics"])
            except psycopg.OperationalError as error:
                log.warning("lost the notification connection; trying again", error=type(error).__name__)
                await asyncio.sleep(0.5)

    def deliver_all(self) -> None:
        """Wake everybody once, because calls may have been missed."""
        for subscription in tuple(self._subscriptions):
            for prefix in subscription.prefixes:
                subscription.wake(prefix)


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
