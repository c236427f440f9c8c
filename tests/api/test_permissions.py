"""Who may call what: a table of its own, held against the contract and against what the server does."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from wap.control.v1 import access_pb2, alert_pb2, cluster_pb2, log_pb2, metric_pb2, node_pb2, operation_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2

from console.client import WapError
from controlplane.api.permissions import RULES, authorise
from controlplane.api.service import build_api
from controlplane.domain.access import Caller, Grant, Role, new_token
from controlplane.domain.failure import FailureCode, Refused
from controlplane.domain.operation import OperationState
from controlplane.server import reflection_names
from controlplane.store import access
from controlplane.store.tables import Token, User
from tests.api.alerting import a_channel, a_rule, furnish, later
from tests.api.world import START, World, a_wish, methods

PUBLIC, ANYONE, INSTALLATION, VIEWER, OPERATOR, ADMIN = (
    "public",
    "anyone",
    "installation",
    "viewer",
    "operator",
    "admin",
)
RANK = {VIEWER: 1, OPERATOR: 2, ADMIN: 3}
MISSING = "xx-aaaaaaaaaaaaaaaa"
METRIC = "host.cpu.user_percent"
Build = Callable[[World], Message]


@dataclass(frozen=True)
class Row:
    """What a call needs, a good request about project A, and the field by which a foreign thing is named."""

    need: str
    build: Build
    named_by: str = ""


def _operation(world: World) -> str:
    return world.ids["operation"]


ACCESS: dict[str, Row] = {
    "AccessService/Login": Row(PUBLIC, lambda w: access_pb2.LoginRequest(username="nobody", password="wrong")),
    "AccessService/Logout": Row(ANYONE, lambda w: access_pb2.LogoutRequest()),
    "AccessService/GetCaller": Row(ANYONE, lambda w: access_pb2.GetCallerRequest()),
    # A wrong old password is UNAUTHENTICATED too, so this one is refused for its new password.
    "AccessService/ChangePassword": Row(ANYONE, lambda w: access_pb2.ChangePasswordRequest(new_password="short")),
    "AccessService/CreateUser": Row(INSTALLATION, lambda w: access_pb2.CreateUserRequest(username="newcomer")),
    "AccessService/ListUsers": Row(INSTALLATION, lambda w: access_pb2.ListUsersRequest()),
    "AccessService/SetUserDisabled": Row(
        INSTALLATION, lambda w: access_pb2.SetUserDisabledRequest(user_id=w.ids["user:victim"], disabled=True)
    ),
    "AccessService/CreateToken": Row(
        ANYONE,
        lambda w: access_pb2.CreateTokenRequest(name="ci"),  # without grants: refused after the gate
    ),
    "AccessService/ListTokens": Row(ANYONE, lambda w: access_pb2.ListTokensRequest()),
    "AccessService/RevokeToken": Row(ANYONE, lambda w: access_pb2.RevokeTokenRequest(token_id=w.ids["own-token"])),
    "AccessService/ListAuditEvents": Row(
        ADMIN, lambda w: access_pb2.ListAuditEventsRequest(project_id=w.ids["aa"]), "project_id"
    ),
    "ProjectService/CreateProject": Row(INSTALLATION, lambda w: project_pb2.CreateProjectRequest(name="cc")),
    "ProjectService/GetProject": Row(
        VIEWER, lambda w: project_pb2.GetProjectRequest(project_id=w.ids["aa"]), "project_id"
    ),
    "ProjectService/ListProjects": Row(ANYONE, lambda w: project_pb2.ListProjectsRequest()),
    "ProjectService/DeleteProject": Row(
        ADMIN, lambda w: project_pb2.DeleteProjectRequest(project_id=w.ids["aa"]), "project_id"
    ),
    "ClusterService/CreateCluster": Row(OPERATOR, lambda w: a_wish(w.ids["aa"]), "project_id"),
    "ClusterService/GetCluster": Row(
        VIEWER, lambda w: cluster_pb2.GetClusterRequest(cluster_id=w.ids["orders"]), "cluster_id"
    ),
    "ClusterService/ListClusters": Row(
        VIEWER, lambda w: cluster_pb2.ListClustersRequest(project_id=w.ids["aa"]), "project_id"
    ),
    "ClusterService/WatchClusters": Row(
        VIEWER, lambda w: cluster_pb2.WatchClustersRequest(cluster_id=w.ids["orders"]), "cluster_id"
    ),
    "ClusterService/GetConnection": Row(
        OPERATOR, lambda w: cluster_pb2.GetConnectionRequest(cluster_id=w.ids["orders"]), "cluster_id"
    ),
    "ClusterService/DeleteCluster": Row(
        OPERATOR,
        lambda w: cluster_pb2.DeleteClusterRequest(cluster_id=w.ids["orders"], confirm_name="orders"),
        "cluster_id",
    ),
    "ClusterService/ListCreateOptions": Row(ANYONE, lambda w: cluster_pb2.ListCreateOptionsRequest()),
    "OperationService/GetOperation": Row(
        VIEWER, lambda w: operation_pb2.GetOperationRequest(operation_id=_operation(w)), "operation_id"
    ),
    "OperationService/ListOperations": Row(
        VIEWER, lambda w: operation_pb2.ListOperationsRequest(cluster_id=w.ids["orders"]), "cluster_id"
    ),
    "OperationService/WatchOperation": Row(
        VIEWER, lambda w: operation_pb2.WatchOperationRequest(operation_id=_operation(w)), "operation_id"
    ),
    "OperationService/CancelOperation": Row(
        OPERATOR, lambda w: operation_pb2.CancelOperationRequest(operation_id=_operation(w)), "operation_id"
    ),
    "OperationService/RetryOperation": Row(
        OPERATOR, lambda w: operation_pb2.RetryOperationRequest(operation_id=_operation(w)), "operation_id"
    ),
    "OperationService/AbandonOperation": Row(
        OPERATOR, lambda w: operation_pb2.AbandonOperationRequest(operation_id=_operation(w)), "operation_id"
    ),
    "NodeService/GetNode": Row(VIEWER, lambda w: node_pb2.GetNodeRequest(node_id=w.ids["orders-rs0-0"]), "node_id"),
    "NodeService/ListNodes": Row(VIEWER, lambda w: node_pb2.ListNodesRequest(cluster_id=w.ids["orders"]), "cluster_id"),
    "NodeService/BanAgent": Row(
        OPERATOR, lambda w: node_pb2.BanAgentRequest(node_id=w.ids["orders-rs0-0"], reason="lost"), "node_id"
    ),
    "MetricService/ListMetrics": Row(ANYONE, lambda w: metric_pb2.ListMetricsRequest()),
    "MetricService/QueryMetrics": Row(
        VIEWER, lambda w: metric_pb2.QueryMetricsRequest(cluster_id=w.ids["orders"], metrics=[METRIC]), "cluster_id"
    ),
    "MetricService/SummariseMetrics": Row(
        VIEWER,
        lambda w: metric_pb2.SummariseMetricsRequest(project_id=w.ids["aa"], metric=METRIC),
        "project_id",
    ),
    "MetricService/StreamMetrics": Row(
        VIEWER, lambda w: metric_pb2.StreamMetricsRequest(node_id=w.ids["orders-rs0-0"], metrics=[METRIC]), "node_id"
    ),
    "MetricService/ListCurrentOperations": Row(
        VIEWER, lambda w: metric_pb2.ListCurrentOperationsRequest(node_id=w.ids["orders-rs0-0"]), "node_id"
    ),
    "MetricService/KillOperation": Row(
        OPERATOR,
        # Not acceptable, but only to somebody who was let in.
        lambda w: metric_pb2.KillOperationRequest(node_id=w.ids["orders-rs0-0"], current_operation_id=0),
        "node_id",
    ),
    "LogService/SearchLogs": Row(
        VIEWER,
        lambda w: log_pb2.SearchLogsRequest(filter=log_pb2.LogFilter(cluster_id=w.ids["orders"])),
        "filter.cluster_id",
    ),
    "LogService/TailLogs": Row(
        VIEWER,
        lambda w: log_pb2.TailLogsRequest(filter=log_pb2.LogFilter(node_id=w.ids["orders-rs0-0"])),
        "filter.node_id",
    ),
    "LogService/ListSlowQueries": Row(
        VIEWER, lambda w: log_pb2.ListSlowQueriesRequest(node_id=w.ids["orders-rs0-0"]), "node_id"
    ),
    "AlertService/ListAlertRules": Row(
        VIEWER, lambda w: alert_pb2.ListAlertRulesRequest(cluster_id=w.ids["orders"]), "cluster_id"
    ),
    "AlertService/CreateAlertRule": Row(
        OPERATOR,
        lambda w: alert_pb2.CreateAlertRuleRequest(rule=a_rule(cluster_id=w.ids["orders"])),
        "rule.cluster_id",
    ),
    "AlertService/UpdateAlertRule": Row(
        OPERATOR, lambda w: alert_pb2.UpdateAlertRuleRequest(rule=a_rule(id=w.ids["rule"])), "rule.id"
    ),
    "AlertService/DeleteAlertRule": Row(
        OPERATOR,
        lambda w: alert_pb2.DeleteAlertRuleRequest(rule_id=w.ids["rule"]),
        "rule_id",
    ),
    "AlertService/ListAlerts": Row(
        VIEWER, lambda w: alert_pb2.ListAlertsRequest(node_id=w.ids["orders-rs0-0"]), "node_id"
    ),
    "AlertService/GetAlert": Row(VIEWER, lambda w: alert_pb2.GetAlertRequest(alert_id=w.ids["alert"]), "alert_id"),
    "AlertService/WatchAlerts": Row(
        VIEWER, lambda w: alert_pb2.WatchAlertsRequest(cluster_id=w.ids["orders"]), "cluster_id"
    ),
    "AlertService/AcknowledgeAlert": Row(
        OPERATOR,
        lambda w: alert_pb2.AcknowledgeAlertRequest(alert_id=w.ids["alert"], until_time=later(w, hours=1)),
        "alert_id",
    ),
    "AlertService/CreateSilence": Row(
        OPERATOR,
        lambda w: alert_pb2.CreateSilenceRequest(
            silence=alert_pb2.Silence(node_id=w.ids["orders-rs0-0"], end_time=later(w, hours=1))
        ),
        "silence.node_id",
    ),
    "AlertService/ListSilences": Row(
        VIEWER, lambda w: alert_pb2.ListSilencesRequest(project_id=w.ids["aa"]), "project_id"
    ),
    "AlertService/EndSilence": Row(
        OPERATOR, lambda w: alert_pb2.EndSilenceRequest(silence_id=w.ids["silence"]), "silence_id"
    ),
    "AlertService/CreateAlertChannel": Row(
        ADMIN,
        lambda w: alert_pb2.CreateAlertChannelRequest(channel=a_channel(project_id=w.ids["aa"])),
        "channel.project_id",
    ),
    "AlertService/ListAlertChannels": Row(
        VIEWER, lambda w: alert_pb2.ListAlertChannelsRequest(project_id=w.ids["aa"]), "project_id"
    ),
    "AlertService/DeleteAlertChannel": Row(
        ADMIN, lambda w: alert_pb2.DeleteAlertChannelRequest(channel_id=w.ids["channel"]), "channel_id"
    ),
    "AlertService/TestAlertChannel": Row(
        ADMIN, lambda w: alert_pb2.TestAlertChannelRequest(channel_id=w.ids["channel"]), "channel_id"
    ),
}
# The one who comes second finds nothing any more.
GONE_AFTER_THE_FIRST = {
    "AccessService/RevokeToken",
    "AlertService/DeleteAlertRule",
    "AlertService/DeleteAlertChannel",
}
# Role that each caller has in project A.
ROLES = {"viewer-a": VIEWER, "operator-a": OPERATOR, "admin-a": ADMIN}
STRANGERS = ("anonymous", "expired", "revoked", "disabled", "idle", "malformed", "made-up")


def test_the_table_has_every_rpc_and_the_server_a_rule_for_each() -> None:
    assert set(ACCESS) == set(methods()), "a new RPC needs a row here and in permissions.RULES"
    rules = {path.removeprefix("/wap.control.v1.") for path in RULES if path.startswith("/wap.control.")}
    assert rules == set(methods())


def test_every_service_of_the_contract_is_listed_by_reflection() -> None:
    services = {f"wap.control.v1.{name.partition('/')[0]}" for name in methods()}
    assert services <= set(reflection_names())


async def test_a_method_without_a_rule_is_denied_even_to_the_administrator(world: World) -> None:
    root = Caller("user:root", "us-1", "root", (Grant("", Role.ADMIN),), "tk-1", True, START)
    with pytest.raises(Refused) as denied:
        await world.database.read(lambda tx: authorise(tx, "/wap.control.v1.NewService/New", root, None))
    assert denied.value.code is FailureCode.PERMISSION_DENIED


def test_only_login_and_what_has_its_own_credential_is_public() -> None:
    assert {path for path, rule in RULES.items() if rule.public} == {
        "/wap.control.v1.AccessService/Login",
        "/wap.agent.v1.EnrollmentService/Enroll",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }


async def strangers(world: World) -> None:
    """Tokens that are worth nothing, each for another reason."""
    everything = Grant("", Role.ADMIN)
    for name in ("revoked", "disabled", "idle"):
        await world.person(name, everything)
    await world.person("expired", everything, life=timedelta(seconds=10))
    world.tokens["malformed"] = "not-a-token"
    await world.database.write(
        lambda tx: access.revoke(tx, tx.get_one(Token, world.ids["session:revoked"]), world.clock.now())
    )

    def work(tx: object) -> None:
        tx.get_one(User, world.ids["user:disabled"]).disabled = True  # type: ignore[attr-defined]
        idle = tx.get_one(Token, world.ids["session:idle"])  # type: ignore[attr-defined]
        idle.last_used_at = world.clock.now() - timedelta(minutes=31)

    await world.database.write(work)
    made_up = world.tokens["root"]
    world.tokens["made-up"] = new_token("waps")
    assert made_up != world.tokens["made-up"]
    world.clock.advance(11)


async def populated(world: World) -> None:
    await strangers(world)
    await world.person("victim", Grant(world.ids["aa"], Role.VIEWER))
    world.ids["operation"] = await world.operation("orders", OperationState.SUCCEEDED)
    world.ids["own-token"] = MISSING
    await furnish(world)


@pytest.mark.parametrize("rpc", sorted(ACCESS))
async def test_the_access_matrix(world: World, rpc: str) -> None:
    row = ACCESS[rpc]
    await populated(world)
    before = await world.dump()
    if row.need == PUBLIC:
        error = await world.refusal(rpc, row.build(world), None)
        assert error.field == "password", "it was judged by the servicer"
        return
    for stranger in STRANGERS:
        error = await world.refusal(rpc, row.build(world), None if stranger == "anonymous" else stranger)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), stranger
        assert error.field == "authorization"
    for caller in ("viewer-a", "operator-a", "admin-a", "viewer-b"):
        wanted = expected(row.need, caller)
        if wanted is not None:
            error = await world.refusal(rpc, row.build(world), caller)
            assert (error.code, error.reason) == wanted, caller
    after = await world.dump()
    assert {name: rows for name, rows in after.items() if name != "audit_event"} == {
        name: rows for name, rows in before.items() if name != "audit_event"
    }, "a refused call changes nothing"
    if row.named_by:
        await foreign_is_as_missing(world, rpc, row)
    for caller in ("viewer-a", "operator-a", "admin-a", "viewer-b", "root"):
        if expected(row.need, caller) is None:
            await admitted(world, rpc, row, caller)


def expected(need: str, caller: str) -> tuple[grpc.StatusCode, str] | None:
    """The refusal, or None for a caller who is let in."""
    if need == ANYONE or caller == "root":
        return None
    if need == INSTALLATION:
        return grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"
    if caller == "viewer-b":
        return grpc.StatusCode.NOT_FOUND, "NOT_FOUND"
    if RANK[ROLES[caller]] < RANK[need]:
        return grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"
    return None


async def foreign_is_as_missing(world: World, rpc: str, row: Row) -> None:
    """Another project's thing and one that does not exist: the same words."""
    foreign = row.build(world)
    missing = row.build(world)
    part, field = holder(missing, row.named_by)
    setattr(part, field, MISSING)
    errors = [await world.refusal(rpc, request, "viewer-b") for request in (foreign, missing)]
    told = [(error.code, error.reason, error.message, error.field, error.allowed) for error in errors]
    assert told[0] == told[1]
    assert errors[0].given == getattr(*holder(foreign, row.named_by))


