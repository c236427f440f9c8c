"""What the fake offers and how it judges a wish: a small part of what the control plane does, with the same words."""

import re

from wap.control.v1.cluster_pb2 import CreateClusterRequest, InstanceTypeOption, ListCreateOptionsResponse
from wap.type.v1.cluster_pb2 import TOPOLOGY_REPLICA_SET, ClusterSpec
from wap.type.v1.failure_pb2 import FAILURE_CODE_QUORUM_AT_RISK

from console.fake.refusals import Refused, invalid

NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
NAME_ALLOWED = 'a letter, then a-z, 0-9 and "-", not ending with "-", 2 to 40 characters'

OPTIONS = ListCreateOptionsResponse(
    region="us-east-1",
    regions=["us-east-1"],
    zones=["us-east-1a", "us-east-1b", "us-east-1c"],
    mongodb_versions=["6.0.5"],
    instance_types=[
        InstanceTypeOption(name="t3.medium", vcpus=2, memory_gib=4, usd_per_month=30.37),
        InstanceTypeOption(name="m6i.large", vcpus=2, memory_gib=8, usd_per_month=70.08),
        InstanceTypeOption(name="m6i.xlarge", vcpus=4, memory_gib=16, usd_per_month=140.16),
        InstanceTypeOption(name="r6i.large", vcpus=2, memory_gib=16, usd_per_month=91.98),
    ],
    disk_gib_min=1,
    disk_gib_max=16384,
    disk_usd_per_gib_month=0.08,
)


def settled(request: CreateClusterRequest) -> ClusterSpec:
    """The spec with the server's choices filled in; Refused where it is not allowed."""
    if not NAME.fullmatch(request.name):
        raise invalid("name", request.name, NAME_ALLOWED)
    if len(request.idempotency_key) > 64:
        raise invalid("idempotency_key", request.idempotency_key, "at most 64 printable characters")
    spec = ClusterSpec()
    spec.CopyFrom(request.spec)
    if spec.topology != TOPOLOGY_REPLICA_SET or len(spec.replica_sets) != 1:
        raise invalid("spec.replica_sets", len(spec.replica_sets), "exactly one, with topology REPLICA_SET")
    _check_choice("spec.mongodb_version", spec.mongodb_version, list(OPTIONS.mongodb_versions))
    spec.region = spec.region or OPTIONS.region
    _check_choice("spec.region", spec.region, list(OPTIONS.regions))
    for index, zone in enumerate(spec.zones):
        _check_choice(f"spec.zones[{index}]", zone, list(OPTIONS.zones))
    if not spec.zones:
        spec.zones.extend(OPTIONS.zones)
    _check_replica_set(spec)
    return spec


def _check_replica_set(spec: ClusterSpec) -> None:
    wanted = spec.replica_sets[0]
    wanted.name = wanted.name or "rs0"
    where = "spec.replica_sets[0]"
    if wanted.members == 1 and not spec.allow_unsafe:
        raise Refused(
            FAILURE_CODE_QUORUM_AT_RISK,
            "One member cannot survive the loss of a machine.",
            field=f"{where}.members",
            given=1,
            allowed="3, 5 or 7 (1 with allow_unsafe)",
        )
    if wanted.members not in (1, 3, 5, 7):
        raise invalid(f"{where}.members", wanted.members, "3, 5 or 7 (1 with allow_unsafe)")
    _check_choice(f"{where}.size.instance_type", wanted.size.instance_type, [i.name for i in OPTIONS.instance_types])
    if not OPTIONS.disk_gib_min <= wanted.size.disk_gib <= OPTIONS.disk_gib_max:
        raise invalid(f"{where}.size.disk_gib", wanted.size.disk_gib, "1 to 16384 GiB")


def _check_choice(field: str, given: str, allowed: list[str]) -> None:
    if given not in allowed:
        raise invalid(field, given, ", ".join(allowed))
