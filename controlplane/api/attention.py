"""Nodes sample faster while somebody looks at them, and fall back by themselves when nobody does any more."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import structlog
from wap.agent.v1 import command_pb2

from controlplane.api.orders import Orders
from controlplane.domain.failure import WapFailure

FOR_SECONDS = 60
AGAIN_SECONDS = 40.0
log = structlog.get_logger(__name__)


class Attention:
    """Tells agents how often to sample. Of several who look at a node the most impatient one counts."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        # What a node was told, and until when it holds, by a clock that only goes forward.
        self._told: dict[str, tuple[int, float]] = {}

    @contextlib.asynccontextmanager
    async def to(self, nodes: Callable[[], Awaitable[Sequence[str]]], interval_seconds: int) -> AsyncIterator[None]:
        """While this is open, these nodes sample at least so often."""
        task = asyncio.get_running_loop().create_task(self._keep(nodes, interval_seconds))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self, nodes: Callable[[], Awaitable[Sequence[str]]], interval_seconds: int) -> None:
        while True:
            wanted = [node_id for node_id in await nodes() if self._must_tell(node_id, interval_seconds)]
            for node_id in wanted:  # at once: others look here before the agents have answered
                self._told[node_id] = (interval_seconds, time.monotonic() + FOR_SECONDS)
            await asyncio.gather(*(self._tell(node_id, interval_seconds) for node_id in wanted))
            await asyncio.sleep(AGAIN_SECONDS / 4)

    def _must_tell(self, node_id: str, interval_seconds: int) -> bool:
        told, until = self._told.get(node_id, (0, float("-inf")))
        left = until - time.monotonic()
        return left < FOR_SECONDS - AGAIN_SECONDS or told > interval_seconds

    async def _tell(self, node_id: str, interval_seconds: int) -> None:
        body = command_pb2.SetSampling(interval_seconds=interval_seconds, for_seconds=FOR_SECONDS)
        try:
            await self._orders.give(node_id, command_pb2.Command(set_sampling=body))
        except WapFailure as failure:
            # Its usual samples are shown; the next turn asks again.
            self._told.pop(node_id, None)
            log.debug("a node does not sample faster", node=node_id, reason=failure.code)
