"""Rows that the store's tests begin with."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy.orm import Session

from controlplane.domain.cluster import ClusterSpec, NodeSize, ReplicaSetRole, ReplicaSetSpec, Topology
from controlplane.domain.failure import Refused
from controlplane.domain.operation import OperationKind
from controlplane.planner.create import plan_create
from controlplane.planner.plan import Plan
from controlplane.store import clusters, operations
from controlplane.store.database import Database
from controlplane.store.fake_queue import FakeQueue
from controlplane.store.tables import Cluster, Operation

T = TypeVar("T")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIZE = NodeSize("m6i.large", 20)
SPEC = ClusterSpec(
    Topology.REPLICA_SET,
    "6.0.5",
    "us-east-1",
    ("us-east-1a", "us-east-1b", "us-east-1c"),
    (ReplicaSetSpec("rs0", ReplicaSetRole.DATA, 3, SIZE),),
)
PLAN = plan_create("demo", SPEC)


def add_cluster(name: str = "demo", project: str = "pr-1") -> Callable[[Session], Cluster]:
    return lambda tx: clusters.insert(tx, project_id=project, name=name, spec=SPEC, usd_per_month=1.0, now=NOW)


def open_one(
    cluster: Cluster,
    queue: FakeQueue,
    *,
    kind: OperationKind = OperationKind.CREATE_CLUSTER,
    plan: Plan = PLAN,
    now: datetime = NOW,
    key: str | None = None,
) -> Callable[[Session], Operation]:
    """A new operation on the cluster."""
    return lambda tx: operations.open_operation(
        tx,
        queue,
        cluster=cluster,
        kind=kind,
        plan=plan,
        actor="user:admin",
        request_id="rq-1",
        now=now,
        idempotency_key=key,
    )


async def all_at_once(database: Database, work: Iterable[Callable[[Session], T]]) -> list[T | Refused]:
    """What each transaction returns or refuses, all begun at the same time; any other error is raised."""
    outcomes = await asyncio.gather(*(database.write(one) for one in work), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Refused):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException) or isinstance(outcome, Refused)]
