"""The recipe for a new replica set, as data: network, machines, agents, mongods, replica set, users."""

from controlplane.domain.cluster import ClusterSpec, NodeSize, ReplicaSetSpec
from controlplane.planner.plan import Plan, Stage, Step, StepKind
from controlplane.planner.topology import Placement, placements

ADMIN_USER = "admin"


def plan_create(name: str, spec: ClusterSpec) -> Plan:
    """Stages that take nothing to a writable cluster. Every step ensures; none may assume it runs for the first time."""
    members = placements(spec)
    sets = spec.replica_sets
    return Plan(
        (
            Stage("Network", (_vpc(name),)),
            Stage("Subnets and rules", (*(_subnet(zone) for zone in spec.zones), _gateway(), _security_group())),
            Stage("Machines", tuple(_instance(member, spec) for member in members)),
            # Volumes are made while the machines boot; an instance first, because its zone may change for lack of capacity.
            Stage("Volumes", tuple(_volume(member, spec) for member in members)),
            Stage("Agents", tuple(_agent(member) for member in members)),
            Stage("MongoDB", tuple(_mongod(member, spec) for member in members)),
            Stage("Replica set", tuple(_initiate(rs) for rs in sets)),
            Stage("Members", tuple(_members(rs) for rs in sets)),
            Stage("Proof and user", (*(_healthy(rs) for rs in sets), *(_user(rs) for rs in sets))),
            Stage("Hand over", tuple(_settle(rs) for rs in sets)),
        )
    )


def _vpc(name: str) -> Step:
    return Step(
        StepKind.VPC, "", f"Create the network of {name}", "members talk to each other in a network of their own"
    )


def _subnet(zone: str) -> Step:
    return Step(
        StepKind.SUBNET, zone, f"Create a subnet in {zone}", "a member in each zone outlives the loss of another zone"
    )


def _gateway() -> Step:
    return Step(
        StepKind.GATEWAY, "", "Create the way out for agents", "agents dial the control plane; nothing can dial in"
    )


def _security_group() -> Step:
    return Step(
        StepKind.SECURITY_GROUP,
        "",
        "Create the security group",
        "only members may reach MongoDB's port; no address may from outside",
    )


def _instance(member: Placement, spec: ClusterSpec) -> Step:
    size = _size(spec, member.replica_set).instance_type
    return Step(
        StepKind.INSTANCE,
        member.name,
        f"Launch {member.name} as {size} in {member.zone}",
        "each member has a machine of its own",
        waits_for="EC2 to run the instance",
    )


def _volume(member: Placement, spec: ClusterSpec) -> Step:
    gib = _size(spec, member.replica_set).disk_gib
    return Step(
        StepKind.VOLUME,
        member.name,
        f"Attach {gib} GiB to {member.name}",
        "data outlives the machine on an encrypted gp3 volume",
        waits_for="EBS to attach the volume",
    )


def _agent(member: Placement) -> Step:
    return Step(
        StepKind.AGENT,
        member.name,
        f"Agent of {member.name} dials home",
        "only the agent talks to its mongod",
        waits_for=f"agent of {member.name} to enrol and connect",
    )


def _mongod(member: Placement, spec: ClusterSpec) -> Step:
    return Step(
        StepKind.MONGOD,
        member.name,
        f"Start MongoDB {spec.mongodb_version} on {member.name}",
        "with keyfile, TLS and authorization from its first start",
        waits_for="mongod to answer",
    )


def _initiate(rs: ReplicaSetSpec) -> Step:
    return Step(
        StepKind.INITIATE,
        rs.name,
        f"Initiate {rs.name} with its first member",
        "a set of one elects itself at once; an election of three waits out a timeout of 10 s",
        waits_for="the first member to become primary",
    )


def _members(rs: ReplicaSetSpec) -> Step:
    return Step(
        StepKind.MEMBERS,
        rs.name,
        f"Add the other {rs.members - 1} members to {rs.name}",
        "they copy the still empty set and then vote",
        waits_for="the configuration to be committed",
    )


def _healthy(rs: ReplicaSetSpec) -> Step:
    return Step(
        StepKind.HEALTHY,
        rs.name,
        f"Prove that {rs.name} is writable",
        "ready means: every voter healthy and a majority write accepted",
        waits_for=f"{rs.members} healthy voters and one majority write",
    )


def _user(rs: ReplicaSetSpec) -> Step:
    return Step(
        StepKind.USER, rs.name, f"Create the database user {ADMIN_USER}", "SCRAM-SHA-256, password sealed in the vault"
    )


def _settle(rs: ReplicaSetSpec) -> Step:
    return Step(
        StepKind.SETTLE,
        rs.name,
        f"Set {rs.name} to MongoDB's default timing",
        "fast heartbeats served only its creation",
    )


def _size(spec: ClusterSpec, replica_set: str) -> NodeSize:
    return next(rs.size for rs in spec.replica_sets if rs.name == replica_set)
