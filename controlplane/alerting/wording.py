"""What alerts say: the sentence with what, where, since when and the value, and the messages that channels send."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from collector.catalog import CATALOG
from controlplane.domain.alert import CONDITIONS, AlertState, Comparison
from controlplane.store.alert_tables import Alert

_TITLES = {"fired": "", "repeated": "Still ", "resolved": "Resolved "}
# What one message lists; the console shows the rest.
MOST_LINES = 20


def unit_of(metric: str) -> str:
    """The unit of a metric or condition as the catalogue names it; "" for a plain number and for what is not known."""
    if metric in CONDITIONS:
        return CONDITIONS[metric].unit
    return CATALOG[metric].unit if metric in CATALOG else ""


def quantity(value: float, unit: str) -> str:
    """A value as people read it: "92.3 %", "1.5 h", "12 s"."""
    if unit == "seconds":
        for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
            if abs(value) >= 2 * size:
                return f"{_number(value / size)} {name}"
        return f"{_number(value)} s"
    return f"{_number(value)} {'%' if unit == 'percent' else unit}".rstrip()


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def where(alert: Alert) -> str:
    """ "node orders-rs0-1", or "cluster orders"."""
    return f"node {alert.node_name}" if alert.node_id else f"cluster {alert.cluster_name}"


def summary(alert: Alert) -> str:
    """One sentence: what, where, the value and its limit, since when."""
    unit = unit_of(alert.metric)
    side = "above" if alert.comparison == Comparison.ABOVE else "below"
    limit, value = quantity(alert.threshold, unit), quantity(alert.value, unit)
    since = f"since {_moment(alert.started_at)}"
    if alert.state == AlertState.RESOLVED and alert.resolved_at is not None:
        since = f"from {_moment(alert.started_at)} to {_moment(alert.resolved_at)}"
        return f"{alert.rule_name} on {where(alert)}: {alert.metric} was {side} {limit}, last {value}, {since}"
    return f"{alert.rule_name} on {where(alert)}: {alert.metric} is {value}, {side} {limit}, {since}"


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def notice(alert: Alert) -> dict[str, Any]:
    """The alert as a channel is told of it: plain JSON, with the ids by which a program finds it again."""
    return {
        "alert_id": alert.id,
        "rule": alert.rule_name,
        "severity": str(alert.severity),
        "state": str(alert.state),
        "project_id": alert.project_id,
        "cluster_id": alert.cluster_id,
        "cluster": alert.cluster_name,
        "node_id": alert.node_id,
        "node": alert.node_name,
        "metric": alert.metric,
        "value": alert.value,
        "threshold": alert.threshold,
        "unit": unit_of(alert.metric),
        "start_time": alert.started_at.isoformat(),
        "resolve_time": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "summary": summary(alert),
        "advice": alert.advice,
    }


def test_notice(channel: str) -> dict[str, Any]:
    """What a channel is sent to try it."""
    return {
        "event": "test",
        "severity": "INFO",
        "rule": "Test",
        "summary": f"A test message of WAP to the channel {channel}",
        "advice": "Nothing is wrong, and nothing has to be done.",
    }


def title(notices: Sequence[Mapping[str, Any]]) -> str:
    """The subject of a message; line breaks, which could add headers to a mail, cannot be in it."""
    if len(notices) == 1:
        one = notices[0]
        place = one.get("node") or one.get("cluster")
        state = _TITLES.get(str(one.get("event")), "")
        text = f"{state}{str(one['severity']).lower()}: {one['rule']}" + (f" on {place}" if place else "")
    else:
        firing = sum(one.get("event") != "resolved" for one in notices)
        text = f"{len(notices)} alerts: {firing} firing, {len(notices) - firing} resolved"
    return "[WAP] " + " ".join(text.split())


def body(notices: Sequence[Mapping[str, Any]]) -> str:
    """The text of a message."""
    parts = []
    for one in notices[:MOST_LINES]:
        resolved = one.get("event") == "resolved"
        parts.append(str(one["summary"]) + ("" if resolved or not one.get("advice") else f"\nTo do: {one['advice']}"))
    if len(notices) > MOST_LINES:
        parts.append(f"... and {len(notices) - MOST_LINES} more")
    return "\n\n".join(parts)
