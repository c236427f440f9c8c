"""Which wishes are accepted, and how the others are refused: field, what was given, what is allowed."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wap.type.v1 import failure_pb2

from controlplane.domain.cluster import (
    TRANSITIONS,
    Choices,
    ClusterSpec,
    ClusterState,
    NodeSize,
    ReplicaSetRole,
    ReplicaSetSpec,
    RouterSpec,
    Topology,
    advance,
    check_deletable,
    check_name,
    check_spec,
)
from controlplane.domain.failure import FailureCode, Refused
from controlplane.domain.operation import OPERATION_TRANSITIONS, OperationState
from controlplane.domain.operation import advance as advance_operation

CHOICES = Choices(
    regions=["us-east-1"],
    zones=("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"),
    mongodb_versions=["6.0.5"],
    instance_types=["m6i.large", "r6i.xlarge"],
)
SIZE = NodeSize("m6i.large", 20)
SET = ReplicaSetSpec("rs0", ReplicaSetRole.DATA, 3, SIZE)
SPEC = ClusterSpec(Topology.REPLICA_SET, "6.0.5", "us-east-1", CHOICES.zones[:3], (SET,))


def with_size(**values: object) -> ClusterSpec:
    return replace(SPEC, replica_sets=(replace(SET, size=replace(SIZE, **values)),))  # type: ignore[arg-type]


REFUSED = [
    (replace(SPEC, topology=Topology.SHARDED), "spec.topology"),
    (replace(SPEC, region="mars-north-1"), "spec.region"),
    (replace(SPEC, mongodb_version="2.6"), "spec.mongodb_version"),
    (replace(SPEC, replica_sets=()), "spec.replica_sets"),
    (replace(SPEC, replica_sets=(SET, SET)), "spec.replica_sets"),
    (replace(SPEC, routers=RouterSpec(2, SIZE)), "spec.routers.count"),
    *[
        (replace(SPEC, replica_sets=(replace(SET, members=n),)), "spec.replica_sets[0].members")
        for n in (0, 1, 2, 4, 9)
    ],
    (replace(SPEC, replica_sets=(replace(SET, role=ReplicaSetRole.CONFIG),)), "spec.replica_sets[0].role"),
    (replace(SPEC, replica_sets=(replace(SET, name="../etc"),)), "spec.replica_sets[0].name"),
    (replace(SPEC, zones=("us-east-1a", "us-east-1z")), "spec.zones[1]"),
    (replace(SPEC, zones=("us-east-1a", "us-east-1a")), "spec.zones"),
    (with_size(instance_type="m1.huge"), "spec.replica_sets[0].size.instance_type"),
    (with_size(disk_gib=0), "spec.replica_sets[0].size.disk_gib"),
    (with_size(disk_gib=16385), "spec.replica_sets[0].size.disk_gib"),
    (with_size(disk_iops=2999), "spec.replica_sets[0].size.disk_iops"),
    (with_size(disk_iops=16000), "spec.replica_sets[0].size.disk_iops"),  # 20 GiB allow 10000
    (with_size(disk_throughput_mibps=1001), "spec.replica_sets[0].size.disk_throughput_mibps"),
    (with_size(disk_throughput_mibps=1000), "spec.replica_sets[0].size.disk_throughput_mibps"),  # needs 4000 IOPS
]


@pytest.mark.parametrize(("spec", "field"), REFUSED)
def test_a_bad_wish_is_refused_by_field(spec: ClusterSpec, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_spec(spec, CHOICES)
    details = refusal.value.details
    assert (details.code, details.field) == (FailureCode.INVALID_ARGUMENT, field)
    assert details.given
    assert details.allowed


def test_defaults_are_filled_in() -> None:
    bare = replace(SPEC, zones=(), replica_sets=(replace(SET, name=""),))
    checked = check_spec(bare, CHOICES)
    assert checked.zones == CHOICES.zones[:3]
    assert checked.replica_sets[0].name == "rs0"


def test_one_member_needs_the_word_unsafe() -> None:
    one = replace(SPEC, allow_unsafe=True, replica_sets=(replace(SET, members=1),))
    assert check_spec(one, CHOICES).member_total == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "1abc",
        "-a",
        "a-",
        "Demo",
        "dеmo",
        "a" * 41,
        "a b",
        "../x",
        "a'; drop table cluster",
        "<b>",
        "de\x00mo",
        "ｄemo",
    ],
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_name(name)
    assert refusal.value.details.field == "name"


@given(st.from_regex(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", fullmatch=True))
def test_good_names_pass(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=60))
def test_whatever_passes_is_plain(name: str) -> None:
    try:
        check_name(name)
    except Refused:
        return
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_deletion_needs_the_name_and_no_protection() -> None:
    check_deletable("demo", "demo", SPEC)
    with pytest.raises(Refused) as slip:
        check_deletable("demo", "dem", SPEC)
    assert slip.value.code is FailureCode.NAME_NOT_CONFIRMED
    with pytest.raises(Refused) as protected:
        check_deletable("demo", "demo", replace(SPEC, deletion_protection=True))
    assert protected.value.code is FailureCode.DELETION_PROTECTED


@pytest.mark.parametrize(("old", "new"), list(product(ClusterState, ClusterState)))
def test_cluster_states_move_only_as_the_table_says(old: ClusterState, new: ClusterState) -> None:
    if new is old or new in TRANSITIONS[old]:
        assert advance(old, new) is new
    else:
        with pytest.raises(Refused):
            advance(old, new)


@pytest.mark.parametrize(("old", "new"), list(product(OperationState, OperationState)))
def test_operation_states_move_only_as_the_table_says(old: OperationState, new: OperationState) -> None:
    if new is old or new in OPERATION_TRANSITIONS[old]:
        assert advance_operation(OPERATION_TRANSITIONS, old, new) is new
    else:
        with pytest.raises(Refused):
            advance_operation(OPERATION_TRANSITIONS, old, new)


def test_failure_codes_are_the_wire_s() -> None:
    wire = {name.removeprefix("FAILURE_CODE_") for name in failure_pb2.FailureCode.keys()} - {"UNSPECIFIED"}
    assert {code.value for code in FailureCode} == wire
