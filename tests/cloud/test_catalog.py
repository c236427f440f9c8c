"""What WAP offers and what it costs."""

from controlplane.cloud.catalog import HOURS_PER_MONTH, REGIONS, cluster_costs, instance_types, monthly_cost
from controlplane.cloud.port import Owner, client_token
from controlplane.domain.cluster import ClusterSpec, NodeSize, ReplicaSetRole, ReplicaSetSpec, Topology


def spec(size: NodeSize, members: int) -> ClusterSpec:
    sets = (ReplicaSetSpec("rs0", ReplicaSetRole.DATA, members, size),)
    return ClusterSpec(Topology.REPLICA_SET, "6.0.5", "us-east-1", ("us-east-1a",), sets)


def test_types_are_what_ec2_says_they_are() -> None:
    offered = {item.name: (item.vcpus, item.memory_gib, item.usd_per_hour) for item in instance_types()}
    assert offered["m6i.large"] == (2, 8, 0.096)
    assert offered["r6i.4xlarge"] == (16, 128, 1.008)
    assert offered["c6i.xlarge"] == (4, 8, 0.17)
    assert offered["t3.medium"] == (2, 4, 0.0416)
    assert len(offered) == len(instance_types())
    assert list(REGIONS) == sorted(REGIONS)


def test_a_node_costs_its_parts() -> None:
    plain = monthly_cost(NodeSize("m6i.large", 100))
    assert plain == round(0.096 * HOURS_PER_MONTH + 100 * 0.08 + 20 * 0.08 + 0.005 * HOURS_PER_MONTH, 2)
    faster = monthly_cost(NodeSize("m6i.large", 100, disk_iops=4000, disk_throughput_mibps=225))
    assert round(faster - plain, 2) == round(1000 * 0.005 + 100 * 0.04, 2)


def test_a_cluster_costs_its_nodes() -> None:
    size = NodeSize("m6i.large", 100)
    costs = cluster_costs(spec(size, 3))
    assert costs[0].title == "3 x m6i.large instance"
    assert abs(sum(cost.usd_per_month for cost in costs) - 3 * monthly_cost(size)) < 0.05


def test_client_tokens_fit_ec2_and_tell_everything_apart() -> None:
    token = client_token(b"key", "cl-1", "instance:rs0-0", "us-east-1a", "m6i.large", "1")
    assert len(token) == 64
    assert token == client_token(b"key", "cl-1", "instance:rs0-0", "us-east-1a", "m6i.large", "1")
    assert token != client_token(b"key", "cl-1", "instance:rs0-0", "us-east-1a", "m6i.large", "2")
    assert token != client_token(b"other", "cl-1", "instance:rs0-0", "us-east-1a", "m6i.large", "1")
    assert client_token(b"key", "ab", "c") != client_token(b"key", "a", "bc")


def test_tags_name_the_owner() -> None:
    owner = Owner("in-1", "pr-1", "cl-1", "demo", "instance:rs0-0")
    assert owner.tags()["Name"] == "wap-demo-instance:rs0-0"
    assert owner.identity().items() <= owner.tags().items()
