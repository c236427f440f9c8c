"""How failures travel: one code each, one status each, the request id always, foreign text never."""

from typing import Any

import grpc
import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from wap.control.v1 import access_pb2, cluster_pb2, node_pb2, operation_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2
from wap.type.v1 import failure_pb2

from controlplane.api.errors import STATUS
from controlplane.domain.access import Role
from controlplane.domain.cluster import ClusterHealth, ClusterState, ReplicaSetRole, Topology
from controlplane.domain.failure import CloudFailure, FailureCode
from controlplane.domain.node import AgentState
from controlplane.domain.operation import OperationKind, OperationState, StepState
from tests.api.world import World, a_wish

MIB = 1024 * 1024


def test_every_failure_code_has_a_status_and_stands_in_the_contract() -> None:
    assert set(STATUS) == set(FailureCode)
    contract = {name.removeprefix("FAILURE_CODE_") for name in failure_pb2.FailureCode.keys()} - {"UNSPECIFIED"}
    assert contract == {str(code) for code in FailureCode}


@pytest.mark.parametrize(
    ("wrapper", "prefix", "kind"),
    [
        (type_pb2.Topology, "TOPOLOGY", Topology),
        (type_pb2.ReplicaSetRole, "REPLICA_SET_ROLE", ReplicaSetRole),
        (type_pb2.AccessRole, "ACCESS_ROLE", Role),
        (cluster_pb2.ClusterState, "CLUSTER_STATE", ClusterState),
        (cluster_pb2.ClusterHealth, "CLUSTER_HEALTH", ClusterHealth),
        (node_pb2.AgentState, "AGENT_STATE", AgentState),
        (operation_pb2.OperationKind, "OPERATION_KIND", OperationKind),
        (operation_pb2.OperationState, "OPERATION_STATE", OperationState),
        (operation_pb2.StepState, "STEP_STATE", StepState),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_enum_of_the_domain_has_the_names_of_the_contract(
    wrapper: EnumTypeWrapper, prefix: str, kind: type[str]
) -> None:
    contract = {name.removeprefix(f"{prefix}_") for name in wrapper.keys()} - {"UNSPECIFIED"}
    assert contract == {str(value) for value in kind}  # type: ignore[attr-defined]


async def test_what_nobody_foresaw_tells_its_request_id_and_nothing_else(world: World) -> None:
    world.offer.failure = RuntimeError("canary: password=hunter2 in /srv/app/thing.py line 7")
    error = await world.refusal("ClusterService/CreateCluster", a_wish(world.ids["aa"]))
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert error.request_id in error.message
    told = f"{error} {error.field} {error.given} {error.allowed} {error.trailing}"
    assert "canary" not in told
    assert "hunter2" not in told
    assert "RuntimeError" not in told


async def test_a_failure_of_aws_keeps_its_own_code(world: World) -> None:
    world.offer.failure = CloudFailure(FailureCode.CLOUD_THROTTLED, "EC2 says: slower", retryable=True)
    error = await world.refusal("ClusterService/ListCreateOptions", cluster_pb2.ListCreateOptionsRequest())
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "CLOUD_THROTTLED")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("my-own.id_7", True), ("x" * 64, True), ("x" * 65, False), ("has space", False), ("a;b", False), ("", False)],
)
async def test_a_well_formed_request_id_is_kept_and_always_comes_back(world: World, given: str, kept: bool) -> None:
    path = "/wap.control.v1.ProjectService/ListProjects"
    call = world.channel.unary_unary(path, bytes, bytes)(b"", metadata=world.metadata("root", given))
    await call
    pairs: Any = await call.trailing_metadata()
    trailing = {str(key): str(value) for key, value in pairs}
    assert (trailing["x-request-id"] == given) is kept
    assert trailing["x-request-id"]
    request = project_pb2.GetProjectRequest(project_id="pr-no")
    error = await world.refusal("ProjectService/GetProject", request, request_id=given)
    assert error.trailing["x-request-id"] == error.request_id
    assert (error.request_id == given) is kept


@pytest.mark.parametrize("as_", ["root", None])
async def test_bytes_that_are_no_request_are_the_callers_mistake(world: World, as_: str | None) -> None:
    error = await world.raw("/wap.control.v1.ClusterService/CreateCluster", b"\xff\xff\xff", as_)
    assert (error.code, error.reason, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request")
    assert error.request_id


@pytest.mark.parametrize("path", ["/wap.control.v1.ClusterService/Explode", "/other.Service/Call", "/nonsense"])
async def test_an_unknown_method_is_named_with_our_version(world: World, path: str) -> None:
    error = await world.raw(path, b"")
    assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED_COMMAND")
    assert error.given == path
    assert "WAP 0." in error.message


@pytest.mark.parametrize("size", [4 * MIB + 100, 7 * MIB])
async def test_a_message_over_the_limit_is_refused_with_the_limit(world: World, size: int) -> None:
    before = await world.dump()
    request = project_pb2.CreateProjectRequest(name="x" * size)
    error = await world.refusal("ProjectService/CreateProject", request)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert error.allowed == f"at most {4 * MIB} bytes"
    assert await world.dump() == before


async def test_a_message_far_over_the_limit_is_cut_off_with_the_same_status(world: World) -> None:
    error = await world.refusal("ProjectService/CreateProject", project_pb2.CreateProjectRequest(name="x" * 9 * MIB))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await world.call("AccessService/GetCaller", access_pb2.GetCallerRequest())  # and the server goes on


@pytest.mark.parametrize("text", ["a\x00b", "x" * 1025])
async def test_text_that_no_database_can_hold_is_refused_by_name(both: World, text: str) -> None:
    for rpc, request, field in (
        ("ProjectService/GetProject", project_pb2.GetProjectRequest(name=text), "name"),
        ("AccessService/Login", access_pb2.LoginRequest(username=text, password="p"), "username"),
        ("ClusterService/CreateCluster", a_wish(both.ids["aa"], zones=["us-east-1a", text]), "spec.zones[1]"),
    ):
        error = await both.refusal(rpc, request)
        assert (error.reason, error.field) == ("INVALID_ARGUMENT", field)
