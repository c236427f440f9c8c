"""Instance types that WAP offers and what they cost.

Prices: AWS on-demand list prices for Linux in us-east-1, USD per hour, as published in 2025; gp3 at 0.08 USD per GiB
and month, 0.005 per provisioned IOPS over 3000 and 0.04 per MiB/s over 125. Other regions differ by up to a third, and
data transfer, snapshots and taxes are not in. A month has 730 hours, as in AWS's own calculator.
"""

from dataclasses import dataclass

from controlplane.domain.cluster import ClusterSpec, NodeSize

HOURS_PER_MONTH = 730
GIB_MONTH, IOPS_MONTH, MIBPS_MONTH = 0.08, 0.005, 0.04
BASE_IOPS, BASE_MIBPS = 3000, 125
ROOT_GIB = 20
COST_NOTE = (
    "On-demand list prices of us-east-1 (2025) for EC2 and EBS, without data transfer, snapshots and taxes; "
    "other regions differ"
)


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type: vCPUs, GiB of memory, USD per hour."""

    name: str
    vcpus: int
    memory_gib: float
    usd_per_hour: float

    @property
    def usd_per_month(self) -> float:
        """USD for 730 hours."""
        return self.usd_per_hour * HOURS_PER_MONTH


INSTANCE_TYPES: dict[str, InstanceType] = {
    item.name: item
    for item in (
        InstanceType("t3.medium", 2, 4, 0.0416),
        InstanceType("t3.large", 2, 8, 0.0832),
        InstanceType("t3.xlarge", 4, 16, 0.1664),
        InstanceType("m6i.large", 2, 8, 0.096),
        InstanceType("m6i.xlarge", 4, 16, 0.192),
        InstanceType("m6i.2xlarge", 8, 32, 0.384),
        InstanceType("m6i.4xlarge", 16, 64, 0.768),
        InstanceType("m7i.large", 2, 8, 0.1008),
        InstanceType("m7i.xlarge", 4, 16, 0.2016),
        InstanceType("m7i.2xlarge", 8, 32, 0.4032),
        InstanceType("r6i.large", 2, 16, 0.126),
        InstanceType("r6i.xlarge", 4, 32, 0.252),
        InstanceType("r6i.2xlarge", 8, 64, 0.504),
        InstanceType("r6i.4xlarge", 16, 128, 1.008),
        InstanceType("r7i.large", 2, 16, 0.1323),
        InstanceType("r7i.xlarge", 4, 32, 0.2646),
        InstanceType("c6i.large", 2, 4, 0.085),
        InstanceType("c6i.xlarge", 4, 8, 0.17),
        InstanceType("c6i.2xlarge", 8, 16, 0.34),
    )
}


@dataclass(frozen=True)
class CostLine:
    """One position of an estimate."""

    title: str
    usd_per_month: float


def disk_usd_per_month(size: NodeSize) -> float:
    """One data volume."""
    iops = max(0, size.disk_iops - BASE_IOPS)
    mibps = max(0, size.disk_throughput_mibps - BASE_MIBPS)
    return size.disk_gib * GIB_MONTH + iops * IOPS_MONTH + mibps * MIBPS_MONTH


def estimate(spec: ClusterSpec) -> tuple[CostLine, ...]:
    """What the cluster costs per month, by position."""
    lines: list[CostLine] = []
    for rs in spec.replica_sets:
        kind = INSTANCE_TYPES[rs.size.instance_type]
        lines += [
            CostLine(f"{rs.members} x {kind.name}", rs.members * kind.usd_per_month),
            CostLine(f"{rs.members} x {rs.size.disk_gib} GiB gp3 data", rs.members * disk_usd_per_month(rs.size)),
            CostLine(f"{rs.members} x {ROOT_GIB} GiB gp3 root", rs.members * ROOT_GIB * GIB_MONTH),
        ]
    return tuple(lines)
