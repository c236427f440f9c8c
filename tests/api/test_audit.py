"""Every call that changes something leaves exactly one event, in the very transaction of the change."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.message import Message
from sqlalchemy import event as orm_event
from sqlalchemy.orm import Session
from wap.control.v1 import access_pb2, alert_pb2, cluster_pb2, log_pb2, metric_pb2, node_pb2, operation_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2

from controlplane.domain.operation import OperationState
from controlplane.store.database import Database
from controlplane.store.tables import AuditEvent
from tests.api.alerting import SECRET, a_channel, a_rule, furnish, later
from tests.api.world import DATABASE_PASSWORD, PASSWORDS, World, a_wish, methods, populate, running

PASSWORD = "correct horse battery"
READS = {
    "AccessService/GetCaller",
    "AccessService/ListUsers",
    "AccessService/ListTokens",
    "AccessService/ListAuditEvents",
    "ProjectService/GetProject",
    "ProjectService/ListProjects",
    "ClusterService/GetCluster",
    "ClusterService/ListClusters",
    "ClusterService/WatchClusters",
    "ClusterService/ListCreateOptions",
    "OperationService/GetOperation",
    "OperationService/ListOperations",
    "OperationService/WatchOperation",
    "NodeService/GetNode",
    "NodeService/ListNodes",
    "MetricService/ListMetrics",
    "MetricService/QueryMetrics",
    "MetricService/SummariseMetrics",
    "MetricService/StreamMetrics",
    "LogService/SearchLogs",
    "LogService/TailLogs",
    "LogService/ListSlowQueries",
    "AlertService/ListAlertRules",
    "AlertService/ListAlerts",
    "AlertService/GetAlert",
    "AlertService/WatchAlerts",
    "AlertService/ListSilences",
    "AlertService/ListAlertChannels",
}
# What they read comes from agents, not from the store: their own tests hold that they leave no event, or which.
OF_AGENTS = {"MetricService/ListCurrentOperations", "MetricService/KillOperation"}
RULE_FACTS = {
    "name",
    "metric",
    "comparison",
    "threshold",
    "window_seconds",
    "hits",
    "severity",
    "disabled",
    "cluster_id",
    "node_id",
}
SILENCE_FACTS = {"rule_name", "cluster_id", "node_id", "ends_at", "comment"}


@dataclass(frozen=True)
class Row:
    """A call that changes something: how to ask, what its event is about, and which keys it tells."""

    build: Callable[[World], Awaitable[Message]]
    resource: str
    before: set[str]
    after: set[str]
    as_: str | None = "root"


def asking(build: Callable[[World], Message]) -> Callable[[World], Awaitable[Message]]:
    async def made(world: World) -> Message:
        return build(world)

    return made


async def _login(world: World) -> Message:
    await world.person("ada", password_hash=await PASSWORDS.hash(PASSWORD))
    return access_pb2.LoginRequest(username="ada", password=PASSWORD)


async def _change_password(world: World) -> Message:
    await world.person("ada", password_hash=await PASSWORDS.hash(PASSWORD))
    return access_pb2.ChangePasswordRequest(old_password=PASSWORD, new_password="x" * 12)


async def _revoke(world: World) -> Message:
    grants = [access_pb2.Grant(role=type_pb2.ACCESS_ROLE_VIEWER)]
    made = await world.call("AccessService/CreateToken", access_pb2.CreateTokenRequest(name="ci", grants=grants))
    return access_pb2.RevokeTokenRequest(token_id=made.token.id)


async def _delete_project(world: World) -> Message:
    return project_pb2.DeleteProjectRequest(project_id=await world.project("cc"))


def furnished(build: Callable[[World], Message]) -> Callable[[World], Awaitable[Message]]:
    """Where there are an alert, a rule, a silence and a channel."""

    async def made(world: World) -> Message:
        await furnish(world)
        return build(world)

    return made


def operation(state: OperationState, request: type[Any]) -> Callable[[World], Awaitable[Message]]:
    async def made(world: World) -> Message:
        found: Message = request(operation_id=await world.operation("orders", state))
        return found

    return made


CHANGES = {
    "AccessService/Login": Row(_login, "user", set(), {"session"}, None),
    "AccessService/Logout": Row(asking(lambda w: access_pb2.LogoutRequest()), "user", {"session"}, set(), "viewer-a"),
    "AccessService/ChangePassword": Row(_change_password, "user", set(), {"other_sessions"}, "ada"),
    "AccessService/CreateUser": Row(
        asking(lambda w: access_pb2.CreateUserRequest(username="grace", password=PASSWORD)),
        "user",
        set(),
        {"username", "grants"},
    ),
    "AccessService/SetUserDisabled": Row(
        asking(lambda w: access_pb2.SetUserDisabledRequest(user_id=w.ids["user:viewer-a"], disabled=True)),
        "user",
        {"username", "disabled"},
        {"username", "disabled"},
    ),
    "AccessService/CreateToken": Row(
        asking(
            lambda w: access_pb2.CreateTokenRequest(
                name="ci", grants=[access_pb2.Grant(role=type_pb2.ACCESS_ROLE_VIEWER)]
            )
        ),
        "token",
        set(),
        {"name", "grants", "expires_at"},
    ),
    "AccessService/RevokeToken": Row(_revoke, "token", {"name", "revoked"}, {"name", "revoked"}),
    "ProjectService/CreateProject": Row(
        asking(lambda w: project_pb2.CreateProjectRequest(name="cc")), "project", set(), {"name"}
    ),
    "ProjectService/DeleteProject": Row(_delete_project, "project", {"name"}, set()),
    "ClusterService/CreateCluster": Row(
        asking(lambda w: a_wish(w.ids["aa"])), "cluster", set(), {"name", "spec", "operation"}
    ),
    "ClusterService/GetConnection": Row(
        asking(lambda w: cluster_pb2.GetConnectionRequest(cluster_id=w.ids["orders"])), "cluster", set(), {"username"}
    ),
    "ClusterService/DeleteCluster": Row(
        asking(lambda w: cluster_pb2.DeleteClusterRequest(cluster_id=w.ids["orders"], confirm_name="orders")),
        "cluster",
        {"name", "state", "spec"},
        {"operation"},
    ),
    "OperationService/CancelOperation": Row(
        operation(OperationState.RUNNING, operation_pb2.CancelOperationRequest),
        "operation",
        {"cluster", "state", "attempt", "cancel_requested"},
        {"cluster", "state", "attempt", "cancel_requested"},
    ),
    "OperationService/RetryOperation": Row(
        operation(OperationState.FAILED, operation_pb2.RetryOperationRequest),
        "operation",
        {"cluster", "state", "attempt", "cancel_requested"},
        {"cluster", "state", "attempt", "cancel_requested"},
    ),
    "OperationService/AbandonOperation": Row(
        operation(OperationState.FAILED, operation_pb2.AbandonOperationRequest),
        "operation",
        {"cluster", "state", "attempt", "cancel_requested"},
        {"cluster", "state", "attempt", "cancel_requested"},
    ),
    "NodeService/BanAgent": Row(
        asking(lambda w: node_pb2.BanAgentRequest(node_id=w.ids["orders-rs0-0"], reason="lost")),
        "node",
        {"agent_state"},
        {"agent_state", "reason"},
    ),
    "AlertService/CreateAlertRule": Row(
        asking(lambda w: alert_pb2.CreateAlertRuleRequest(rule=a_rule(project_id=w.ids["aa"]))),
        "alert-rule",
        set(),
        RULE_FACTS,
    ),
    "AlertService/UpdateAlertRule": Row(
        furnished(lambda w: alert_pb2.UpdateAlertRuleRequest(rule=a_rule(id=w.ids["rule"]))),
        "alert-rule",
        RULE_FACTS,
        RULE_FACTS,
    ),
    "AlertService/DeleteAlertRule": Row(
        furnished(lambda w: alert_pb2.DeleteAlertRuleRequest(rule_id=w.ids["rule"])), "alert-rule", RULE_FACTS, set()
    ),
    "AlertService/AcknowledgeAlert": Row(
        furnished(lambda w: alert_pb2.AcknowledgeAlertRequest(alert_id=w.ids["alert"], until_time=later(w, hours=1))),
        "alert",
        set(),
        {"rule", "until", "comment"},
    ),
    "AlertService/CreateSilence": Row(
        asking(
            lambda w: alert_pb2.CreateSilenceRequest(
                silence=alert_pb2.Silence(project_id=w.ids["aa"], end_time=later(w, hours=1))
            )
        ),
        "silence",
        set(),
        SILENCE_FACTS,
    ),
    "AlertService/EndSilence": Row(
        furnished(lambda w: alert_pb2.EndSilenceRequest(silence_id=w.ids["silence"])),
        "silence",
        SILENCE_FACTS,
        SILENCE_FACTS,
    ),
    "AlertService/CreateAlertChannel": Row(
        asking(lambda w: alert_pb2.CreateAlertChannelRequest(channel=a_channel(project_id=w.ids["aa"]))),
        "alert-channel",
        set(),
        {"name", "kind", "minimum_severity", "host", "port", "username", "from", "to", "plaintext"},
    ),
    "AlertService/DeleteAlertChannel": Row(
        furnished(lambda w: alert_pb2.DeleteAlertChannelRequest(channel_id=w.ids["channel"])),
        "alert-channel",
        {"name", "kind", "minimum_severity", "url"},
        set(),
    ),
    "AlertService/TestAlertChannel": Row(
        furnished(lambda w: alert_pb2.TestAlertChannelRequest(channel_id=w.ids["channel"])),
        "alert-channel",
        set(),
        {"name", "delivered", "detail"},
    ),
}


def test_every_rpc_is_known_as_a_change_or_as_a_read() -> None:
    assert set(CHANGES) | READS | OF_AGENTS == set(methods())
    assert not set(CHANGES) & READS


@pytest.mark.parametrize("rpc", CHANGES)
async def test_a_change_leaves_one_event_that_tells_who_what_and_from_where(world: World, rpc: str) -> None:
    row = CHANGES[rpc]
    request = await row.build(world)
    earlier = {event.id for event in await world.events()}
    await world.call(rpc, request, row.as_, request_id="my-request-1")
    new = [event for event in await world.events() if event.id not in earlier]
    assert len(new) == 1
    (event,) = new
    actor = f"user:{row.as_ or 'ada'}"
    assert (event.action, event.actor, event.outcome) == (rpc.partition("/")[2], actor, "ok")
    assert (event.request_id, event.peer.rpartition(":")[0]) == ("my-request-1", "ipv4:127.0.0.1")
    assert event.resource.startswith(f"{row.resource}/")
    assert set(json.loads(event.before_json or "{}")) == row.before
    assert set(json.loads(event.after_json or "{}")) == row.after
    if row.resource in {"cluster", "operation", "node", "alert", "alert-rule", "silence", "alert-channel"}:
        assert event.project_id == world.ids["aa"]
    for secret in (PASSWORD, DATABASE_PASSWORD, SECRET, *world.tokens.values()):
        assert secret not in str(event)


@pytest.mark.parametrize("rpc", sorted(READS))
async def test_a_read_leaves_none(world: World, rpc: str) -> None:
    world.ids["op"] = await world.operation("orders")
    await furnish(world)
    node, cluster, metric = world.ids["orders-rs0-0"], world.ids["orders"], "host.cpu.used_percent"
    requests: dict[str, Message] = {
        "ProjectService/GetProject": project_pb2.GetProjectRequest(name="aa"),
        "ClusterService/GetCluster": cluster_pb2.GetClusterRequest(cluster_id=world.ids["orders"]),
        "OperationService/GetOperation": operation_pb2.GetOperationRequest(operation_id=world.ids["op"]),
        "OperationService/WatchOperation": operation_pb2.WatchOperationRequest(operation_id=world.ids["op"]),
        "NodeService/GetNode": node_pb2.GetNodeRequest(node_id=world.ids["orders-rs0-0"]),
        "MetricService/QueryMetrics": metric_pb2.QueryMetricsRequest(cluster_id=cluster, metrics=[metric]),
        "MetricService/SummariseMetrics": metric_pb2.SummariseMetricsRequest(metric=metric),
        "MetricService/StreamMetrics": metric_pb2.StreamMetricsRequest(node_id=node, metrics=[metric]),
        "LogService/ListSlowQueries": log_pb2.ListSlowQueriesRequest(node_id=node),
        "AlertService/GetAlert": alert_pb2.GetAlertRequest(alert_id=world.ids["alert"]),
    }
    module = {
        "AccessService": access_pb2,
        "ProjectService": project_pb2,
        "ClusterService": cluster_pb2,
        "OperationService": operation_pb2,
        "NodeService": node_pb2,
        "MetricService": metric_pb2,
        "LogService": log_pb2,
        "AlertService": alert_pb2,
    }[rpc.partition("/")[0]]
    request = requests.get(rpc) or getattr(module, f"{rpc.partition('/')[2]}Request")()
    before = await world.dump()
    await world.call(rpc, request)
    assert await world.dump() == before


class BrokenQueue:
    """Fails when the rest of the transaction is done."""

    def enqueue(self, tx: Session, operation_id: str, cluster_id: str, attempt: int) -> None:
        raise RuntimeError("the queue is broken")


@pytest.mark.parametrize(
    "rpc", ["ClusterService/CreateCluster", "ClusterService/DeleteCluster", "OperationService/RetryOperation"]
)
async def test_what_cannot_be_enqueued_has_not_happened_and_is_not_told(database: Database, rpc: str) -> None:
    async with running(database, queue=BrokenQueue()) as world:
        await populate(world)
        request = await CHANGES[rpc].build(world)
        before = await world.dump()
        assert (await world.refusal(rpc, request)).reason == "INTERNAL"
        assert await world.dump() == before


@pytest.mark.parametrize("rpc", [rpc for rpc in CHANGES if rpc != "AccessService/Login"])
async def test_what_cannot_be_audited_has_not_happened(world: World, rpc: str) -> None:
    """The control of "one transaction": the event is made to fail, and the change is gone with it."""
    row = CHANGES[rpc]
    request = await row.build(world)
    before = await world.dump()

    def refuse(*_: object) -> None:
        raise RuntimeError("no event can be written")

    orm_event.listen(AuditEvent, "before_insert", refuse)
    try:
        assert (await world.refusal(rpc, request, row.as_)).reason == "INTERNAL"
    finally:
        orm_event.remove(AuditEvent, "before_insert", refuse)
    assert await world.dump() == before
    assert world.queue.entries == []


async def test_the_audit_is_read_page_by_page_newest_first_and_filtered(world: World) -> None:
    for number in range(7):
        await world.call("ProjectService/CreateProject", project_pb2.CreateProjectRequest(name=f"project-{number}"))
    seen: list[str] = []
    request = access_pb2.ListAuditEventsRequest(page_size=3, actor="user:root")
    while True:
        reply = await world.call("AccessService/ListAuditEvents", request)
        assert 1 <= len(reply.events) <= 3
        seen += [json.loads(event.after_json)["name"] for event in reply.events]
        request.page_token = reply.next_page_token
        if not request.page_token:
            break
    assert seen == [f"project-{number}" for number in reversed(range(7))]
    one = (await world.events())[2]
    for wanted in (
        access_pb2.ListAuditEventsRequest(resource=one.resource),
        access_pb2.ListAuditEventsRequest(project_id=one.project_id),
    ):
        assert [event.id for event in (await world.call("AccessService/ListAuditEvents", wanted)).events] == [one.id]
    nobody = access_pb2.ListAuditEventsRequest(actor="user:nobody")
    assert not (await world.call("AccessService/ListAuditEvents", nobody)).events


async def test_an_administrator_of_a_project_sees_its_events_and_no_others(world: World) -> None:
    for name in ("orders", "secrets"):
        request = cluster_pb2.GetConnectionRequest(cluster_id=world.ids[name])
        await world.call("ClusterService/GetConnection", request)
    wanted = access_pb2.ListAuditEventsRequest(project_id=world.ids["aa"])
    events = (await world.call("AccessService/ListAuditEvents", wanted, "admin-a")).events
    assert [event.resource for event in events] == [f"cluster/{world.ids['orders']}"]
