"""Alerting as the server starts and closes it."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

from controlplane.alerting.channels import Channels
from controlplane.alerting.decide import Measurements
from controlplane.alerting.evaluate import EVERY_SECONDS, Evaluator
from controlplane.alerting.notify import Notifier
from controlplane.domain.clock import Clock
from controlplane.store.database import Database, is_connection_loss
from controlplane.store.vault import Vault


@dataclass(frozen=True)
class AlertingSettings:
    """`holder` names this control plane among several, as its executor id does."""

    holder: str = "embedded"
    allow_private_webhooks: bool = False
    # For how long agents' certificates are made; the built-in rule warns when a quarter of it is left.
    certificate_life: timedelta = timedelta(hours=24)
    every_seconds: float = EVERY_SECONDS


class Alerting:
    """Both tasks. `channels` is what the API tries channels with too."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        measurements: Measurements,
        settings: AlertingSettings | None = None,
    ) -> None:
        settings = settings or AlertingSettings()
        self.channels = Channels(allow_private=settings.allow_private_webhooks, clock=clock)
        self._evaluator = Evaluator(
            database,
            vault,
            clock,
            measurements,
            holder=settings.holder,
            certificate_life=settings.certificate_life,
            every_seconds=settings.every_seconds,
        )
        self._notifier = Notifier(database, vault, clock, self.channels)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look and to send. Call in the running event loop, after the schema is there."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._evaluator.run()), loop.create_task(self._notifier.run())]

    async def close(self) -> None:
        """Stop; what waits to be sent stays in the database. Call before the database is closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                try:
                    await self._notifier.close()
                    await self._evaluator.let_go()
                except Exception as error:
                    if not is_connection_loss(error):  # without a database there is nothing to let go
                        raise
