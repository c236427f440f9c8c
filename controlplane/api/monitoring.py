"""What the calls about metrics and logs work with, and what they share: whose data, and a store that may be away."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from controlplane.api.calls import Call
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.fleet.port import Fleet
from controlplane.store import nodes
from controlplane.store.nodes import NodeName
from controlplane.telemetry.hot import HotHour
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.port import LogStore, MetricStore, StoreUnavailable
from controlplane.telemetry.tail import Tail

T = TypeVar("T")


@dataclass(frozen=True)
class Monitoring:
    """Stores, live data and the way to agents, put together once by the composition root."""

    metrics: MetricStore
    logs: LogStore
    hot: HotHour
    tail: Tail
    ingest: Ingest
    fleet: Fleet
    # No other control plane takes reports: what is hot here is all there is.
    alone: bool = True


async def asked(what: str, answer: Awaitable[T]) -> T:
    """A store's answer; UNAVAILABLE where it has none now."""
    try:
        return await answer
    except StoreUnavailable as away:
        raise WapFailure(
            FailureCode.UNAVAILABLE, f"the store of {what} does not answer: {away}", retryable=True
        ) from away


def visible(
    call: Call, *, project_id: str = "", cluster_id: str = "", node_id: str = ""
) -> Callable[[Session], dict[str, NodeName]]:
    """Finds the nodes that the caller may see and asks for. All that is given must be true of them."""

    def find(tx: Session) -> dict[str, NodeName]:
        found = nodes.names(tx, project_ids=call.projects(), cluster_id=cluster_id, node_id=node_id)
        return {name: node for name, node in found.items() if project_id in ("", node.project_id)}

    return find
