"""What a cluster is and which wishes are acceptable. A replica set is the simplest cluster."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.failure import FailureCode, Refused, invalid

NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])")
NAME_RULE = "2 to 40 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'"
MONGODB_PORT = 27017
# MongoDB allows seven voting members; even counts gain no fault tolerance.
MEMBER_COUNTS = (3, 5, 7)
# gp3 limits as EC2 documents them: size in GiB, IOPS, MiB/s.
DISK_GIB = (1, 16384)
DISK_IOPS = (3000, 16000)
DISK_IOPS_PER_GIB = 500
DISK_THROUGHPUT = (125, 1000)


class Topology(StrEnum):
    """Kinds of clusters."""

    REPLICA_SET = "REPLICA_SET"
    SHARDED = "SHARDED"


class ReplicaSetRole(StrEnum):
    """What a replica set holds."""

    DATA = "DATA"
    CONFIG = "CONFIG"


class ClusterState(StrEnum):
    """Place in the life of a cluster."""

    CREATING = "CREATING"
    AVAILABLE = "AVAILABLE"
    UPDATING = "UPDATING"
    DELETING = "DELETING"
    DELETED = "DELETED"
    FAILED = "FAILED"


class ClusterHealth(StrEnum):
    """What members and agents report right now."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"


# Which state may follow which; DELETED is the end.
TRANSITIONS: dict[ClusterState, frozenset[ClusterState]] = {
    ClusterState.CREATING: frozenset(
        {ClusterState.AVAILABLE, ClusterState.FAILED, ClusterState.DELETING, ClusterState.DELETED}
    ),
    ClusterState.AVAILABLE: frozenset({ClusterState.UPDATING, ClusterState.DELETING, ClusterState.FAILED}),
    ClusterState.UPDATING: frozenset({ClusterState.AVAILABLE, ClusterState.FAILED}),
    ClusterState.DELETING: frozenset({ClusterState.DELETED, ClusterState.FAILED}),
    ClusterState.FAILED: frozenset(
        {ClusterState.CREATING, ClusterState.UPDATING, ClusterState.DELETING, ClusterState.AVAILABLE}
    ),
    ClusterState.DELETED: frozenset(),
}


@dataclass(frozen=True)
class NodeSize:
    """The machine under one member: EC2 type, gp3 size in GiB, IOPS and MiB/s (0 = gp3 base)."""

    instance_type: str
    disk_gib: int
    disk_iops: int = 0
    disk_throughput_mibps: int = 0


@dataclass(frozen=True)
class ReplicaSetSpec:
    """The wish for one replica set."""

    name: str
    role: ReplicaSetRole
    members: int
    size: NodeSize


@dataclass(frozen=True)
class RouterSpec:
    """The wish for the mongos processes of a sharded cluster."""

    count: int
    size: NodeSize


@dataclass(frozen=True)
class ClusterSpec:
    """The wish for one cluster."""

    topology: Topology
    mongodb_version: str
    region: str
    zones: tuple[str, ...]
    replica_sets: tuple[ReplicaSetSpec, ...]
    routers: RouterSpec | None = None
    deletion_protection: bool = False
    allow_unsafe: bool = False

    @property
    def member_total(self) -> int:
        """Number of mongods over all replica sets."""
        return sum(replica_set.members for replica_set in self.replica_sets)


@dataclass(frozen=True)
class Choices:
    """What this installation can serve: the sets that a wish is checked against."""

    regions: Collection[str]
    zones: tuple[str, ...]
    mongodb_versions: Collection[str]
    instance_types: Collection[str]
    max_nodes_per_cluster: int = field(default=50)


def check_name(name: str, path: str = "name") -> str:
    """Return `name` if it can name a project or cluster, else refuse it."""
    if unicodedata.normalize("NFKC", name) != name or not NAME.fullmatch(name):
        raise invalid(path, name, NAME_RULE)
    return name


def check_spec(spec: ClusterSpec, choices: Choices) -> ClusterSpec:
    """Return the wish with its defaults filled in, or refuse it naming the first bad field."""
    if spec.topology is not Topology.REPLICA_SET:
        raise invalid("spec.topology", spec.topology, "TOPOLOGY_REPLICA_SET (sharded clusters are not offered yet)")
    _one_of("spec.region", spec.region, choices.regions)
    _one_of("spec.mongodb_version", spec.mongodb_version, choices.mongodb_versions)
    if len(spec.replica_sets) != 1:
        raise invalid("spec.replica_sets", len(spec.replica_sets), "exactly 1 for a replica set")
    if spec.routers is not None and spec.routers.count:
        raise invalid("spec.routers.count", spec.routers.count, "0 for a replica set")
    checked = tuple(_check_replica_set(rs, i, spec.allow_unsafe, choices) for i, rs in enumerate(spec.replica_sets))
    zones = _check_zones(spec.zones, choices)
    return ClusterSpec(
        topology=spec.topology,
        mongodb_version=spec.mongodb_version,
        region=spec.region,
        zones=zones,
        replica_sets=checked,
        routers=None,
        deletion_protection=spec.deletion_protection,
        allow_unsafe=spec.allow_unsafe,
    )


