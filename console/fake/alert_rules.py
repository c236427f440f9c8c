"""Rules of the fake: those that came with WAP, and what is refused in others."""

from collections.abc import Iterable, Iterator

from wap.control.v1 import alert_pb2 as pb

from collector.catalog import CATALOG
from console.client.monitoring import span
from console.fake.refusals import invalid
from console.fake.world import World, now

ABOVE, BELOW = pb.ALERT_COMPARISON_ABOVE, pb.ALERT_COMPARISON_BELOW
WARNING, CRITICAL = pb.ALERT_SEVERITY_WARNING, pb.ALERT_SEVERITY_CRITICAL
CONDITIONS = ("agent_silent", "no_primary", "certificate_expiry")

BUILT_IN = (
    (
        "Agent silent",
        "agent_silent",
        ABOVE,
        90,
        0,
        1,
        CRITICAL,
        "Look at the machine's console output and its network.",
    ),
    ("No primary", "no_primary", ABOVE, 0, 30, 3, CRITICAL, "Look at the members: a majority must be up to elect one."),
    (
        "Replication lag",
        "replica_set.lag_seconds",
        ABOVE,
        60,
        300,
        10,
        WARNING,
        "Look at disk latency of the secondary.",
    ),
    (
        "Oplog window",
        "replica_set.oplog_window_seconds",
        BELOW,
        86400,
        300,
        3,
        WARNING,
        "Enlarge the oplog, or find what writes so much.",
    ),
    (
        "Disk nearly full",
        "host.disk.used_percent",
        ABOVE,
        75,
        300,
        3,
        WARNING,
        "Grow the disk, or delete what is not needed.",
    ),
    (
        "Disk full soon",
        "host.disk.used_percent",
        ABOVE,
        90,
        300,
        3,
        CRITICAL,
        "Grow the disk now: at 100 % mongod stops.",
    ),
    (
        "CPU",
        "host.cpu.used_percent",
        ABOVE,
        80,
        600,
        40,
        WARNING,
        "Look at the slow queries; else choose a larger instance type.",
    ),
    (
        "Connections near the limit",
        "mongod.connections.used_percent",
        ABOVE,
        80,
        300,
        5,
        WARNING,
        "Look for clients without a pool.",
    ),
)
"""Name, metric, comparison, threshold, window in seconds, hits, severity, advice."""


def built_in_rules(world: World) -> Iterator[pb.AlertRule]:
    """One rule per row above, with fresh ids."""
    for name, metric, comparison, threshold, window, hits, severity, advice in BUILT_IN:
        yield pb.AlertRule(
            id=world.new_id("ar"),
            name=name,
            metric=metric,
            comparison=comparison,
            threshold=threshold,
            window=span(window),
            hits=hits,
            severity=severity,
            hysteresis=0.05,
            repeat_interval=span(14_400),
            advice=advice,
            built_in=True,
            create_time=now(),
        )


def covers(silence: pb.Silence, alert: pb.Alert) -> bool:
    """True when the silence holds for this alert."""
    pairs: Iterable[tuple[str, str]] = (
        (silence.project_id, alert.project_id),
        (silence.cluster_id, alert.cluster_id),
        (silence.node_id, alert.node_id),
        (silence.rule_name, alert.rule_name),
    )
    return all(wanted in ("", given) for wanted, given in pairs)


def level_of(rule: pb.AlertRule) -> tuple[str, str]:
    """Kind and id of what the rule is for; empty for the whole installation."""
    for name, key in (("node", rule.node_id), ("cluster", rule.cluster_id), ("project", rule.project_id)):
        if key:
            return name, key
    return "", ""


def check_rule(rule: pb.AlertRule) -> None:
    """Refused where a field is not allowed."""
    if not rule.name.strip():
        raise invalid("rule.name", rule.name, "1 to 64 characters")
    if rule.metric not in CATALOG and rule.metric not in CONDITIONS:
        raise invalid("rule.metric", rule.metric, "a metric of the catalogue, or " + ", ".join(CONDITIONS))
    if rule.hits < 1:
        raise invalid("rule.hits", rule.hits, "1 or more")
    if not 0 <= rule.hysteresis <= 1:
        raise invalid("rule.hysteresis", rule.hysteresis, "0 to 1")


def check_kind(channel: pb.AlertChannel) -> None:
    """Refused where what the kind needs is missing."""
    match channel.WhichOneof("kind"):
        case "email":
            if not (channel.email.host and channel.email.to):
                raise invalid("channel.email", channel.email.host, "host and at least one address in to")
        case "webhook":
            if not channel.webhook.url.startswith("https://"):
                raise invalid("channel.webhook.url", channel.webhook.url, "an https address that is not private")
        case "slack":
            if not channel.slack.url.startswith("https://"):
                raise invalid("channel.slack.url", "****", "an https address")
        case _:
            raise invalid("channel.kind", "", "email, webhook or slack")
