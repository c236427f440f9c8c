"""Projects, clusters with their members and health, and nodes -> proto."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf import json_format
from wap.agent.v1 import report_pb2
from wap.control.v1 import cluster_pb2, node_pb2, project_pb2

from controlplane.api.wire import enum_to_wire, spec_to_wire, time_to_wire
from controlplane.domain.cluster import MONGODB_PORT, ClusterHealth, ClusterState
from controlplane.domain.health import FRESH, MemberFacts, MemberHealth, cluster_health, member_health
from controlplane.domain.node import AgentState
from controlplane.store.specs import spec_from_json
from controlplane.store.tables import Cluster, Node, Project

UNKNOWN_LAG = -1.0


def project_to_wire(project: Project, cluster_count: int) -> project_pb2.Project:
    """A project with the number of its living clusters."""
    return project_pb2.Project(
        id=project.id, name=project.name, create_time=time_to_wire(project.created_at), cluster_count=cluster_count
    )


def cluster_to_wire(cluster: Cluster, project_name: str, nodes: Sequence[Node], now: datetime) -> cluster_pb2.Cluster:
    """A cluster with its members and what they and their agents say at this moment."""
    living = [node for node in nodes if node.removed_at is None]
    healths = [member_health(_facts(node), now) for node in living]
    message = cluster_pb2.Cluster(
        id=cluster.id,
        project_id=cluster.project_id,
        project_name=project_name,
        name=cluster.name,
        spec=spec_to_wire(spec_from_json(cluster.spec)),
        generation=cluster.generation,
        state=enum_to_wire(cluster_pb2.ClusterState, "CLUSTER_STATE", cluster.state),
        members=[_member(cluster, node, one, now) for node, one in zip(living, healths, strict=True)],
        active_operation_id=cluster.active_operation_id or "",
        create_time=time_to_wire(cluster.created_at),
        usd_per_month=cluster.usd_per_month,
        delete_time=time_to_wire(cluster.deleted_at),
    )
    if cluster.state != ClusterState.DELETED:
        health, reason = cluster_health(healths)
        if health is ClusterHealth.UNKNOWN and cluster.state == ClusterState.CREATING:
            reason = "the cluster is being created"
        message.health = enum_to_wire(cluster_pb2.ClusterHealth, "CLUSTER_HEALTH", health)
        message.health_reason = reason
    return message


def _facts(node: Node) -> MemberFacts:
    return MemberFacts(node.name, node.agent_state, node.last_seen_at, node.report)


def _member(cluster: Cluster, node: Node, health: MemberHealth, now: datetime) -> cluster_pb2.Member:
    report = report_of(node)
    return cluster_pb2.Member(
        name=_full_name(cluster, node),
        replica_set=node.replica_set,
        node_id=node.id,
        state=health.state,
        healthy=health.healthy,
        address=address_of(node) if node.private_ip else "",
        zone=node.zone or node.zone_wish,
        instance_id=node.instance_id,
        volume_id=node.volume_id,
        instance_type=node.instance_type,
        disk_gib=node.disk_gib,
        agent_connected=node.agent_state == AgentState.CONNECTED and is_fresh(node, now),
        last_seen_time=time_to_wire(node.last_seen_at),
        lag_seconds=report.lag_seconds if health.state else UNKNOWN_LAG,
        disk_used_bytes=report.disk_used_bytes,
        disk_total_bytes=report.disk_total_bytes,
        mongodb_version=report.mongodb_version,
        problem=health.problem,
    )


def node_to_wire(node: Node, cluster: Cluster) -> node_pb2.Node:
    """A node with its agent's last report."""
    report = report_of(node)
    return node_pb2.Node(
        id=node.id,
        name=_full_name(cluster, node),
        project_id=cluster.project_id,
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        zone=node.zone or node.zone_wish,
        instance_id=node.instance_id,
        instance_type=node.instance_type,
        volume_id=node.volume_id,
        private_ip=node.private_ip,
        agent_state=enum_to_wire(node_pb2.AgentState, "AGENT_STATE", node.agent_state),
        agent_version=node.agent_version,
        last_seen_time=time_to_wire(node.last_seen_at),
        certificate_expire_time=time_to_wire(node.certificate_expires_at),
        mongod_state=_mongod_word(report),
        member_state=report.member_state,
        disk_used_bytes=report.disk_used_bytes,
        disk_total_bytes=report.disk_total_bytes,
        cpu_percent=report.cpu_percent,
        memory_used_bytes=report.memory_used_bytes,
        memory_total_bytes=report.memory_total_bytes,
        host_name=node.host_name,
    )


def report_of(node: Node) -> report_pb2.NodeReport:
    """What the agent last said; empty when it has said nothing yet."""
    report: Any = node.report or {}
    return json_format.ParseDict(report, report_pb2.NodeReport(), ignore_unknown_fields=True)


def address_of(node: Node) -> str:
    """host:port of the node's mongod."""
    return f"{node.private_ip}:{MONGODB_PORT}"


def is_fresh(node: Node, now: datetime) -> bool:
    """Whether the agent was heard lately enough to be believed."""
    return node.last_seen_at is not None and now - node.last_seen_at <= FRESH


def _full_name(cluster: Cluster, node: Node) -> str:
    return f"{cluster.name}-{node.name}"


def _mongod_word(report: report_pb2.NodeReport) -> str:
    """ "running", "stopped", ...; empty when unknown."""
    known = report_pb2.MongodState.DESCRIPTOR.values_by_number.get(report.mongod_state)
    if known is None or not known.number:  # a newer agent may know states that we do not
        return ""
    return known.name.removeprefix("MONGOD_STATE_").lower()
