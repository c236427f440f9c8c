"""From a few plain arguments to the requests of the control API; what is left out is filled from ListCreateOptions."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from wap.control.v1.cluster_pb2 import CreateClusterRequest, ListCreateOptionsResponse
from wap.type.v1.cluster_pb2 import (
    REPLICA_SET_ROLE_DATA,
    TOPOLOGY_REPLICA_SET,
    ClusterSpec,
    NodeSize,
    ReplicaSetSpec,
)

PREFERRED_INSTANCE_TYPE = "m6i.large"
"""2 vCPUs and 8 GiB: the smallest type of the family that AWS recommends for general purpose databases."""

DEFAULT_DISK_GIB = 20


class WishFields(TypedDict, total=False):
    """The fields of ReplicaSetWish as keyword arguments."""

    members: int
    instance_type: str
    disk_gib: int
    disk_iops: int
    disk_throughput_mibps: int
    zones: Sequence[str]
    version: str
    region: str
    deletion_protection: bool
    allow_unsafe: bool


@dataclass(frozen=True, kw_only=True)
class ReplicaSetWish:
    """A replica set as a person asks for it. Empty and 0 mean: the control plane's own choice.

    `disk_gib` is the size of each member's data volume in GiB; `zones` are availability zones such as "us-east-1a".
    """

    members: int = 3
    instance_type: str = ""
    disk_gib: int = 0
    disk_iops: int = 0
    disk_throughput_mibps: int = 0
    zones: Sequence[str] = ()
    version: str = ""
    region: str = ""
    deletion_protection: bool = False
    allow_unsafe: bool = False

    @property
    def is_complete(self) -> bool:
        """True when nothing needs to be looked up."""
        return bool(self.instance_type and self.disk_gib and self.version and self.region)

    def spec(self, options: ListCreateOptionsResponse | None) -> ClusterSpec:
        """The spec to send; `options` may be None only when the wish is complete. Nothing is judged here."""
        offered = options if options is not None else ListCreateOptionsResponse()
        size = NodeSize(
            instance_type=self.instance_type or _instance_type(offered),
            disk_gib=self.disk_gib or max(DEFAULT_DISK_GIB, offered.disk_gib_min),
            disk_iops=self.disk_iops,
            disk_throughput_mibps=self.disk_throughput_mibps,
        )
        return ClusterSpec(
            topology=TOPOLOGY_REPLICA_SET,
            mongodb_version=self.version or _newest(offered.mongodb_versions),
            region=self.region or offered.region,
            zones=self.zones,
            replica_sets=[ReplicaSetSpec(role=REPLICA_SET_ROLE_DATA, members=self.members, size=size)],
            deletion_protection=self.deletion_protection,
            allow_unsafe=self.allow_unsafe,
        )


def create_request(
    project_id: str, name: str, spec: ClusterSpec, *, validate_only: bool = False, idempotency_key: str = ""
) -> CreateClusterRequest:
    """The request; without a key it gets a random one, so that the same request sent twice creates one cluster."""
    return CreateClusterRequest(
        project_id=project_id,
        name=name,
        spec=spec,
        validate_only=validate_only,
        idempotency_key=idempotency_key or uuid.uuid4().hex,
    )


def _instance_type(options: ListCreateOptionsResponse) -> str:
    names = [offered.name for offered in options.instance_types]
    if PREFERRED_INSTANCE_TYPE in names or not names:
        return PREFERRED_INSTANCE_TYPE
    return names[0]


def _newest(versions: Sequence[str]) -> str:
    return max(versions, key=lambda text: [int(part) for part in text.split(".") if part.isdigit()], default="")
