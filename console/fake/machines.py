"""What steps do to the cluster's members and nodes: the part of a real world that the fake pretends."""

from wap.control.v1 import cluster_pb2 as cl
from wap.control.v1 import node_pb2 as nd
from wap.control.v1.cluster_pb2 import Cluster, Member
from wap.control.v1.node_pb2 import Node
from wap.control.v1.operation_pb2 import OPERATION_KIND_DELETE_CLUSTER, Operation

from console.fake.plans import member_names
from console.fake.world import World, now

GIB = 2**30


class Machines:
    """Applies the effect of each step by its name."""

    def __init__(self, world: World) -> None:
        self._world = world

    def after(self, step: str, cluster: Cluster) -> None:
        """The effect of a finished step."""
        kind, _, name = step.partition(":")
        member = next((one for one in cluster.members if one.name == f"{cluster.name}-{name}"), None)
        match kind:
            case "instance" if member is None:
                self._launch(cluster, name)
            case "agent" if member is not None:
                member.agent_connected = True
                self._node(member).agent_state = nd.AGENT_STATE_CONNECTED
                member.last_seen_time.CopyFrom(now())
                self._node(member).last_seen_time.CopyFrom(now())
            case "mongod" if member is not None:
                member.state, self._node(member).mongod_state = "STARTUP", "running"
            case "initiate":
                self._elect(cluster)
            case "members" | "healthy":
                self._sync(cluster)
            case "stop" if member is not None:
                member.state, member.healthy = "", False
                self._node(member).mongod_state = "stopped"
            case "terminate" if member is not None:
                self._node(member).agent_state = nd.AGENT_STATE_REMOVED
                cluster.members.remove(member)
            case _:
                pass  # steps without an effect that a person can see

    def finish(self, operation: Operation, cluster: Cluster) -> None:
        """The end of an operation that succeeded."""
        if operation.kind == OPERATION_KIND_DELETE_CLUSTER:
            self.remove(cluster)
            return
        cluster.active_operation_id = ""
        cluster.state, cluster.health = cl.CLUSTER_STATE_AVAILABLE, cl.CLUSTER_HEALTH_HEALTHY
        cluster.health_reason = f"{len(cluster.members)} of {len(cluster.members)} members healthy"

    def remove(self, cluster: Cluster) -> None:
        """The cluster is gone."""
        for member in cluster.members:
            self._node(member).agent_state = nd.AGENT_STATE_REMOVED
        del cluster.members[:]
        cluster.active_operation_id = ""
        cluster.state, cluster.health = cl.CLUSTER_STATE_DELETED, cl.CLUSTER_HEALTH_UNSPECIFIED
        cluster.health_reason = ""
        cluster.delete_time.CopyFrom(now())

    def _launch(self, cluster: Cluster, name: str) -> None:
        index = member_names(cluster.spec).index(name)
        number = len(self._world.nodes) + 1
        size = cluster.spec.replica_sets[0].size
        zone = cluster.spec.zones[index % len(cluster.spec.zones)]
        address = f"127.77.{index + 1}.{number % 250 + 4}"
        node = Node(
            id=self._world.new_id("nd"),
            name=f"{cluster.name}-{name}",
            project_id=cluster.project_id,
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            zone=zone,
            instance_id=f"i-{number:017x}",
            instance_type=size.instance_type,
            volume_id=f"vol-{number:017x}",
            private_ip=address,
            agent_state=nd.AGENT_STATE_WAITING,
            agent_version="0.1.0",
            disk_used_bytes=GIB // 2,
            disk_total_bytes=size.disk_gib * GIB,
            cpu_percent=3.5,
            memory_used_bytes=2 * GIB,
            memory_total_bytes=8 * GIB,
            host_name=f"ip-{address.replace('.', '-')}",
        )
        self._world.nodes[node.id] = node
        cluster.members.append(self._member(cluster, node))
        cluster.members.sort(key=lambda one: one.name)

    def _member(self, cluster: Cluster, node: Node) -> Member:
        return Member(
            name=node.name,
            replica_set=cluster.spec.replica_sets[0].name,
            node_id=node.id,
            address=f"{node.private_ip}:27017",
            zone=node.zone,
            instance_id=node.instance_id,
            volume_id=node.volume_id,
            instance_type=node.instance_type,
            disk_gib=cluster.spec.replica_sets[0].size.disk_gib,
            lag_seconds=-1,
            disk_used_bytes=node.disk_used_bytes,
            disk_total_bytes=node.disk_total_bytes,
            mongodb_version=cluster.spec.mongodb_version,
            problem="mongod has not started yet",
        )

    def _elect(self, cluster: Cluster) -> None:
        primary = cluster.members[0]
        primary.state, primary.healthy, primary.lag_seconds, primary.problem = "PRIMARY", True, 0, ""
        self._node(primary).member_state = "PRIMARY"
        cluster.health, cluster.health_reason = cl.CLUSTER_HEALTH_DEGRADED, "Members are being added"

    def _sync(self, cluster: Cluster) -> None:
        for member in cluster.members[1:]:
            member.state, member.healthy, member.lag_seconds, member.problem = "SECONDARY", True, 0, ""
            self._node(member).member_state = "SECONDARY"

    def _node(self, member: Member) -> Node:
        return self._world.nodes[member.node_id]
