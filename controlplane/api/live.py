"""Live samples of some nodes: from memory where their agents report here, else from the store, where others put them."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session
from wap.control.v1 import metric_pb2 as pb

from controlplane.api.monitoring import Monitoring
from controlplane.api.wire import time_to_wire
from controlplane.domain.clock import Clock
from controlplane.store.database import Database
from controlplane.store.nodes import NodeName
from controlplane.telemetry.grid import choose, step_starts
from controlplane.telemetry.port import MetricQuery, StoreUnavailable

# Members come and go; a look at the database so often is enough to follow them.
NODES_SECONDS = 15.0
# A node that has not reported here for so long may report elsewhere.
STALE = timedelta(seconds=30)
STORE_SECONDS = 5.0
STORE_LOOKS_BACK = timedelta(minutes=2)


class LiveSamples:
    """What is new since the last look, for one stream."""

    def __init__(
        self,
        monitoring: Monitoring,
        database: Database,
        find: Callable[[Session], Mapping[str, NodeName]],
        metrics: Sequence[str],
        clock: Clock,
    ) -> None:
        self._monitoring, self._database, self._find, self._clock = monitoring, database, find, clock
        self._metrics = metrics
        self._nodes: Sequence[str] = ()
        self._found_at = self._stored_at = float("-inf")
        self._sent: dict[tuple[str, str], datetime] = {}

    async def nodes(self) -> Sequence[str]:
        """Ids of the nodes at this time."""
        if time.monotonic() - self._found_at > NODES_SECONDS:
            self._nodes, self._found_at = list(await self._database.read(self._find)), time.monotonic()
        return self._nodes

    async def fresh(self) -> list[pb.Sample]:
        """Samples that are newer than those given out before; of each metric only the newest."""
        found, elsewhere = [], []
        for node_id in await self.nodes():
            latest = self._monitoring.hot.latest(node_id)
            readings = [(name, latest[name]) for name in self._metrics if name in latest]
            found += [self._sample(node_id, name, one.time, one.value) for name, one in readings]
            if all(one.time < self._clock.now() - STALE for _, one in readings):
                elsewhere.append(node_id)
        if elsewhere and not self._monitoring.alone and time.monotonic() - self._stored_at > STORE_SECONDS:
            self._stored_at = time.monotonic()
            found += await self._from_store(elsewhere)
        return [sample for sample in found if sample is not None]

    async def _from_store(self, node_ids: Sequence[str]) -> list[pb.Sample | None]:
        now = self._clock.now()
        grid = choose(now - STORE_LOOKS_BACK, now, None, now)
        try:
            series = await self._monitoring.metrics.query(MetricQuery(node_ids, self._metrics, grid, object=""))
        except StoreUnavailable:
            return []
        starts, found = step_starts(grid), []
        for one in series:
            held = [(start, value) for start, value in zip(starts, one.averages, strict=True) if value is not None]
            if held:
                found.append(self._sample(one.node_id, one.metric, *held[-1]))
        return found

    def _sample(self, node_id: str, metric: str, at: datetime, value: float) -> pb.Sample | None:
        key = (node_id, metric)
        if key in self._sent and self._sent[key] >= at:
            return None
        self._sent[key] = at
        return pb.Sample(node_id=node_id, metric=metric, time=time_to_wire(at), value=value)
