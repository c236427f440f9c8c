"""Where members go: spread over the zones, round robin, so that losing one zone costs the fewest voters."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.cluster import ClusterSpec

# A cluster's network is a /24; the zones share it in /27s: 27 usable addresses each (EC2 keeps 5).
NETWORK_PREFIX = 24
SUBNET_PREFIX = 27


@dataclass(frozen=True)
class Placement:
    """A member before it has an id: slot name, replica set, number in the set, zone."""

    name: str
    replica_set: str
    ordinal: int
    zone: str


def placements(spec: ClusterSpec) -> list[Placement]:
    """One placement per member, in order; the zone offset moves per replica set so that shards differ in their first zone."""
    return [
        Placement(f"{rs.name}-{i}", rs.name, i, spec.zones[(offset + i) % len(spec.zones)])
        for offset, rs in enumerate(spec.replica_sets)
        for i in range(rs.members)
    ]


def network_of(pool: str, slot: int) -> str:
    """CIDR of the cluster network number `slot` in the pool; ValueError when the pool is too small for it."""
    networks = 2 ** (NETWORK_PREFIX - ipaddress.ip_network(pool).prefixlen)
    if not 0 <= slot < networks:
        raise ValueError(f"pool {pool} holds {networks} cluster networks")
    base = int(ipaddress.ip_network(pool).network_address) + slot * 2 ** (32 - NETWORK_PREFIX)
    return str(ipaddress.ip_network((base, NETWORK_PREFIX)))


def subnet_of(network: str, zones: Sequence[str], zone: str) -> str:
    """CIDR of one zone's subnet in a cluster network; the same for the same zones in the same order."""
    subnets = list(ipaddress.ip_network(network).subnets(new_prefix=SUBNET_PREFIX))
    return str(subnets[list(zones).index(zone)])
