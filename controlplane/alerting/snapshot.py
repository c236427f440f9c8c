"""What the database says at one moment of everything that rules are held against: one short transaction a round."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.alerting.built_in import BUILT_IN
from controlplane.domain.alert import Place, RuleBook
from controlplane.domain.cluster import ClusterState
from controlplane.store import alerts
from controlplane.store.alert_tables import Alert
from controlplane.store.alerts import Subject
from controlplane.store.tables import Cluster, Node

# A cluster that is being made or taken away is not what people want to be woken for; its operation tells of it.
WATCHED = (ClusterState.AVAILABLE, ClusterState.UPDATING, ClusterState.FAILED)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node as its agent left it in the database."""

    subject: Subject
    replica_set: str
    agent_state: str
    last_seen_at: datetime | None
    certificate_expires_at: datetime | None
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """One cluster with its nodes."""

    subject: Subject
    nodes: tuple[NodeFacts, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Clusters that are watched, the rules, and the open alerts by their key."""

    clusters: tuple[ClusterFacts, ...]
    book: RuleBook
    open: Mapping[str, Alert]


def read(tx: Session) -> Snapshot:
    """The state of everything."""
    rows = tx.execute(
        select(
            Cluster.id,
            Cluster.project_id,
            Cluster.name,
            Node.id,
            Node.name,
            Node.replica_set,
            Node.agent_state,
            Node.last_seen_at,
            Node.certificate_expires_at,
            Node.report,
        )
        .join(Node, Node.cluster_id == Cluster.id)
        .where(Cluster.state.in_(WATCHED), Node.removed_at.is_(None))
        .order_by(Cluster.id, Node.name)
    ).all()
    nodes: dict[Subject, list[NodeFacts]] = {}
    for cluster_id, project_id, cluster_name, node_id, node_name, *facts in rows:
        cluster = Subject(Place(project_id, cluster_id), cluster_name)
        # As everywhere: of cluster and slot.
        subject = Subject(Place(project_id, cluster_id, node_id), cluster_name, f"{cluster_name}-{node_name}")
        replica_set, state, seen, expires, report = facts
        nodes.setdefault(cluster, []).append(NodeFacts(subject, replica_set, state, seen, expires, report or {}))
    return Snapshot(
        tuple(ClusterFacts(cluster, tuple(members)) for cluster, members in nodes.items()),
        RuleBook([*BUILT_IN, *alerts.list_rules(tx)]),
        {alert.open_key: alert for alert in alerts.list_open(tx) if alert.open_key},
    )
