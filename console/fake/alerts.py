"""AlertService of the fake: rules with inheritance, alerts raised by hand, silences, and channels that reach nobody."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from wap.control.v1 import alert_pb2 as pb
from wap.control.v1.alert_pb2_grpc import AlertServiceServicer
from wap.control.v1.node_pb2 import Node
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN, ACCESS_ROLE_OPERATOR
from wap.type.v1.failure_pb2 import FAILURE_CODE_ALREADY_EXISTS, FAILURE_CODE_INVALID_ARGUMENT

from collector.catalog import CATALOG
from console.client.monitoring import stamp
from console.fake.alert_rules import built_in_rules, check_kind, check_rule, covers, level_of
from console.fake.gate import actor
from console.fake.refusals import Refused, invalid, not_found
from console.fake.world import World, now

MOST_ACKNOWLEDGED = 30 * 86_400


class AlertService(AlertServiceServicer):
    """Rows in the world; nothing here is evaluated."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.alert_rules |= {rule.id: rule for rule in built_in_rules(world)}

    # Rules

    async def ListAlertRules(self, request: pb.ListAlertRulesRequest, context: Any) -> pb.ListAlertRulesResponse:
        """Those of the level asked for win over those above."""
        levels = self._levels(request.project_id, request.cluster_id, request.node_id)
        found: dict[str, pb.AlertRule] = {}
        for level in levels:
            found |= {one.name: one for one in self._world.alert_rules.values() if level_of(one) == level}
        rules = [
            pb.EffectiveRule(rule=rule, inherited=level_of(rule) != levels[-1]) for _, rule in sorted(found.items())
        ]
        return pb.ListAlertRulesResponse(rules=rules)

    async def CreateAlertRule(self, request: pb.CreateAlertRuleRequest, context: Any) -> pb.CreateAlertRuleResponse:
        """One of a name per level."""
        rule = pb.AlertRule()
        rule.CopyFrom(request.rule)
        actor().require(self._project_of(rule), ACCESS_ROLE_OPERATOR)
        check_rule(rule)
        if any(one.name == rule.name and level_of(one) == level_of(rule) for one in self._world.alert_rules.values()):
            raise Refused(
                FAILURE_CODE_ALREADY_EXISTS,
                "This level has a rule of this name.",
                field="rule.name",
                given=rule.name,
                allowed="another name, or a change of that rule",
            )
        rule.id, rule.built_in = self._world.new_id("ar"), False
        rule.create_time.CopyFrom(now())
        self._world.alert_rules[rule.id] = rule
        self._record("CreateAlertRule", rule.id, self._project_of(rule))
        return pb.CreateAlertRuleResponse(rule=rule)

    async def UpdateAlertRule(self, request: pb.UpdateAlertRuleRequest, context: Any) -> pb.UpdateAlertRuleResponse:
        """Not those that came with WAP."""
        rule = self._own_rule(request.rule.id)
        check_rule(request.rule)
        if level_of(request.rule) != level_of(rule):
            raise invalid("rule.cluster_id", request.rule.cluster_id, "the level that the rule has")
        created = rule.create_time
        changed = pb.AlertRule()
        changed.CopyFrom(request.rule)
        changed.built_in = False
        changed.create_time.CopyFrom(created)
        self._world.alert_rules[rule.id] = changed
        self._record("UpdateAlertRule", rule.id, self._project_of(rule))
        return pb.UpdateAlertRuleResponse(rule=changed)

    async def DeleteAlertRule(self, request: pb.DeleteAlertRuleRequest, context: Any) -> pb.DeleteAlertRuleResponse:
        """Not those that came with WAP."""
        rule = self._own_rule(request.rule_id)
        del self._world.alert_rules[rule.id]
        self._record("DeleteAlertRule", rule.id, self._project_of(rule))
        return pb.DeleteAlertRuleResponse()

    # Alerts

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: Any) -> pb.ListAlertsResponse:
        """Open ones first, then newest first."""
        found = self._visible(request.project_id, request.cluster_id, request.node_id, request.include_resolved)
        page, following = self._world.page(found, request.page_size or 100, request.page_token)
        return pb.ListAlertsResponse(alerts=page, next_page_token=following)

    async def GetAlert(self, request: pb.GetAlertRequest, context: Any) -> pb.GetAlertResponse:
        """With its history."""
        alert = self._alert(request.alert_id)
        return pb.GetAlertResponse(alert=alert, history=self._world.alert_history[alert.id])

    async def WatchAlerts(self, request: pb.WatchAlertsRequest, context: Any) -> AsyncIterator[pb.WatchAlertsResponse]:
        """The open ones, then each one that changes."""
        told: dict[str, bytes] = {}
        first = True
        while True:
            for alert in self._visible(request.project_id, request.cluster_id, "", with_resolved=not first):
                text = alert.SerializeToString(deterministic=True)
                if told.get(alert.id) != text:
                    told[alert.id] = text
                    yield pb.WatchAlertsResponse(alert=alert)
            first = False
            await self._world.change()

    async def AcknowledgeAlert(self, request: pb.AcknowledgeAlertRequest, context: Any) -> pb.AcknowledgeAlertResponse:
        """Only open ones, for 30 days at most."""
        alert = self._alert(request.alert_id)
        actor().require(alert.project_id, ACCESS_ROLE_OPERATOR)
        if not 0 < request.until_time.seconds - time.time() <= MOST_ACKNOWLEDGED + 60:
            raise invalid("until_time", request.until_time.ToJsonString(), "within the next 30 days")
        if alert.state == pb.ALERT_STATE_RESOLVED:
            raise Refused(FAILURE_CODE_INVALID_ARGUMENT, "The alert is resolved.", field="alert_id", given=alert.id)
        alert.state = pb.ALERT_STATE_ACKNOWLEDGED
        alert.acknowledged_until_time.CopyFrom(request.until_time)
        alert.acknowledged_by = actor().name
        self.note(alert, "acknowledged", request.comment, actor().name)
        self._record("AcknowledgeAlert", alert.id, alert.project_id)
        return pb.AcknowledgeAlertResponse(alert=alert)

    def fire(self, node: Node, rule_name: str, value: float, *, ago: float = 0.0) -> pb.Alert:
        """Raise an alert of a built-in rule on a node, `ago` seconds ago; for tests and demonstrations."""
        rule = next(one for one in self._world.alert_rules.values() if one.name == rule_name)
        unit = CATALOG[rule.metric].unit if rule.metric in CATALOG else ""
        shown = f"{value:g} %" if unit == "percent" else f"{value:g} {unit}".strip()
        alert = pb.Alert(
            id=self._world.new_id("al"),
            rule_id=rule.id,
            rule_name=rule.name,
            project_id=node.project_id,
            cluster_id=node.cluster_id,
            cluster_name=node.cluster_name,
            node_id=node.id,
            node_name=node.name,
            severity=rule.severity,
            state=pb.ALERT_STATE_FIRING,
            start_time=stamp(time.time() - ago),
            value=value,
            threshold=rule.threshold,
            unit=unit,
            summary=f"{rule.name} on {node.name}: {shown}, threshold {rule.threshold:g}",
            advice=rule.advice,
            metric=rule.metric,
        )
        self._world.alerts[alert.id] = alert
        event = pb.AlertEvent(time=alert.start_time, what="fired", detail=alert.summary)
        self._world.alert_history[alert.id] = [event]
        self._world.touch()
        return alert

    def resolve(self, alert: pb.Alert) -> None:
        """End an alert."""
        alert.state = pb.ALERT_STATE_RESOLVED
        alert.resolve_time.CopyFrom(now())
        self.note(alert, "resolved", "", "")

    def note(self, alert: pb.Alert, what: str, detail: str, who: str) -> None:
        """One entry of its history."""
        event = pb.AlertEvent(time=now(), what=what, detail=detail, actor=who)
        self._world.alert_history[alert.id].append(event)
        self._world.touch()

    # Silences

    async def CreateSilence(self, request: pb.CreateSilenceRequest, context: Any) -> pb.CreateSilenceResponse:
        """From now on unless it says otherwise."""
        silence = pb.Silence()
        silence.CopyFrom(request.silence)
        actor().require(self._project_of(silence), ACCESS_ROLE_OPERATOR)
        if not silence.HasField("start_time"):
            silence.start_time.CopyFrom(now())
        if silence.end_time.seconds <= silence.start_time.seconds:
            raise invalid("silence.end_time", silence.end_time.ToJsonString(), "a moment after start_time")
        silence.id, silence.created_by = self._world.new_id("si"), actor().name
        self._world.silences[silence.id] = silence
        self._mark_silenced()
        self._record("CreateSilence", silence.id, self._project_of(silence))
        return pb.CreateSilenceResponse(silence=silence)

    async def ListSilences(self, request: pb.ListSilencesRequest, context: Any) -> pb.ListSilencesResponse:
        """By end."""
        found = [
            one
            for one in self._world.silences.values()
            if one.end_time.seconds > time.time() and request.project_id in ("", self._project_of(one))
        ]
        return pb.ListSilencesResponse(silences=sorted(found, key=lambda one: one.end_time.seconds))

    async def EndSilence(self, request: pb.EndSilenceRequest, context: Any) -> pb.EndSilenceResponse:
        """At once."""
        silence = self._world.silences.get(request.silence_id)
        if silence is None:
            raise not_found("silence", request.silence_id)
        actor().require(self._project_of(silence), ACCESS_ROLE_OPERATOR)
        del self._world.silences[silence.id]
        self._mark_silenced()
        self._record("EndSilence", silence.id, self._project_of(silence))
        return pb.EndSilenceResponse()

    # Channels

    async def CreateAlertChannel(
        self, request: pb.CreateAlertChannelRequest, context: Any
    ) -> pb.CreateAlertChannelResponse:
        """Secrets are shown once or never."""
        channel = pb.AlertChannel()
        channel.CopyFrom(request.channel)
        actor().require(channel.project_id, ACCESS_ROLE_ADMIN)
        if not channel.name:
            raise invalid("channel.name", "", "1 to 64 characters")
        check_kind(channel)
        channel.id = self._world.new_id("ac")
        shown = pb.AlertChannel()
        shown.CopyFrom(channel)
        if channel.WhichOneof("kind") == "webhook" and not channel.webhook.secret:
            shown.webhook.secret = secrets.token_urlsafe(24)
        if channel.WhichOneof("kind") == "webhook":
            channel.webhook.secret = ""
        elif channel.WhichOneof("kind") == "email":
            channel.email.password = shown.email.password = ""
        else:
            channel.slack.url = shown.slack.url = ""
        self._world.alert_channels[channel.id] = channel
        self._record("CreateAlertChannel", channel.id, channel.project_id)
        return pb.CreateAlertChannelResponse(channel=shown)

    async def ListAlertChannels(
        self, request: pb.ListAlertChannelsRequest, context: Any
    ) -> pb.ListAlertChannelsResponse:
        """By name."""
        found = [one for one in self._world.alert_channels.values() if request.project_id in ("", one.project_id)]
        return pb.ListAlertChannelsResponse(channels=sorted(found, key=lambda one: one.name))

    async def DeleteAlertChannel(
        self, request: pb.DeleteAlertChannelRequest, context: Any
    ) -> pb.DeleteAlertChannelResponse:
        """At once."""
        channel = self._channel(request.channel_id)
        del self._world.alert_channels[channel.id]
        self._record("DeleteAlertChannel", channel.id, channel.project_id)
        return pb.DeleteAlertChannelResponse()

    async def TestAlertChannel(self, request: pb.TestAlertChannelRequest, context: Any) -> pb.TestAlertChannelResponse:
        """Delivered unless the channel's name has "broken" in it."""
        channel = self._channel(request.channel_id)
        if "broken" in channel.name:
            channel.last_failure, channel.waiting = "connection refused", 2
            channel.last_failure_time.CopyFrom(now())
            return pb.TestAlertChannelResponse(delivered=False, detail="connection refused")
        channel.last_success_time.CopyFrom(now())
        return pb.TestAlertChannelResponse(delivered=True, detail="The fake has delivered it to nobody.")

    # What they share

    def _levels(self, project_id: str, cluster_id: str, node_id: str) -> list[tuple[str, str]]:
        """From the installation down to the level asked for."""
        levels = [("", "")]
        if node_id:
            node = self._world.node_by(actor(), node_id)
            return [*levels, ("project", node.project_id), ("cluster", node.cluster_id), ("node", node.id)]
        if cluster_id:
            cluster = self._world.cluster_by(actor(), cluster_id)
            return [*levels, ("project", cluster.project_id), ("cluster", cluster.id)]
        if project_id:
            levels.append(("project", self._world.project_by(actor(), project_id=project_id).id))
        return levels

    def _project_of(self, scoped: pb.AlertRule | pb.Silence) -> str:
        if scoped.node_id:
            return self._world.node_by(actor(), scoped.node_id).project_id
        if scoped.cluster_id:
            return self._world.cluster_by(actor(), scoped.cluster_id).project_id
        return scoped.project_id

    def _own_rule(self, rule_id: str) -> pb.AlertRule:
        rule = self._world.alert_rules.get(rule_id)
        if rule is None:
            raise not_found("rule", rule_id)
        actor().require(self._project_of(rule), ACCESS_ROLE_OPERATOR)
        if rule.built_in:
            raise invalid("rule.id", rule_id, "a rule that did not come with WAP; override it at a lower level")
        return rule

    def _alert(self, alert_id: str) -> pb.Alert:
        alert = self._world.alerts.get(alert_id)
        if alert is None or not actor().sees(alert.project_id):
            raise not_found("alert", alert_id)
        return alert

    def _channel(self, channel_id: str) -> pb.AlertChannel:
        channel = self._world.alert_channels.get(channel_id)
        if channel is None:
            raise not_found("channel", channel_id)
        actor().require(channel.project_id, ACCESS_ROLE_ADMIN)
        return channel

    def _visible(self, project_id: str, cluster_id: str, node_id: str, with_resolved: bool) -> list[pb.Alert]:
        found = [
            one
            for one in self._world.alerts.values()
            if actor().sees(one.project_id)
            and project_id in ("", one.project_id)
            and cluster_id in ("", one.cluster_id)
            and node_id in ("", one.node_id)
            and (with_resolved or one.state != pb.ALERT_STATE_RESOLVED)
        ]
        return sorted(found, key=lambda one: (one.state == pb.ALERT_STATE_RESOLVED, -one.start_time.seconds))

    def _mark_silenced(self) -> None:
        for alert in self._world.alerts.values():
            alert.silenced = any(covers(one, alert) for one in self._world.silences.values())
        self._world.touch()

    def _record(self, action: str, key: str, project_id: str) -> None:
        self._world.record(actor(), action, f"alert/{key}", project_id=project_id)
