"""Instance types, regions and prices that WAP offers. Zones are not here: AWS tells them.

Prices: AWS list prices, on-demand, Linux, us-east-1, in USD, as the EC2, EBS and VPC pricing pages gave them in 2025,
entered from memory of those pages and not read from the price list API. Other regions differ by some percent.
Discounts, traffic, snapshots and taxes are not in them.
"""

from dataclasses import dataclass

from controlplane.cloud.instances import ROOT_GIB
from controlplane.domain.cluster import DISK_IOPS, DISK_THROUGHPUT, ClusterSpec, NodeSize

HOURS_PER_MONTH = 730
COST_NOTE = (
    "Estimate from AWS list prices (on-demand Linux, us-east-1, 2025) for 730 hours a month; "
    "traffic, backups, discounts and taxes are not included."
)
GP3_USD_PER_GIB_MONTH = 0.08
# Above what every gp3 volume includes: 3000 IOPS and 125 MiB/s.
GP3_USD_PER_IOPS_MONTH = 0.005
GP3_USD_PER_MIBPS_MONTH = 0.04
PUBLIC_ADDRESS_USD_PER_HOUR = 0.005

REGIONS = (
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-2",
)


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type with its memory in GiB and list price."""

    name: str
    vcpus: int
    memory_gib: float
    usd_per_hour: float

    @property
    def usd_per_month(self) -> float:
        """The instance alone, 730 hours."""
        return round(self.usd_per_hour * HOURS_PER_MONTH, 2)


@dataclass(frozen=True)
class Cost:
    """One position of an estimate."""

    title: str
    usd_per_month: float


# Family: GiB per vCPU and USD per hour of its .large (2 vCPUs); within a family the price goes with the size.
_FAMILIES = {
    "c6i": (2, 0.085),
    "m6i": (4, 0.096),
    "m7i": (4, 0.1008),
    "r6i": (8, 0.126),
    "r7i": (8, 0.1323),
}
_SIZES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16}
_BURSTABLE = (
    InstanceType("t3.medium", 2, 4, 0.0416),
    InstanceType("t3.large", 2, 8, 0.0832),
    InstanceType("t3.xlarge", 4, 16, 0.1664),
    InstanceType("t3.2xlarge", 8, 32, 0.3328),
)
_TYPES = {
    offered.name: offered
    for offered in (
        *_BURSTABLE,
        *(
            InstanceType(f"{family}.{size}", vcpus, vcpus * gib, round(price * vcpus / 2, 4))
            for family, (gib, price) in _FAMILIES.items()
            for size, vcpus in _SIZES.items()
        ),
    )
}


def instance_types() -> tuple[InstanceType, ...]:
    """All that WAP offers, families together, small to large."""
    return tuple(_TYPES.values())


def monthly_cost(size: NodeSize) -> float:
    """USD per month of one node: instance, data volume, root volume, public address. KeyError for an unknown type."""
    return round(sum(cost.usd_per_month for cost in _node_costs(size)), 2)


def cluster_costs(spec: ClusterSpec) -> tuple[Cost, ...]:
    """The positions of a cluster's estimate, equal nodes put together."""
    counts: dict[NodeSize, int] = {}
    for replica_set in spec.replica_sets:
        counts[replica_set.size] = counts.get(replica_set.size, 0) + replica_set.members
    if spec.routers is not None and spec.routers.count:
        counts[spec.routers.size] = counts.get(spec.routers.size, 0) + spec.routers.count
    return tuple(
        Cost(f"{count} x {cost.title}", round(count * cost.usd_per_month, 2))
        for size, count in counts.items()
        for cost in _node_costs(size)
    )


def _node_costs(size: NodeSize) -> tuple[Cost, ...]:
    offered = _TYPES[size.instance_type]
    iops = max(size.disk_iops - DISK_IOPS[0], 0)
    throughput = max(size.disk_throughput_mibps - DISK_THROUGHPUT[0], 0)
    disk = size.disk_gib * GP3_USD_PER_GIB_MONTH + iops * GP3_USD_PER_IOPS_MONTH + throughput * GP3_USD_PER_MIBPS_MONTH
    return (
        Cost(f"{offered.name} instance", offered.usd_per_month),
        Cost(f"{size.disk_gib} GiB gp3 data volume", disk),
        Cost(f"{ROOT_GIB} GiB gp3 root volume", ROOT_GIB * GP3_USD_PER_GIB_MONTH),
        Cost("public IPv4 address", PUBLIC_ADDRESS_USD_PER_HOUR * HOURS_PER_MONTH),
    )
