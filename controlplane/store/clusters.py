"""Clusters and their slots: desired state, guard and fencing number."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import func, literal, select, tuple_, update
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.cluster import ClusterSpec, ClusterState, advance
from controlplane.domain.failure import FailureCode, Refused
from controlplane.domain.node import AgentState
from controlplane.planner.topology import placements
from controlplane.store.bus import publish
from controlplane.store.database import take_turns
from controlplane.store.specs import spec_to_json
from controlplane.store.tables import Cluster, Node

# A /16 pool holds 256 networks of /24.
NETWORK_SLOTS = 256


def insert(
    tx: Session, *, project_id: str, name: str, spec: ClusterSpec, usd_per_month: float, now: datetime
) -> Cluster:
    """A new cluster in state CREATING with one node row per member. ALREADY_EXISTS when the project has the name."""
    take_turns(tx, "clusters")  # names and networks are looked for and taken
    check_name_free(tx, project_id, name)
    cluster = Cluster(
        id=ids.cluster_id(),
        project_id=project_id,
        name=name,
        name_key=name,
        spec=spec_to_json(spec),
        generation=1,
        state=ClusterState.CREATING,
        network_slot=_free_network_slot(tx),
        usd_per_month=usd_per_month,
        created_at=now,
        deleted_at=None,
        active_operation_id=None,
        epoch=0,
    )
    tx.add(cluster)
    tx.add_all(_nodes(cluster.id, spec, now))
    tx.flush()
    publish(tx, f"cluster/{cluster.id}")
    return cluster


def check_name_free(tx: Session, project_id: str, name: str) -> None:
    """ALREADY_EXISTS when a living cluster of the project has the name."""
    if by_name(tx, project_id, name) is not None:
        raise Refused(
            FailureCode.ALREADY_EXISTS,
            f"the project already has a cluster {name}",
            field="name",
            given=name,
            allowed="a name that no living cluster of the project has",
        )


def _nodes(cluster_id: str, spec: ClusterSpec, now: datetime) -> list[Node]:
    sizes = {rs.name: rs.size for rs in spec.replica_sets}
    return [
        Node(
            id=ids.node_id(),
            cluster_id=cluster_id,
            name=place.name,
            replica_set=place.replica_set,
            ordinal=place.ordinal,
            zone_wish=place.zone,
            instance_type=sizes[place.replica_set].instance_type,
            disk_gib=sizes[place.replica_set].disk_gib,
            agent_state=AgentState.WAITING,
            created_at=now,
        )
        for place in placements(spec)
    ]


def _free_network_slot(tx: Session) -> int:
    taken = set(tx.scalars(select(Cluster.network_slot).where(Cluster.network_slot.is_not(None))))
    for slot in range(NETWORK_SLOTS):
        if slot not in taken:
            return slot
    raise Refused(
        FailureCode.QUOTA_EXCEEDED,
        "every network of the installation's address pool is in use",
        field="network_slot",
        given=len(taken),
        allowed=f"at most {NETWORK_SLOTS} clusters",
    )


def get(tx: Session, cluster_id: str) -> Cluster | None:
    """The cluster, deleted ones too."""
    return tx.get(Cluster, cluster_id)


def by_name(tx: Session, project_id: str, name: str) -> Cluster | None:
    """The living cluster of that name in the project."""
    return tx.scalar(select(Cluster).where(Cluster.project_id == project_id, Cluster.name_key == name))


def list_page(
    tx: Session,
    *,
    project_ids: Collection[str] | None,
    include_deleted: bool,
    after: tuple[str, str] | None,
    limit: int | None,
) -> Sequence[Cluster]:
    """Clusters ordered by name, behind the given (name, id); `project_ids` None means all projects."""
    query = select(Cluster).order_by(Cluster.name, Cluster.id).limit(limit)
    if after is not None:
        query = query.where(tuple_(Cluster.name, Cluster.id) > tuple_(*(literal(part) for part in after)))
    if project_ids is not None:
        query = query.where(Cluster.project_id.in_(project_ids))
    if not include_deleted:
        query = query.where(Cluster.state != ClusterState.DELETED)
    return tx.scalars(query).all()


def count_living(tx: Session, project_id: str) -> int:
    """Clusters of the project that are not deleted."""
    query = select(func.count()).select_from(Cluster)
    return tx.execute(query.where(Cluster.project_id == project_id, Cluster.state != ClusterState.DELETED)).scalar_one()


def nodes_of(tx: Session, cluster_ids: Collection[str]) -> Sequence[Node]:
    """Nodes of these clusters in slot order."""
    query = select(Node).where(Node.cluster_id.in_(cluster_ids))
    return tx.scalars(query.order_by(Node.cluster_id, Node.replica_set, Node.ordinal)).all()


def nodes_by_cluster(tx: Session, cluster_ids: Collection[str]) -> dict[str, list[Node]]:
    """Nodes in slot order, by cluster."""
    found: dict[str, list[Node]] = {cluster_id: [] for cluster_id in cluster_ids}
    for node in nodes_of(tx, cluster_ids):
        found[node.cluster_id].append(node)
    return found


def set_state(tx: Session, cluster_id: str, state: ClusterState, now: datetime) -> None:
    """Move the cluster to a state that may follow its own; DELETED frees its name and network."""
    cluster = tx.get_one(Cluster, cluster_id)
    cluster.state = advance(ClusterState(cluster.state), state)
    if state is ClusterState.DELETED:
        cluster.deleted_at = now
        cluster.network_slot = None
        cluster.name_key = f"{cluster.name}/{cluster.id}"
    publish(tx, f"cluster/{cluster_id}")


def take_guard(tx: Session, cluster_id: str, operation_id: str) -> bool:
    """Make the operation the cluster's only one; False when another holds it. The same operation may take it again."""
    taken = tx.execute(
        update(Cluster)
        .where(Cluster.id == cluster_id)
        .where(Cluster.active_operation_id.is_(None) | (Cluster.active_operation_id == operation_id))
        .values(active_operation_id=operation_id)
        .returning(Cluster.id)
    )
    publish(tx, f"cluster/{cluster_id}")
    return taken.scalar() is not None


def drop_guard(tx: Session, cluster_id: str, operation_id: str) -> None:
    """Free the cluster, if this operation holds it."""
    tx.execute(
        update(Cluster)
        .where(Cluster.id == cluster_id, Cluster.active_operation_id == operation_id)
        .values(active_operation_id=None)
    )
    publish(tx, f"cluster/{cluster_id}")


def raise_epoch(tx: Session, cluster_id: str) -> int:
    """The next fencing number: whoever carries a lower one is a leftover and is refused from now on."""
    tx.execute(update(Cluster).where(Cluster.id == cluster_id).values(epoch=Cluster.epoch + 1))
    return tx.execute(select(Cluster.epoch).where(Cluster.id == cluster_id)).scalar_one()


def epoch_is(tx: Session, cluster_id: str, epoch: int) -> bool:
    """Whether the fencing number is still this one; the row stays locked for the rest of the transaction."""
    found = tx.execute(select(Cluster.epoch).where(Cluster.id == cluster_id).with_for_update()).scalar_one()
    return found == epoch
