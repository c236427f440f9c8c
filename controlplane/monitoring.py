"""Metrics, logs and alerts put together from the settings: stores, what is between them and the agents, and their tasks.

agents -> ingest -> hot hour (live charts, alerts) and tail (those who follow)
                 -> an outbox for each store, which writes at the store's pace
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import prometheus_client
import structlog

from collector.catalog import NODE
from controlplane.alerting.service import Alerting, AlertingSettings
from controlplane.api.monitoring import Monitoring
from controlplane.api.orders import OPERATION
from controlplane.domain.clock import Clock
from controlplane.fleet.port import Fleet
from controlplane.settings import Settings
from controlplane.store import commands, nodes
from controlplane.store.database import Database
from controlplane.store.vault import Vault
from controlplane.telemetry.counters import StoreFigures
from controlplane.telemetry.hot import HotHour
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.outbox import Outbox, bytes_of
from controlplane.telemetry.port import Frame, LogLine, StoreUnavailable
from controlplane.telemetry.tail import Tail
from controlplane.telemetry_stores import EMBEDDED, Stores, stores

UPKEEP_SECONDS = 60.0
# How long what people asked of agents stands in the store.
ORDERS_KEPT = timedelta(hours=1)
# About an hour of 1,000 nodes; what a store that is away longer misses is lost, the oldest first, and counted.
MOST_FRAMES, MOST_LINES = 400_000, 200_000
FLUSH_SECONDS = 5.0
REFILL_AGAIN_SECONDS = 5.0
log = structlog.get_logger(__name__)


class Telemetry:
    """Takes what agents report and answers for it: start, then `parts` for the API and `ingest` for agents, then close."""

    def __init__(self, made: Stores, database: Database, clock: Clock, fleet: Fleet) -> None:
        self._database, self._clock = database, clock
        self._metrics, self._logs = made.metrics, made.logs
        self.hot, self.tail = HotHour(clock), Tail()
        self._frames: Outbox[Frame] = Outbox(self._metrics.write, MOST_FRAMES, name="metrics")
        self._lines: Outbox[LogLine] = Outbox(self._logs.write, MOST_LINES, name="logs", size_of=bytes_of)
        self.ingest = Ingest(clock, self._take_frames, self._take_lines)
        outboxes: dict[str, Outbox[Any]] = {"metrics": self._frames, "logs": self._lines}
        self._figures = StoreFigures({**outboxes, "otlp": made.export} if made.export else outboxes, made.lost)
        self._tasks: list[asyncio.Task[None]] = []
        self.parts = Monitoring(
            self._metrics, self._logs, self.hot, self.tail, self.ingest, fleet, not database.is_postgres
        )

    async def start(self) -> None:
        """Begin to write, to look after the stores, and to fill the hot hour with what was stored before."""
        prometheus_client.REGISTRY.register(self._figures)
        self._frames.start()
        self._lines.start()
        loop = asyncio.get_running_loop()
        passes = (self._keep_metrics, self._keep_logs, self._forget)
        self._tasks = [loop.create_task(_again_and_again(one)) for one in passes]
        self._tasks.append(loop.create_task(self._refill()))

    async def close(self) -> None:
        """End the followers and write out what is held. Agents must have stopped reporting."""
        if not self._tasks:
            return
        self.tail.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self._frames.close(FLUSH_SECONDS), self._lines.close(FLUSH_SECONDS))
        await asyncio.gather(self._metrics.close(), self._logs.close())
        prometheus_client.REGISTRY.unregister(self._figures)

    def _take_frames(self, frames: Sequence[Frame]) -> None:
        self.hot.take(frames)
        self._frames.put(frames)

    def _take_lines(self, lines: Sequence[LogLine]) -> None:
        self.tail.publish(lines)
        self._lines.put(lines)

    async def _refill(self) -> None:
        while True:
            try:
                living = await self._database.read(nodes.living)
                await self.hot.refill(self._metrics, living, NODE)
                return
            except StoreUnavailable as away:
                log.warning("the hot hour is not filled yet", reason=str(away))
            except Exception:
                log.exception("the hot hour cannot be filled: charts of the last hour are read from the store")
                return
            await asyncio.sleep(REFILL_AGAIN_SECONDS)

    async def _keep_metrics(self) -> None:
        await self._metrics.upkeep(self._clock.now())

    async def _keep_logs(self) -> None:
        await self._logs.upkeep(self._clock.now())

    async def _forget(self) -> None:
        self.ingest.forget_silent()
        before = self._clock.now() - ORDERS_KEPT
        await self._database.ensure(lambda tx: commands.forget(tx, OPERATION, before))
        living = set(await self._database.read(nodes.living))
        gone = [node_id for node_id in self.hot.node_ids() if node_id not in living]
        self.ingest.forget(gone)
        for node_id in gone:
            self.hot.forget(node_id)


async def start_telemetry(settings: Settings, database: Database, clock: Clock, fleet: Fleet) -> Telemetry:
    """Telemetry with the stores that the settings name, at work."""
    if database.is_postgres and EMBEDDED in (settings.metrics_store, settings.logs_store):
        log.warning(
            "each control plane keeps what its own agents report in a file of its own: with several of them give "
            "--metrics-store and --logs-store a store that they share"
        )
    telemetry = Telemetry(stores(settings), database, clock, fleet)
    await telemetry.start()
    return telemetry


def start_alerting(
    settings: Settings, database: Database, vault: Vault, clock: Clock, hot: HotHour, holder: str
) -> Alerting:
    """Alerting, at work. `holder` is this control plane's executor id."""
    alerting = Alerting(
        database,
        vault,
        clock,
        hot,
        AlertingSettings(
            holder=holder,
            allow_private_webhooks=settings.allow_private_webhooks,
            certificate_life=timedelta(hours=settings.agent_certificate_hours),
        ),
    )
    alerting.start()
    return alerting


async def _again_and_again(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except StoreUnavailable as away:
            log.warning("a store cannot be looked after now", reason=str(away))
        except Exception:
            log.exception("a pass over the telemetry failed")
        await asyncio.sleep(UPKEEP_SECONDS)
