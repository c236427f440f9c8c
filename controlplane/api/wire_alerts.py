"""Alert rules, alerts, silences and channels <-> proto."""

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1 import alert_pb2 as pb

from collector.catalog import CATALOG
from controlplane.alerting import webhooks, wording
from controlplane.alerting.addresses import check_url
from controlplane.alerting.channels import ChannelKind
from controlplane.api.periods import length
from controlplane.api.requests import check_printable
from controlplane.api.wire import enum_from_wire, enum_to_wire, time_to_wire
from controlplane.domain.alert import (
    MAX_REPEAT,
    MAX_WINDOW,
    MIN_REPEAT,
    Comparison,
    Place,
    Rule,
    Severity,
    Silence,
    check_rule,
    check_silence,
    is_silenced,
)
from controlplane.domain.failure import invalid
from controlplane.store.alert_channels import NewChannel
from controlplane.store.alert_tables import Alert, AlertChannel, AlertEvent, AlertSilence
from controlplane.telemetry.checks import moment

MAX_COMMENT = 500
MAX_NAME = 64
MAX_RECIPIENTS = 50
MAX_SECRET = 128
MIN_WEBHOOK_SECRET = 16
# What a mail address must be for every mail server: one "@", and nothing that could begin a second address or a header.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,250}[A-Za-z0-9])?")


def rule_from_wire(rule: pb.AlertRule, place: Place) -> Rule:
    """The rule at its place, checked; the id, built_in and create_time of the wire are not looked at."""
    repeat = None
    if rule.HasField("repeat_interval") and (rule.repeat_interval.seconds or rule.repeat_interval.nanos):
        repeat = length("rule.repeat_interval", rule.repeat_interval, MIN_REPEAT, MAX_REPEAT)
    found = Rule(
        id="",
        name=rule.name,
        place=place,
        metric=rule.metric,
        comparison=enum_from_wire(
            pb.AlertComparison, "ALERT_COMPARISON", rule.comparison, Comparison, "rule.comparison"
        ),
        threshold=rule.threshold,
        window=length("rule.window", rule.window, timedelta(), MAX_WINDOW),
        hits=rule.hits or 1,
        severity=enum_from_wire(pb.AlertSeverity, "ALERT_SEVERITY", rule.severity, Severity, "rule.severity"),
        hysteresis=rule.hysteresis,
        repeat=repeat,
        disabled=rule.disabled,
        advice=rule.advice,
    )
    return check_rule(found, CATALOG)


def rule_to_wire(rule: Rule) -> pb.AlertRule:
    """The rule; of its place only the narrowest id, which names its level."""
    level = rule.place.level
    return pb.AlertRule(
        id=rule.id,
        name=rule.name,
        project_id=rule.place.project_id if level == 1 else "",
        cluster_id=rule.place.cluster_id if level == 2 else "",
        node_id=rule.place.node_id,
        metric=rule.metric,
        comparison=enum_to_wire(pb.AlertComparison, "ALERT_COMPARISON", rule.comparison),
        threshold=rule.threshold,
        window=_duration(rule.window),
        hits=rule.hits,
        severity=enum_to_wire(pb.AlertSeverity, "ALERT_SEVERITY", rule.severity),
        hysteresis=rule.hysteresis,
        repeat_interval=_duration(rule.repeat) if rule.repeat is not None else None,
        disabled=rule.disabled,
        advice=rule.advice,
        built_in=rule.built_in,
        create_time=time_to_wire(rule.created_at),
    )


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """The rule as an audit event holds it."""
    return {
        "name": rule.name,
        "metric": rule.metric,
        "comparison": str(rule.comparison),
        "threshold": rule.threshold,
        "window_seconds": rule.window.total_seconds(),
        "hits": rule.hits,
        "severity": str(rule.severity),
        "disabled": rule.disabled,
        "cluster_id": rule.place.cluster_id,
        "node_id": rule.place.node_id,
    }


def alert_to_wire(alert: Alert, silences: Collection[Silence], now: datetime) -> pb.Alert:
    """The alert with the sentence that says it all."""
    place = Place(alert.project_id, alert.cluster_id, alert.node_id)
    return pb.Alert(
        id=alert.id,
        rule_id=alert.rule_id,
        rule_name=alert.rule_name,
        project_id=alert.project_id,
        cluster_id=alert.cluster_id,
        cluster_name=alert.cluster_name,
        node_id=alert.node_id,
        node_name=alert.node_name,
        severity=enum_to_wire(pb.AlertSeverity, "ALERT_SEVERITY", alert.severity),
        state=enum_to_wire(pb.AlertState, "ALERT_STATE", alert.state),
        start_time=time_to_wire(alert.started_at),
        resolve_time=time_to_wire(alert.resolved_at),
        acknowledged_until_time=time_to_wire(alert.acknowledged_until),
        acknowledged_by=alert.acknowledged_by,
        value=alert.value,
        threshold=alert.threshold,
        unit=wording.unit_of(alert.metric),
        summary=wording.summary(alert),
        advice=alert.advice,
        silenced=alert.open_key is not None and is_silenced(silences, place, alert.rule_name, now),
        metric=alert.metric,
    )


def alert_event_to_wire(event: AlertEvent) -> pb.AlertEvent:
    """One entry of a history."""
    return pb.AlertEvent(time=time_to_wire(event.time), what=event.what, detail=event.detail, actor=event.actor)


