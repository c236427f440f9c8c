"""The task that sends what waits. Each channel by itself: a slow one delays no other, and none delays an evaluation."""

import asyncio

import structlog
from prometheus_client import Counter

from controlplane.alerting.channels import Channels
from controlplane.alerting.webhooks import Outcome
from controlplane.domain.clock import Clock
from controlplane.store import alert_channels
from controlplane.store.alert_channels import TOPIC, Taken
from controlplane.store.database import Database
from controlplane.store.vault import Vault

# Where no wake-up call comes: the end of a pause, and calls that were lost.
LOOK_SECONDS = 5.0
CLOSE_SECONDS = 2.0
log = structlog.get_logger(__name__)
MESSAGES = Counter("wap_alert_messages", "Messages about alerts", ["kind", "outcome"])


class Notifier:
    """Sends messages from the queue in the database.

    `most_waiting`: messages that are kept for one channel. `close_seconds`: how long `close` lets a sending go on.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        channels: Channels,
        *,
        most_waiting: int = alert_channels.MOST_WAITING,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._database, self._vault, self._clock, self._channels = database, vault, clock, channels
        self._most_waiting, self._close_seconds = most_waiting, close_seconds
        self._sending: dict[asyncio.Task[None], str] = {}

    async def run(self) -> None:
        """Send until cancelled."""
        with self._database.bus.subscribe(TOPIC) as changes:
            while True:
                try:
                    await self.send_due()
                except Exception:  # what waits stays in the database; the next look sends it
                    log.exception("could not look for messages about alerts")
                await changes.wait(LOOK_SECONDS)

    async def send_due(self) -> int:
        """Begin to send what may be sent now; through how many channels."""
        now = self._clock.now()
        if not await self._database.read(lambda tx: alert_channels.has_due(tx, now)):
            return 0
        taken = await self._database.write(
            lambda tx: alert_channels.take(tx, self._vault, now, most_waiting=self._most_waiting)
        )
        for message in taken:
            task = asyncio.get_running_loop().create_task(self._send(message))
            self._sending[task] = message.channel_id
            task.add_done_callback(self._sending.pop)
        return len(taken)

    async def settle(self) -> None:
        """Wait for what is being sent."""
        while self._sending:
            await asyncio.wait(self._sending)

    async def close(self) -> None:
        """Let what is being sent end for a moment; the rest stays queued, and may be tried at once."""
        if not self._sending:
            return
        _, late = await asyncio.wait(self._sending, timeout=self._close_seconds)
        held = [self._sending[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self._database.write(lambda tx: alert_channels.let_go(tx, held))

    async def _send(self, message: Taken) -> None:
        try:
            outcome = await self._channels.send(message)
        except Exception as error:  # a channel's fault must be shown with the channel, whatever it is
            log.exception("a channel failed in an unforeseen way", channel=message.channel_id)
            outcome = Outcome(False, f"unforeseen: {type(error).__name__}")
        MESSAGES.labels(message.kind.lower(), "delivered" if outcome.delivered else "failed").inc()
        now = self._clock.now()
        if outcome.delivered:
            await self._database.ensure(lambda tx: alert_channels.delivered(tx, message, now))
            return
        log.warning("alerts not sent", channel=message.name, reason=outcome.detail, waiting=len(message.delivery_ids))
        permanent = outcome.permanent
        await self._database.ensure(
            lambda tx: alert_channels.failed(tx, message, outcome.detail, now, permanent=permanent)
        )