def check_deletable(name: str, confirm_name: str, spec: ClusterSpec) -> None:
    """Refuse a deletion that was not confirmed by name or is protected against."""
    if confirm_name != name:
        raise Refused(
            FailureCode.NAME_NOT_CONFIRMED,
            "type the cluster's name to confirm its deletion",
            field="confirm_name",
            given=confirm_name,
            allowed=name,
        )
    if spec.deletion_protection:
        raise Refused(
            FailureCode.DELETION_PROTECTED,
            f"cluster {name} is protected against deletion",
            field="spec.deletion_protection",
            given="true",
            allowed="switch deletion protection off first",
        )


def advance(current: ClusterState, new: ClusterState) -> ClusterState:
    """Return `new` if it may follow `current`; a state may always follow itself."""
    if new is not current and new not in TRANSITIONS[current]:
        raise Refused(
            FailureCode.CLUSTER_STATE,
            f"a cluster that is {current} cannot become {new}",
            field="state",
            given=new,
            allowed=", ".join(sorted(TRANSITIONS[current])) or "nothing: this state is final",
        )
    return new


def _check_replica_set(rs: ReplicaSetSpec, index: int, unsafe: bool, choices: Choices) -> ReplicaSetSpec:
    path = f"spec.replica_sets[{index}]"
    name = rs.name or f"rs{index}"
    check_name(name, f"{path}.name")
    if rs.role is not ReplicaSetRole.DATA:
        raise invalid(f"{path}.role", rs.role, "REPLICA_SET_ROLE_DATA for a replica set")
    counts = (1, *MEMBER_COUNTS) if unsafe else MEMBER_COUNTS
    if rs.members not in counts:
        hint = "" if unsafe else " (1 with allow_unsafe)"
        raise invalid(f"{path}.members", rs.members, ", ".join(map(str, counts)) + hint)
    return ReplicaSetSpec(name, rs.role, rs.members, check_size(rs.size, f"{path}.size", choices))


def check_size(size: NodeSize, path: str, choices: Choices) -> NodeSize:
    """Return the machine if EC2 offers it, else refuse it."""
    _one_of(f"{path}.instance_type", size.instance_type, choices.instance_types)
    _within(f"{path}.disk_gib", size.disk_gib, DISK_GIB, "GiB")
    if size.disk_iops:
        _within(f"{path}.disk_iops", size.disk_iops, DISK_IOPS, "IOPS")
        if size.disk_iops > max(DISK_IOPS[0], size.disk_gib * DISK_IOPS_PER_GIB):
            most = size.disk_gib * DISK_IOPS_PER_GIB
            raise invalid(f"{path}.disk_iops", size.disk_iops, f"at most 500 per GiB: {most} for {size.disk_gib} GiB")
    if size.disk_throughput_mibps:
        _within(f"{path}.disk_throughput_mibps", size.disk_throughput_mibps, DISK_THROUGHPUT, "MiB/s")
        iops = size.disk_iops or DISK_IOPS[0]
        if size.disk_throughput_mibps * 4 > iops:
            most = iops // 4
            raise invalid(
                f"{path}.disk_throughput_mibps", size.disk_throughput_mibps, f"at most {most}: 0.25 MiB/s per IOPS"
            )
    return size


def _check_zones(zones: tuple[str, ...], choices: Choices) -> tuple[str, ...]:
    if not zones:
        return tuple(choices.zones[:3])
    for i, zone in enumerate(zones):
        _one_of(f"spec.zones[{i}]", zone, choices.zones)
    if len(set(zones)) != len(zones):
        raise invalid("spec.zones", ", ".join(zones), "each zone once")
    return zones


def _one_of(path: str, given: str, allowed: Collection[str]) -> None:
    if given not in allowed:
        raise invalid(path, given, ", ".join(sorted(allowed)))


def _within(path: str, given: int, bounds: tuple[int, int], unit: str) -> None:
    if not bounds[0] <= given <= bounds[1]:
        raise invalid(path, given, f"{bounds[0]} to {bounds[1]} {unit}")
