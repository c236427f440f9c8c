"""ClusterSpec <-> the JSON of its column, next to each other."""

import dataclasses
from typing import Any

from controlplane.domain.cluster import ClusterSpec, NodeSize, ReplicaSetRole, ReplicaSetSpec, RouterSpec, Topology


def spec_to_json(spec: ClusterSpec) -> dict[str, Any]:
    """Plain values with the field names of ClusterSpec."""
    return dataclasses.asdict(spec)


def spec_from_json(value: dict[str, Any]) -> ClusterSpec:
    """The spec again."""
    routers = value["routers"]
    return ClusterSpec(
        topology=Topology(value["topology"]),
        mongodb_version=value["mongodb_version"],
        region=value["region"],
        zones=tuple(value["zones"]),
        replica_sets=tuple(
            ReplicaSetSpec(rs["name"], ReplicaSetRole(rs["role"]), rs["members"], NodeSize(**rs["size"]))
            for rs in value["replica_sets"]
        ),
        routers=RouterSpec(routers["count"], NodeSize(**routers["size"])) if routers else None,
        deletion_protection=value["deletion_protection"],
        allow_unsafe=value["allow_unsafe"],
    )