def holder(request: Any, path: str) -> tuple[Any, str]:
    """The message in which the last part of a path stands, and that part."""
    for name in path.split(".")[:-1]:
        request = getattr(request, name)
    return request, path.rpartition(".")[2]


async def admitted(world: World, rpc: str, row: Row, caller: str) -> None:
    """Answered, or refused for a reason that only somebody who was let in can meet."""
    admissible = {"NOT_FOUND"} if rpc in GONE_AFTER_THE_FIRST else set()
    reason = await outcome(world, rpc, row.build(world), caller)
    assert reason not in {"UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "INTERNAL"} - admissible, caller


async def outcome(world: World, rpc: str, request: Message, caller: str = "root") -> str:
    """The reason of a refusal, "" for an answer."""
    try:
        await world.call(rpc, request, caller)
    except WapError as error:
        return error.reason
    return ""


async def test_lists_hold_only_what_the_caller_may_see(world: World) -> None:
    await world.operation("orders", OperationState.SUCCEEDED)
    await world.operation("secrets", OperationState.SUCCEEDED)
    for caller, visible in (("viewer-a", {"aa"}), ("viewer-b", {"bb"}), ("root", {"aa", "bb"})):
        ids = {world.ids[name] for name in visible}
        reply = await world.call("ProjectService/ListProjects", project_pb2.ListProjectsRequest(), caller)
        assert {one.name for one in reply.projects} == visible
        reply = await world.call("ClusterService/ListClusters", cluster_pb2.ListClustersRequest(), caller)
        assert {one.project_id for one in reply.clusters} == ids
        reply = await world.call("ClusterService/WatchClusters", cluster_pb2.WatchClustersRequest(), caller)
        assert {one.project_id for one in reply.clusters} == ids
        reply = await world.call("OperationService/ListOperations", operation_pb2.ListOperationsRequest(), caller)
        assert {one.project_id for one in reply.operations} == ids
        reply = await world.call("NodeService/ListNodes", node_pb2.ListNodesRequest(), caller)
        assert {one.project_id for one in reply.nodes} == ids


async def test_filters_of_another_project_open_no_side_door(world: World) -> None:
    """The cluster is the caller's, the project is not: nothing of the project is shown."""
    for rpc, request in (
        (
            "OperationService/ListOperations",
            operation_pb2.ListOperationsRequest(project_id=world.ids["bb"], cluster_id=world.ids["orders"]),
        ),
        (
            "NodeService/ListNodes",
            node_pb2.ListNodesRequest(project_id=world.ids["bb"], cluster_id=world.ids["orders"]),
        ),
        (
            "ClusterService/WatchClusters",
            cluster_pb2.WatchClustersRequest(project_id=world.ids["bb"], cluster_id=world.ids["orders"]),
        ),
    ):
        reply = await world.call(rpc, request, "viewer-a")
        assert not reply.ListFields(), rpc


async def test_a_name_in_a_foreign_project_is_as_missing_as_any(world: World) -> None:
    told = []
    for name in ("secrets", "nothing"):
        request = cluster_pb2.GetClusterRequest(project_id=world.ids["bb"], name=name)
        error = await world.refusal("ClusterService/GetCluster", request, "viewer-a")
        told.append((error.code, error.reason, error.message, error.field))
        project = project_pb2.GetProjectRequest(name="bb" if name == "secrets" else name)
        error = await world.refusal("ProjectService/GetProject", project, "viewer-a")
        told.append((error.code, error.reason, error.message, error.field))
    assert told[0] == told[2]
    assert told[1] == told[3]


async def test_a_denied_caller_stands_in_the_audit(world: World) -> None:
    await world.refusal("ProjectService/CreateProject", project_pb2.CreateProjectRequest(name="cc"), "viewer-a")
    (event,) = [one for one in await world.events() if one.action == "CreateProject"]
    assert (event.actor, event.outcome) == ("user:viewer-a", "PERMISSION_DENIED")
    assert event.request_id
    assert event.peer.startswith("ipv4:127.0.0.1")


async def test_a_wrong_token_stands_in_the_audit_once_a_minute_and_a_missing_one_not(world: World) -> None:
    request = project_pb2.ListProjectsRequest()
    await world.refusal("ProjectService/ListProjects", request, None)
    world.tokens["made-up"] = new_token("wap_api")
    for _ in range(5):
        await world.refusal("ProjectService/ListProjects", request, "made-up")
    found = [one for one in await world.events() if one.outcome == "UNAUTHENTICATED"]
    assert [(one.actor, one.action) for one in found] == [("anonymous", "ListProjects")]
    assert world.tokens["made-up"] not in str(found)


@pytest.mark.parametrize(
    "grant", [Grant("", Role.VIEWER), Grant("", Role.OPERATOR)], ids=["viewer everywhere", "operator everywhere"]
)
async def test_a_role_everywhere_is_no_more_than_that_role(world: World, grant: Grant) -> None:
    await world.person("everywhere", grant)
    await world.call(
        "ClusterService/GetCluster", cluster_pb2.GetClusterRequest(cluster_id=world.ids["secrets"]), "everywhere"
    )
    error = await world.refusal("AccessService/ListUsers", access_pb2.ListUsersRequest(), "everywhere")
    assert error.reason == "PERMISSION_DENIED"
    error = await world.refusal("AccessService/ListAuditEvents", access_pb2.ListAuditEventsRequest(), "everywhere")
    assert error.reason == "PERMISSION_DENIED"


async def test_build_api_serves_exactly_the_contract(world: World) -> None:
    """A service that was forgotten in build_api would answer UNIMPLEMENTED."""
    assert build_api(world.services, ())
    await furnish(world)
    for rpc, row in ACCESS.items():
        world.ids.update({"operation": MISSING, "own-token": MISSING, "user:victim": MISSING})
        assert await outcome(world, rpc, row.build(world)) != "UNSUPPORTED_COMMAND", rpc
        if rpc == "AccessService/Logout":
            await world.person("another", Grant("", Role.ADMIN))
            world.tokens["root"] = world.tokens["another"]


def test_the_wire_has_the_roles_that_this_table_speaks_of() -> None:
    roles = {name.removeprefix("ACCESS_ROLE_").lower() for name in type_pb2.AccessRole.keys()} - {"unspecified"}
    assert roles == set(RANK)
