"""The replica set that this node's mongod belongs to."""

from wap.agent.v1 import command_pb2

from agent.failure import FailureCode, NodeFailure, refused
from agent.mongod import replica_set
from agent.mongod.reconfig import MAX_VOTERS, Member, Timing, check_members, check_timing
from agent.mongod.settings import check_replica_set
from agent.node import Node, Progress


async def initiate(
    node: Node, order: command_pb2.InitiateReplicaSet, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """The set exists with this node as its first member."""
    check_replica_set(order.replica_set)
    member, timing = _member(order.member), Timing(order.heartbeat_interval_millis)
    check_members([member], "member")
    check_timing(timing)
    client, role = node.mongod.client(), _role(node, order.replica_set)
    if member.host != client.address:
        raise refused("member.host", member.host, f"{client.address}, this node's mongod")
    await replica_set.initiate(client, order.replica_set, member, timing, role, progress)
    result.detail = f"{member.host} is a member of {order.replica_set}"


async def configure(
    node: Node, order: command_pb2.ConfigureReplicaSet, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """The set's configuration is this one."""
    check_replica_set(order.replica_set)
    members = [_member(member) for member in order.members]
    timing = Timing(order.heartbeat_interval_millis, order.election_timeout_millis)
    check_members(members)
    check_timing(timing)
    version = await replica_set.configure(node.mongod.client(), order.replica_set, members, timing, progress)
    result.configure_replica_set.config_version = version
    result.detail = f"{order.replica_set} has configuration version {version}"


async def await_healthy(
    node: Node, order: command_pb2.AwaitReplicaSet, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """All voters are healthy and the primary has accepted a majority write."""
    check_replica_set(order.replica_set)
    if not 1 <= order.healthy_voters <= MAX_VOTERS:
        raise refused("healthy_voters", order.healthy_voters, f"1 to {MAX_VOTERS}")
    primary = await replica_set.await_healthy(node.mongod.client(), order.replica_set, order.healthy_voters, progress)
    result.await_replica_set.primary = primary
    result.detail = f"{order.healthy_voters} healthy voters; {primary} is primary"


def _member(member: command_pb2.ReplicaSetMember) -> Member:
    return Member(member.id, member.host, member.priority, member.votes)


def _role(node: Node, name: str) -> str:
    goal = node.mongod.goal
    assert goal is not None  # there is a client, so there is a goal
    if goal.settings.replica_set != name:
        raise NodeFailure(
            FailureCode.INVALID_ARGUMENT,
            f"this mongod was started for {goal.settings.replica_set}",
            field="replica_set",
            given=name,
            allowed=goal.settings.replica_set,
        )
    return goal.settings.role
