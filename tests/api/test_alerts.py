"""AlertService: rules and what overrides them, alerts, acknowledgements, silences, channels and their secrets."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.orm import Session
from wap.control.v1 import alert_pb2 as pb

from controlplane.alerting.built_in import BUILT_IN
from controlplane.alerting.channels import Channels
from controlplane.domain.access import Grant, Role
from controlplane.store import alert_channels
from controlplane.store.tables import Secret
from tests.alerting.receivers import Receiver, listening
from tests.api.alerting import DISK, SECRET, a_channel, a_rule, fire, furnish, later, resolve
from tests.api.world import World

LIST_RULES, CREATE_RULE = "AlertService/ListAlertRules", "AlertService/CreateAlertRule"
UPDATE_RULE, DELETE_RULE = "AlertService/UpdateAlertRule", "AlertService/DeleteAlertRule"
LIST, GET, WATCH = "AlertService/ListAlerts", "AlertService/GetAlert", "AlertService/WatchAlerts"
ACKNOWLEDGE, SILENCE = "AlertService/AcknowledgeAlert", "AlertService/CreateSilence"
CHANNEL, TEST = "AlertService/CreateAlertChannel", "AlertService/TestAlertChannel"


async def rules_at(world: World, as_: str = "root", **place: str) -> dict[str, pb.EffectiveRule]:
    reply = await world.call(LIST_RULES, pb.ListAlertRulesRequest(**place), as_)
    return {one.rule.name: one for one in reply.rules}


async def test_the_rules_that_come_with_wap_hold_everywhere(both: World) -> None:
    for place in ({}, {"project_id": both.ids["aa"]}, {"node_id": both.ids["orders-rs0-1"]}):
        found = await rules_at(both, **place)
        assert set(found) == {rule.name for rule in BUILT_IN}
        assert all(one.inherited and one.rule.built_in for one in found.values())
    disk = found[DISK.name].rule
    assert (disk.metric, disk.threshold, disk.window.seconds, disk.hits) == ("host.disk.used_percent", 90.0, 60, 3)
    assert (disk.severity, disk.repeat_interval.seconds) == (pb.ALERT_SEVERITY_CRITICAL, 3600)


async def test_an_override_holds_below_its_level_until_it_is_deleted(both: World) -> None:
    own = a_rule(name=DISK.name, threshold=95.0, cluster_id=both.ids["orders"])
    made = (await both.call(CREATE_RULE, pb.CreateAlertRuleRequest(rule=own), "operator-a")).rule
    assert (made.cluster_id, made.project_id, made.built_in) == (both.ids["orders"], "", False)
    at_cluster = (await rules_at(both, cluster_id=both.ids["orders"]))[DISK.name]
    assert (at_cluster.rule.threshold, at_cluster.inherited) == (95.0, False)
    at_node = (await rules_at(both, node_id=both.ids["orders-rs0-0"]))[DISK.name]
    assert (at_node.rule.threshold, at_node.inherited) == (95.0, True)
    assert (await rules_at(both, project_id=both.ids["aa"]))[DISK.name].rule.threshold == 90.0
    assert (await rules_at(both, cluster_id=both.ids["secrets"]))[DISK.name].rule.threshold == 90.0

    made.threshold, made.disabled = 97.0, True
    changed = (await both.call(UPDATE_RULE, pb.UpdateAlertRuleRequest(rule=made), "operator-a")).rule
    assert (changed.threshold, changed.disabled, changed.id) == (97.0, True, made.id)
    await both.call(DELETE_RULE, pb.DeleteAlertRuleRequest(rule_id=made.id), "operator-a")
    assert (await rules_at(both, cluster_id=both.ids["orders"]))[DISK.name].rule.threshold == 90.0
    actions = [event.action for event in await both.events()]
    assert actions[:3] == ["DeleteAlertRule", "UpdateAlertRule", "CreateAlertRule"]


async def test_what_comes_with_wap_is_overridden_and_not_changed(world: World) -> None:
    rule = a_rule(id=f"built-in/{DISK.name}")
    for rpc, request in (
        (UPDATE_RULE, pb.UpdateAlertRuleRequest(rule=rule)),
        (DELETE_RULE, pb.DeleteAlertRuleRequest(rule_id=rule.id)),
    ):
        error = await world.refusal(rpc, request)
        assert (error.reason, error.field) == ("INVALID_ARGUMENT", "rule_id")
        assert "overridden" in error.allowed


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
async def test_what_holds_everywhere_needs_a_role_everywhere(world: World, role: Role) -> None:
    """A role in one project, however high, changes nothing for the others."""
    await world.person("someone", Grant(world.ids["aa"], role))
    until = later(world, hours=1)
    for rpc, request in (
        (CREATE_RULE, pb.CreateAlertRuleRequest(rule=a_rule())),
        (SILENCE, pb.CreateSilenceRequest(silence=pb.Silence(end_time=until))),
        (CHANNEL, pb.CreateAlertChannelRequest(channel=a_channel())),
    ):
        assert (await world.refusal(rpc, request, "someone")).reason == "PERMISSION_DENIED"
        await world.call(rpc, request)


async def test_a_rule_of_the_installation_is_out_of_reach_of_a_project(world: World) -> None:
    made = (await world.call(CREATE_RULE, pb.CreateAlertRuleRequest(rule=a_rule()))).rule
    for rpc, request in (
        (UPDATE_RULE, pb.UpdateAlertRuleRequest(rule=a_rule(id=made.id, threshold=1.0))),
        (DELETE_RULE, pb.DeleteAlertRuleRequest(rule_id=made.id)),
    ):
        assert (await world.refusal(rpc, request, "admin-a")).reason == "PERMISSION_DENIED"
    assert made.name in await rules_at(world, "viewer-b", project_id=world.ids["bb"])


async def test_an_alert_says_it_all_and_has_a_history(both: World) -> None:
    alert_id = await fire(both)
    (alert,) = (await both.call(LIST, pb.ListAlertsRequest(), "viewer-a")).alerts
    assert alert.summary == (
        "Disk nearly full on node orders-rs0-0: host.disk.used_percent is 93 %, above 90 %, "
        "since 2026-01-02 03:04:05 UTC"
    )
    assert (alert.unit, alert.value, alert.threshold, alert.metric) == ("percent", 93.0, 90.0, DISK.metric)
    assert (alert.severity, alert.state) == (pb.ALERT_SEVERITY_CRITICAL, pb.ALERT_STATE_FIRING)
    assert alert.advice
    until = later(both, hours=2)
    request = pb.AcknowledgeAlertRequest(alert_id=alert_id, until_time=until, comment="on it")
    acknowledged = (await both.call(ACKNOWLEDGE, request, "operator-a")).alert
    assert (acknowledged.state, acknowledged.acknowledged_by) == (pb.ALERT_STATE_ACKNOWLEDGED, "user:operator-a")
    assert acknowledged.acknowledged_until_time == until
    both.clock.advance(60)
    await resolve(both, alert_id)
    reply = await both.call(GET, pb.GetAlertRequest(alert_id=alert_id), "viewer-a")
    assert reply.alert.state == pb.ALERT_STATE_RESOLVED
    assert reply.alert.summary.endswith("from 2026-01-02 03:04:05 UTC to 2026-01-02 03:05:05 UTC")
    assert [event.what for event in reply.history] == ["fired", "acknowledged", "resolved"]
    assert reply.history[1].actor == "user:operator-a"
    again = await both.refusal(ACKNOWLEDGE, request, "operator-a")
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OPERATION_FINISHED")


async def test_lists_hold_what_the_caller_may_see_and_asks_for(world: World) -> None:
    mine, foreign = await fire(world), await fire(world, node="secrets-rs0-0")
    other_node = await fire(world, node="orders-rs0-1")
    await resolve(world, other_node)

    async def ids(as_: str, **wanted: Any) -> list[str]:
        return [one.id for one in (await world.call(LIST, pb.ListAlertsRequest(**wanted), as_)).alerts]

    assert await ids("viewer-a") == [mine]
    assert await ids("viewer-b") == [foreign]
    assert set(await ids("root")) == {mine, foreign}
    assert await ids("viewer-a", include_resolved=True) == [mine, other_node]
    assert await ids("viewer-a", include_resolved=True, node_id=world.ids["orders-rs0-1"]) == [other_node]
    assert await ids("root", project_id=world.ids["bb"]) == [foreign]
    assert await ids("viewer-a", project_id=world.ids["bb"], cluster_id=world.ids["orders"]) == []


async def test_pages(world: World) -> None:
    made = [await fire(world, rule, node=f"orders-rs0-{number}") for rule in BUILT_IN[:3] for number in range(3)]
    found: list[str] = []
    token = ""
    while True:
        reply = await world.call(LIST, pb.ListAlertsRequest(page_size=4, page_token=token))
        found += [one.id for one in reply.alerts]
        token = reply.next_page_token
        if not token:
            break
    assert sorted(found) == sorted(made)
    assert len(found) == 9
    first = await world.call(LIST, pb.ListAlertsRequest(page_size=4))
    request = pb.ListAlertsRequest(page_size=4, page_token=first.next_page_token, include_resolved=True)
    assert (await world.refusal(LIST, request)).field == "page_token"
    assert (await world.refusal(LIST, pb.ListAlertsRequest(page_size=501))).field == "page_size"


async def test_a_watch_begins_with_the_open_ones_and_tells_of_each_to_its_end(both: World) -> None:
    first = await fire(both)
    await fire(both, node="secrets-rs0-0")
    async with both.watch(WATCH, pb.WatchAlertsRequest(), "viewer-a") as stream:

        async def soon() -> pb.Alert:
            reply = await asyncio.wait_for(stream.next(), 10)
            alert: pb.Alert = reply.alert
            return alert

        assert (await soon()).id == first
        second = await fire(both, node="orders-rs0-1")
        assert (await soon()).id == second
        await both.call(
            ACKNOWLEDGE, pb.AcknowledgeAlertRequest(alert_id=first, until_time=later(both, hours=1)), "operator-a"
        )
        told = await soon()
        assert (told.id, told.state) == (first, pb.ALERT_STATE_ACKNOWLEDGED)
        await resolve(both, first)
        told = await soon()
        assert (told.id, told.state) == (first, pb.ALERT_STATE_RESOLVED)
        silence = pb.Silence(cluster_id=both.ids["orders"], end_time=later(both, hours=1))
        await both.call(SILENCE, pb.CreateSilenceRequest(silence=silence), "operator-a")
        told = await soon()
        assert (told.id, told.silenced) == (second, True)


async def test_a_silence_from_its_beginning_to_its_end(both: World) -> None:
    await fire(both)
    wish = pb.Silence(
        node_id=both.ids["orders-rs0-0"],
        rule_name=DISK.name,
        end_time=later(both, hours=1),
        comment="volume is growing",
    )
    made = (await both.call(SILENCE, pb.CreateSilenceRequest(silence=wish), "operator-a")).silence
    assert (made.node_id, made.cluster_id, made.created_by) == (wish.node_id, "", "user:operator-a")
    assert made.start_time == later(both)

    async def state(as_: str = "viewer-a") -> tuple[int, list[bool]]:
        silences = (await both.call("AlertService/ListSilences", pb.ListSilencesRequest(), as_)).silences
        found = (await both.call(LIST, pb.ListAlertsRequest(), as_)).alerts
        return len(silences), [one.silenced for one in found]

    assert await state() == (1, [True])
    assert await state("viewer-b") == (0, [])
    end = pb.EndSilenceRequest(silence_id=made.id)
    for _ in range(2):
        await both.call("AlertService/EndSilence", end, "operator-a")
        assert await state() == (0, [False])


async def test_a_channels_secret_is_shown_once_or_never(both: World) -> None:
    wishes = {
        "mail": a_channel(name="mail", email=mail(password="canary-mail-password")),
        "given": a_channel(name="given", webhook=pb.WebhookChannel(url="https://8.8.8.8/x", secret=SECRET)),
        "made": a_channel(name="made", webhook=pb.WebhookChannel(url="https://8.8.8.8/x")),
        "slack": a_channel(name="slack", slack=pb.SlackChannel(url="https://8.8.8.8/canary-slack")),
    }
    shown = {}
    for name, wish in wishes.items():
        wish.project_id = both.ids["aa"]
        reply = await both.call(CHANNEL, pb.CreateAlertChannelRequest(channel=wish), "admin-a")
        shown[name] = reply.channel
    assert shown["made"].webhook.secret.startswith("whsec_")
    assert (shown["given"].webhook.secret, shown["mail"].email.password, shown["slack"].slack.url) == ("", "", "")
    listed = (await both.call("AlertService/ListAlertChannels", pb.ListAlertChannelsRequest(), "viewer-a")).channels
    assert [one.name for one in listed] == ["given", "made", "mail", "slack"]
    text = str(listed) + str(await both.events()) + json.dumps(await both.dump())
    for secret in ("canary", SECRET, shown["made"].webhook.secret):
        assert secret not in text
    assert listed[2].email.to == ["dba@example.com"]
    assert (listed[2].email.port, listed[1].webhook.url) == (587, "https://8.8.8.8/x")
    stored = await both.database.read(lambda tx: alert_channels.secret(tx, both.services.vault, shown["slack"].id))
    assert stored == "https://8.8.8.8/canary-slack"
    for one in listed:
        await both.call("AlertService/DeleteAlertChannel", pb.DeleteAlertChannelRequest(channel_id=one.id), "admin-a")

    def scopes(tx: Session) -> list[str]:
        return [row.scope for row in tx.query(Secret).all() if row.scope.startswith("alert-channel/")]

    assert await both.database.read(scopes) == []


async def test_a_channel_is_tried(world: World) -> None:
    await furnish(world)
    request = pb.TestAlertChannelRequest(channel_id=world.ids["channel"])
    refused = await world.call(TEST, request, "admin-a")
    assert not refused.delivered
    assert "not a public address" in refused.detail
    row = (await world.call("AlertService/ListAlertChannels", pb.ListAlertChannelsRequest())).channels[0]
    assert (row.last_failure, row.HasField("last_success_time")) == (refused.detail, False)
    async with listening(Receiver()) as receiver:
        await retarget(world, receiver.url)
        world.services.channels.allow_private = True
        try:
            reply = await world.call(TEST, request, "admin-a")
        finally:
            world.services.channels.allow_private = False
    assert reply.delivered, reply
    told = json.loads(receiver.requests[0].body)["alerts"][0]
    assert (told["event"], told["summary"]) == ("test", "A test message of WAP to the channel ops")
    row = (await world.call("AlertService/ListAlertChannels", pb.ListAlertChannelsRequest())).channels[0]
    assert row.HasField("last_success_time")
    assert [event.action for event in await world.events()][:2] == ["TestAlertChannel"] * 2


async def retarget(world: World, url: str) -> None:
    def work(tx: Session) -> None:
        row = alert_channels.get(tx, world.ids["channel"])
        assert row is not None
        row.settings = {"url": url}

    await world.database.write(work)


def test_webhooks_stay_outside_unless_it_is_set() -> None:
    assert Channels().allow_private is False


def mail(**changes: Any) -> pb.EmailChannel:
    return pb.EmailChannel(
        **{"host": "mail.example.com", "from": "wap@example.com", "to": ["dba@example.com"], **changes}
    )


@dataclass(frozen=True)
class Bad:
    """A wish that is not acceptable, and the field that is named."""

    id: str
    rpc: str
    build: Callable[[World], Message]
    field: str


def bad_rule(id: str, field: str, **changes: Any) -> Bad:
    return Bad(
        id,
        CREATE_RULE,
        lambda w: pb.CreateAlertRuleRequest(rule=a_rule(**{"project_id": w.ids["aa"], **changes})),
        field,
    )


def bad_channel(id: str, field: str, **changes: Any) -> Bad:
    return Bad(id, CHANNEL, lambda w: pb.CreateAlertChannelRequest(channel=a_channel(**changes)), field)


def webhook(url: str) -> dict[str, pb.WebhookChannel]:
    return {"webhook": pb.WebhookChannel(url=url)}


BAD = [
    bad_rule("no name", "rule.name", name=""),
    bad_rule("long name", "rule.name", name="x" * 65),
    bad_rule("line feed in a name", "rule.name", name="a\nb"),
    bad_rule("unknown metric", "rule.metric", metric="host.nothing"),
    bad_rule("no metric", "rule.metric", metric=""),
    bad_rule("no comparison", "rule.comparison", comparison=0),
    bad_rule("comparison without a name", "rule.comparison", comparison=9),
    bad_rule("no severity", "rule.severity", severity=0),
    bad_rule("NaN", "rule.threshold", threshold=float("nan")),
    bad_rule("infinite", "rule.threshold", threshold=float("inf")),
    bad_rule("window of a day", "rule.window", window=Duration(seconds=86400)),
    bad_rule("negative window", "rule.window", window=Duration(seconds=-1)),
    bad_rule("window of a million years", "rule.window", window=Duration(seconds=315576000000)),
    bad_rule("many hits", "rule.hits", hits=2**32 - 1),
    bad_rule("hysteresis over 1", "rule.hysteresis", hysteresis=1.5),
    bad_rule("repeat each second", "rule.repeat_interval", repeat_interval=Duration(seconds=1)),
    bad_rule("long advice", "rule.advice", advice="x" * 501),
    Bad(
        "cluster condition at a node",
        CREATE_RULE,
        lambda w: pb.CreateAlertRuleRequest(rule=a_rule(metric="no_primary", node_id=w.ids["orders-rs0-0"])),
        "rule.metric",
    ),
    Bad(
        "two levels",
        CREATE_RULE,
        lambda w: pb.CreateAlertRuleRequest(rule=a_rule(project_id=w.ids["aa"], cluster_id=w.ids["orders"])),
        "rule.project_id",
    ),
    Bad(
        "silence without an end",
        SILENCE,
        lambda w: pb.CreateSilenceRequest(silence=pb.Silence(project_id=w.ids["aa"])),
        "silence.end_time",
    ),
    Bad(
        "silence that ended",
        SILENCE,
        lambda w: pb.CreateSilenceRequest(silence=pb.Silence(end_time=later(w, hours=-1))),
        "silence.end_time",
    ),
    Bad(
        "silence of two years",
        SILENCE,
        lambda w: pb.CreateSilenceRequest(silence=pb.Silence(end_time=later(w, days=730))),
        "silence.end_time",
    ),
    Bad(
        "silence in no calendar",
        SILENCE,
        lambda w: pb.CreateSilenceRequest(silence=pb.Silence(end_time=Timestamp(seconds=2**62))),
        "silence.end_time",
    ),
    Bad(
        "acknowledged for a year",
        ACKNOWLEDGE,
        lambda w: pb.AcknowledgeAlertRequest(alert_id=w.ids["alert"], until_time=later(w, days=365)),
        "until_time",
    ),
    Bad(
        "acknowledged until yesterday",
        ACKNOWLEDGE,
        lambda w: pb.AcknowledgeAlertRequest(alert_id=w.ids["alert"], until_time=later(w, days=-1)),
        "until_time",
    ),
    Bad("no such alert", GET, lambda w: pb.GetAlertRequest(alert_id="al-none"), "alert_id"),
    Bad("no alert named", GET, lambda w: pb.GetAlertRequest(), "alert_id"),
    bad_channel("no kind", "channel.kind", email=None),
    bad_channel("channel without a name", "channel.name", name=""),
    bad_channel("mail to nobody", "channel.email.to", email=mail(to=[])),
    bad_channel("mail to many", "channel.email.to", email=mail(to=["a@example.com"] * 51)),
    bad_channel("no mail address", "channel.email.to[0]", email=mail(to=["dba"])),
    bad_channel("two in one address", "channel.email.to[0]", email=mail(to=["a@example.com,b@example.com"])),
    bad_channel("header in an address", "channel.email.to[0]", email=mail(to=["a@example.com\r\nBcc: b@example.com"])),
    bad_channel("no sender", "channel.email.from", email=mail(**{"from": ""})),
    bad_channel("no mail server", "channel.email.host", email=mail(host="")),
    bad_channel("mail server with a path", "channel.email.host", email=mail(host="a/b")),
    bad_channel("port of a mail server", "channel.email.port", email=mail(port=65536)),
    bad_channel("webhook without https", "channel.webhook.url", **webhook("http://8.8.8.8/")),
    bad_channel("webhook without a URL", "channel.webhook.url", **webhook("")),
    bad_channel("webhook with a password", "channel.webhook.url", **webhook("https://a:b@8.8.8.8/")),
    bad_channel("webhook to loopback", "channel.webhook.url", **webhook("https://127.0.0.1/")),
    bad_channel("webhook to metadata", "channel.webhook.url", **webhook("https://169.254.169.254/latest/")),
    bad_channel("webhook inside", "channel.webhook.url", **webhook("https://10.0.0.1/")),
    bad_channel(
        "short secret", "channel.webhook.secret", webhook=pb.WebhookChannel(url="https://8.8.8.8/", secret="short")
    ),
    bad_channel("slack to loopback", "channel.slack.url", slack=pb.SlackChannel(url="https://[::1]/")),
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
async def test_what_is_not_acceptable_names_its_field_and_changes_nothing(world: World, row: Bad) -> None:
    await furnish(world)
    before = await world.dump()
    error = await world.refusal(row.rpc, row.build(world))
    assert error.field == row.field
    assert error.reason in {"INVALID_ARGUMENT", "NOT_FOUND"}
    assert await world.dump() == before


async def test_control_the_same_wishes_without_what_is_wrong(world: World) -> None:
    await world.call(CREATE_RULE, pb.CreateAlertRuleRequest(rule=a_rule(project_id=world.ids["aa"])))
    for number, wish in enumerate((a_channel(), a_channel(**webhook("https://8.8.8.8/")))):
        wish.name = f"channel {number}"
        await world.call(CHANNEL, pb.CreateAlertChannelRequest(channel=wish))
