"""Plans are complete, ordered by what depends on what, and the same for the same wish."""

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.cluster import ClusterSpec, NodeSize, ReplicaSetRole, ReplicaSetSpec, Topology
from controlplane.operations.steps.registry import HANDLERS, INTERRUPTIBLE
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.planner.plan import Plan, Stage, Step, StepKind, boundaries
from controlplane.planner.topology import network_of, placements, subnet_of

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d")


def spec(members: int = 3, zones: int = 3) -> ClusterSpec:
    replica_set = ReplicaSetSpec("rs0", ReplicaSetRole.DATA, members, NodeSize("m6i.large", 20))
    return ClusterSpec(Topology.REPLICA_SET, "6.0.5", "us-east-1", ZONES[:zones], (replica_set,))


def names(plan: Plan) -> list[str]:
    return [step.name for _, _, step in plan.steps()]


def test_every_kind_of_step_has_a_handler() -> None:
    assert set(HANDLERS) == set(StepKind)
    assert set(HANDLERS) >= INTERRUPTIBLE


def test_a_create_makes_each_part_before_what_needs_it() -> None:
    order = names(plan_create("demo", spec()))
    for earlier, later in [
        ("vpc", "subnet:us-east-1b"),
        ("security-group", "instance:rs0-0"),
        ("instance:rs0-2", "volume:rs0-2"),
        ("volume:rs0-2", "agent:rs0-0"),
        ("agent:rs0-2", "mongod:rs0-0"),
        ("mongod:rs0-2", "initiate:rs0"),
        ("initiate:rs0", "members:rs0"),
        ("members:rs0", "user:rs0"),
        ("healthy:rs0", "settle:rs0"),
    ]:
        assert order.index(earlier) < order.index(later)


def test_a_delete_takes_away_each_part_after_what_needs_it() -> None:
    order = names(plan_delete(spec()))
    for earlier, later in [
        ("retire:rs0-0", "terminate:rs0-0"),
        ("terminate:rs0-2", "delete-volume:rs0-0"),
        ("delete-volume:rs0-2", "delete-network:security-group"),
        ("delete-network:subnet:us-east-1c", "delete-network:vpc"),
    ]:
        assert order.index(earlier) < order.index(later)


def test_what_a_create_makes_a_delete_removes() -> None:
    made = {
        step.name.removeprefix("instance:").removeprefix("volume:")
        for _, _, step in plan_create("demo", spec()).steps()
        if step.kind in {StepKind.INSTANCE, StepKind.VOLUME}
    }
    removed = {step.subject for _, _, step in plan_delete(spec()).steps() if step.kind is StepKind.TERMINATE}
    assert made == removed
    network = {"vpc", "gateway", "security-group", *(f"subnet:{zone}" for zone in ZONES[:3])}
    assert network == {
        step.subject for _, _, step in plan_delete(spec()).steps() if step.kind is StepKind.DELETE_NETWORK
    }


def test_undo_steps_never_share_a_name_with_what_they_undo() -> None:
    create, undo = names(plan_create("demo", spec())), names(plan_delete(spec(), undo=True))
    assert not set(create) & set(undo)
    assert all(name.startswith("undo/") for name in undo)


def test_two_steps_of_one_name_are_no_plan() -> None:
    step = Step(StepKind.VPC, "", "t", "r")
    with pytest.raises(ValueError, match="share a name"):
        Plan((Stage("s", (step, step)),))


def test_each_step_has_two_boundaries() -> None:
    plan = plan_create("demo", spec())
    assert len(boundaries(plan)) == len(set(boundaries(plan))) == 2 * len(names(plan))


@given(st.sampled_from([1, 3, 5, 7]), st.integers(1, 4))
def test_members_are_spread_as_evenly_as_zones_allow(members: int, zones: int) -> None:
    counts = Counter(place.zone for place in placements(spec(members, zones)))
    assert max(counts.values()) - min(counts.get(zone, 0) for zone in ZONES[:zones]) <= 1
    assert len({place.name for place in placements(spec(members, zones))}) == members


@given(st.integers(0, 255), st.integers(0, 255))
def test_cluster_networks_never_overlap(one: int, two: int) -> None:
    a, b = (ipaddress.ip_network(network_of("127.77.0.0/16", slot)) for slot in (one, two))
    assert a.overlaps(b) == (one == two)
    subnets = [ipaddress.ip_network(subnet_of(str(a), ZONES, zone)) for zone in ZONES]
    assert all(subnet.subnet_of(a) for subnet in subnets)  # type: ignore[arg-type]
    assert len(set(subnets)) == len(ZONES)


def test_a_pool_has_an_end() -> None:
    with pytest.raises(ValueError, match="256"):
        network_of("10.77.0.0/16", 256)