def silence_from_wire(silence: pb.Silence, place: Place, now: datetime) -> Silence:
    """The silence at its place, checked; without a start it begins now."""
    check_printable("silence.comment", silence.comment, MAX_COMMENT, least=0)
    check_printable("silence.rule_name", silence.rule_name, MAX_NAME, least=0)
    starts = time_from_wire("silence.start_time", silence.start_time) if silence.HasField("start_time") else now
    ends = time_from_wire("silence.end_time", silence.end_time)
    return check_silence(Silence(place, silence.rule_name, starts, ends), now)


def silence_to_wire(row: AlertSilence) -> pb.Silence:
    """The silence; of its place only the narrowest id."""
    return pb.Silence(
        id=row.id,
        project_id="" if row.cluster_id else row.project_id,
        cluster_id="" if row.node_id else row.cluster_id,
        node_id=row.node_id,
        rule_name=row.rule_name,
        start_time=time_to_wire(row.starts_at),
        end_time=time_to_wire(row.ends_at),
        comment=row.comment,
        created_by=row.created_by,
    )


def channel_from_wire(channel: pb.AlertChannel, *, allow_private: bool) -> NewChannel:
    """The channel, checked, its secret apart from its settings."""
    name = check_printable("channel.name", channel.name, MAX_NAME)
    severity = Severity.INFO
    if channel.minimum_severity:
        path = "channel.minimum_severity"
        severity = enum_from_wire(pb.AlertSeverity, "ALERT_SEVERITY", channel.minimum_severity, Severity, path)
    kind = channel.WhichOneof("kind")
    if kind == "email":
        settings, secret = _email_settings(channel.email), channel.email.password
        return NewChannel(name, channel.project_id, severity, ChannelKind.EMAIL, settings, secret)
    if kind == "webhook":
        url = check_url("channel.webhook.url", channel.webhook.url, allow_private=allow_private)
        secret = channel.webhook.secret or webhooks.new_secret()
        if not MIN_WEBHOOK_SECRET <= len(secret) <= MAX_SECRET or not secret.isascii() or not secret.isprintable():
            allowed = f"{MIN_WEBHOOK_SECRET} to {MAX_SECRET} printable ASCII characters, or none"
            raise invalid("channel.webhook.secret", f"{len(secret)} characters", allowed)
        return NewChannel(name, channel.project_id, severity, ChannelKind.WEBHOOK, {"url": url}, secret)
    if kind == "slack":
        url = check_url("channel.slack.url", channel.slack.url, allow_private=allow_private)
        return NewChannel(name, channel.project_id, severity, ChannelKind.SLACK, {}, url)
    raise invalid("channel.kind", "", "email, webhook or slack")


def _email_settings(email: pb.EmailChannel) -> dict[str, Any]:
    if not _HOST.fullmatch(email.host):
        raise invalid("channel.email.host", email.host, "the name or address of a mail server")
    port = email.port or (25 if email.plaintext else 587)
    if port > 65535:
        raise invalid("channel.email.port", port, "1 to 65535, or 0 for the usual one")
    _check_address("channel.email.from", getattr(email, "from"))
    if not 1 <= len(email.to) <= MAX_RECIPIENTS:
        raise invalid("channel.email.to", f"{len(email.to)} addresses", f"1 to {MAX_RECIPIENTS} addresses")
    for index, address in enumerate(email.to):
        _check_address(f"channel.email.to[{index}]", address)
    check_printable("channel.email.username", email.username, MAX_SECRET, least=0)
    if len(email.password) > MAX_SECRET:
        raise invalid("channel.email.password", f"{len(email.password)} characters", f"at most {MAX_SECRET}")
    return {
        "host": email.host,
        "port": port,
        "username": email.username,
        "from": getattr(email, "from"),
        "to": list(email.to),
        "plaintext": email.plaintext,
    }


def _check_address(field: str, text: str) -> None:
    if not _ADDRESS.fullmatch(text):
        raise invalid(field, text, "a mail address such as dba@example.com")


def channel_to_wire(row: AlertChannel, waiting: int, *, secret: str = "") -> pb.AlertChannel:
    """The channel without its secret, unless it is to be shown this once."""
    made = pb.AlertChannel(
        id=row.id,
        name=row.name,
        project_id=row.project_id,
        minimum_severity=enum_to_wire(pb.AlertSeverity, "ALERT_SEVERITY", row.minimum_severity),
        last_success_time=time_to_wire(row.last_success_at),
        last_failure_time=time_to_wire(row.last_failure_at),
        last_failure=row.last_failure,
        waiting=waiting,
    )
    match ChannelKind(row.kind):
        case ChannelKind.EMAIL:
            made.email.CopyFrom(pb.EmailChannel(**row.settings))
        case ChannelKind.WEBHOOK:
            made.webhook.CopyFrom(pb.WebhookChannel(url=row.settings["url"], secret=secret))
        case ChannelKind.SLACK:
            made.slack.CopyFrom(pb.SlackChannel())
    return made


def time_from_wire(field: str, stamp: Timestamp) -> datetime:
    """The moment, or a refusal of one that no calendar has."""
    found = moment(stamp)
    if found is None:
        raise invalid(field, f"{stamp.seconds} seconds, {stamp.nanos} ns", "a time from 1970 to 9999")
    return found


def _duration(length: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(length)
    return made
