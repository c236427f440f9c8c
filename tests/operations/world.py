"""One installation without servers: real store, engine, runner and cloud port; a simulated fleet; the EC2 sandbox.

Both the tests and the driver (a control plane in a process of its own) are put together here.
"""

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.cloud.port import TAG_CLUSTER, TAG_RESOURCE, Cloud
from controlplane.cloud.port import CloudResource as CloudThing
from controlplane.cloud.waiting import Patience
from controlplane.domain.clock import SystemClock
from controlplane.domain.cluster import ClusterSpec, NodeSize, ReplicaSetRole, ReplicaSetSpec, Topology
from controlplane.domain.operation import SETTLED, OperationKind
from controlplane.fleet.authority import Authority
from controlplane.fleet.fake import SimulatedFleet
from controlplane.operations.tools import Distribution, Installation, Persistence, Tools
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.store import clusters, operations
from controlplane.store.database import Database
from controlplane.store.operations import OperationQueue
from controlplane.store.tables import CloudResource, Cluster, Operation, OperationStep
from controlplane.store.vault import KEY_BYTES, Vault
from tests.waiting import eventually

REGION = "us-east-1"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
IMAGE = "ami-12c6146b"  # one that moto knows
SPEC = ClusterSpec(
    Topology.REPLICA_SET,
    "6.0.5",
    REGION,
    ZONES,
    (ReplicaSetSpec("rs0", ReplicaSetRole.DATA, 3, NodeSize("m6i.large", 20)),),
)
# What one cluster is made of.
WHOLE = Counter({"vpc": 1, "gateway": 1, "subnet": 3, "security-group": 1, "instance": 3, "volume": 3})
# The sandbox answers in milliseconds; only the lengths differ from the product's.
QUICK = Patience(
    visible=10, unsure=1.5, running=30, volume=15, gone=30, dependents=15, first_pause=0.02, longest_pause=0.1
)
# Long enough for a machine that is shared with others; only what fails for good waits so long.
PERSISTENCE = Persistence(total=10.0, first_pause=0.02, longest_pause=0.2)
POLL_SECONDS = 0.03
KEY = b"k" * KEY_BYTES


@dataclass(frozen=True)
class Identity:
    """What control planes of one installation share beside the database."""

    install_id: str = field(default_factory=lambda: f"in-{secrets.token_hex(6)}")
    install_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))


async def make_tools(database: Database, fleet: SimulatedFleet, identity: Identity, cloud: Cloud) -> Tools:
    vault, clock = Vault(KEY), SystemClock()
    authority = await Authority.load(database, vault, clock, identity.install_id, 24.0)
    return Tools(
        database=database,
        cloud=lambda _region: cloud,
        fleet=fleet,
        authority=authority,
        vault=vault,
        clock=clock,
        installation=Installation(
            install_id=identity.install_id,
            install_key=identity.install_key,
            enroll_endpoint="127.0.0.1:1",
            ca_pem=authority.ca_pem,
            boot_command="exec sleep 600",
            image=IMAGE,
            instance_profile="",
            kms_key="",
            network_pool="127.78.0.0/16",
            distributions={"6.0.5": Distribution("6.0.5", directory="/opt/mongodb")},
        ),
        persistence=PERSISTENCE,
    )


def quick_cloud() -> EC2Cloud:
    return EC2Cloud(REGION, QUICK)


@dataclass
class World:
    """The installation and its engine, with what tests ask of them."""

    tools: Tools
    identity: Identity
    cloud: EC2Cloud
    queue: OperationQueue

    @property
    def database(self) -> Database:
        return self.tools.database

    @property
    def fleet(self) -> SimulatedFleet:
        assert isinstance(self.tools.fleet, SimulatedFleet)
        return self.tools.fleet

    async def create(self, name: str = "demo", spec: ClusterSpec = SPEC) -> Operation:
        """As the API does it."""

        def work(tx: Session) -> Operation:
            now = self.tools.clock.now()
            cluster = clusters.insert(tx, project_id="pr-1", name=name, spec=spec, usd_per_month=1.0, now=now)
            return self._open(tx, cluster, OperationKind.CREATE_CLUSTER)

        return await self.database.write(work)

    async def delete(self, cluster_id: str) -> Operation:
        """As the API does it."""
        return await self.database.write(
            lambda tx: self._open(tx, tx.get_one(Cluster, cluster_id), OperationKind.DELETE_CLUSTER)
        )

    def _open(self, tx: Session, cluster: Cluster, kind: OperationKind) -> Operation:
        create = kind is OperationKind.CREATE_CLUSTER
        return operations.open_operation(
            tx,
            self.queue,
            cluster=cluster,
            kind=kind,
            plan=plan_create(cluster.name, SPEC) if create else plan_delete(SPEC),
            actor="user:test",
            request_id="rq-1",
            now=self.tools.clock.now(),
        )

    async def cancel(self, operation_id: str) -> None:
        await self._on(operation_id, lambda tx, row: operations.request_cancel(tx, row))

    async def retry(self, operation_id: str) -> None:
        await self._on(operation_id, lambda tx, row: operations.retry(tx, self.queue, row))

    async def abandon(self, operation_id: str) -> None:
        await self._on(operation_id, lambda tx, row: operations.abandon(tx, row, self.tools.clock.now()))

    async def _on(self, operation_id: str, change: Callable[[Session, Operation], None]) -> None:
        await self.database.write(lambda tx: change(tx, tx.get_one(Operation, operation_id)))

    async def operation(self, operation_id: str) -> Operation:
        return await self.database.read(lambda tx: tx.get_one(Operation, operation_id))

    async def steps(self, operation_id: str) -> dict[str, OperationStep]:
        rows = await self.database.read(lambda tx: operations.steps_of(tx, operation_id))
        return {row.name: row for row in rows}

    async def cluster(self, cluster_id: str) -> Cluster:
        return await self.database.read(lambda tx: tx.get_one(Cluster, cluster_id))

    async def settled(self, operation_id: str, within: float = 60.0) -> Operation:
        """The operation when nothing moves by itself any more."""

        async def look() -> Operation | None:
            found = await self.operation(operation_id)
            return found if found.state in SETTLED else None

        found = await eventually(look, within=within)
        assert found is not None
        return found

    async def things(self, cluster_id: str) -> list[CloudThing]:
        """What the cloud has of the cluster, without the root volumes, which come and go with their instances."""
        found = await self.cloud.inventory(self.identity.install_id)
        mine = [item for item in found if item.tags.get(TAG_CLUSTER) == cluster_id]
        return [item for item in mine if item.tags[TAG_RESOURCE].startswith(item.kind)]

    async def present(self, cluster_id: str) -> Counter[str]:
        """How many of each kind the cloud has of the cluster."""
        return Counter(item.kind for item in await self.things(cluster_id))

    async def ids_present(self, cluster_id: str) -> set[str]:
        return {item.id for item in await self.things(cluster_id)}

    async def ledgered(self, cluster_id: str) -> set[str]:
        """Ids that the ledger takes for alive."""
        query = select(CloudResource.cloud_id).where(
            CloudResource.cluster_id == cluster_id, CloudResource.deleted_at.is_(None), CloudResource.cloud_id != ""
        )
        return set(await self.database.read(lambda tx: tx.scalars(query).all()))

    def repeated_effects(self, operation_id: str) -> dict[str, int]:
        """Commands of the operation that took effect more than once."""
        return {key: count for key, count in self.fleet.effects().items() if operation_id in key and count > 1}
