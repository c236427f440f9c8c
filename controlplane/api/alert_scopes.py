"""Which project a call about alerts concerns, and how a foreign thing is named when it is refused."""

from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import alert_pb2 as pb

from controlplane.domain.alert import Place
from controlplane.domain.failure import invalid, not_found
from controlplane.store import alert_channels, alerts, clusters, nodes, projects
from controlplane.store.alert_tables import AlertSilence


def find_place(tx: Session, request: Any) -> Place:
    """The narrowest of node, cluster and project that is named, with what it lies in; nothing named: the installation."""
    if request.node_id:
        node = nodes.get(tx, request.node_id)
        if node is None:
            raise not_found("node", request.node_id)
        cluster = clusters.get(tx, node.cluster_id)
        return Place(cluster.project_id if cluster else "", node.cluster_id, node.id)
    if request.cluster_id:
        found = clusters.get(tx, request.cluster_id)
        if found is None:
            raise not_found("cluster", request.cluster_id)
        return Place(found.project_id, found.id)
    if request.project_id and projects.get(tx, request.project_id) is None:
        raise not_found("project", request.project_id)
    return Place(request.project_id)


def check_one_level(field: str, request: Any) -> None:
    """Refuse more than one of project, cluster and node."""
    given = [name for name in ("project_id", "cluster_id", "node_id") if getattr(request, name)]
    if len(given) > 1:
        raise invalid(f"{field}.{given[0]}", ", ".join(given), "at most one of project_id, cluster_id and node_id")


def place(tx: Session, request: Any) -> str:
    """By the place that is asked for."""
    if isinstance(request, pb.WatchAlertsRequest):
        request = pb.ListAlertsRequest(project_id=request.project_id, cluster_id=request.cluster_id)
    return find_place(tx, request).project_id


def new_rule(tx: Session, request: Any) -> str:
    """By the level of the new rule."""
    check_one_level("rule", request.rule)
    return find_place(tx, request.rule).project_id


def rule(tx: Session, request: Any) -> str:
    """By the rule. Those that come with WAP are nobody's to change."""
    rule_id = request.rule.id if isinstance(request, pb.UpdateAlertRuleRequest) else request.rule_id
    if rule_id.startswith("built-in/"):
        allowed = "a rule that did not come with WAP; this one is overridden by a rule of the same name"
        raise invalid("rule_id", rule_id, allowed)
    row = alerts.get_rule(tx, rule_id)
    if row is None:
        raise not_found("rule", rule_id)
    return row.project_id


def alert(tx: Session, request: Any) -> str:
    """By the alert."""
    row = alerts.get(tx, request.alert_id)
    if row is None:
        raise not_found("alert", request.alert_id)
    return row.project_id


def new_silence(tx: Session, request: Any) -> str:
    """By the scope of the new silence."""
    check_one_level("silence", request.silence)
    return find_place(tx, request.silence).project_id


def silence(tx: Session, request: Any) -> str:
    """By the silence."""
    row = tx.get(AlertSilence, request.silence_id)
    if row is None:
        raise not_found("silence", request.silence_id)
    return row.project_id


def new_channel(tx: Session, request: Any) -> str:
    """By the project of the new channel."""
    if request.channel.project_id and projects.get(tx, request.channel.project_id) is None:
        raise not_found("project", request.channel.project_id)
    return str(request.channel.project_id)


def channel(tx: Session, request: Any) -> str:
    """By the channel."""
    row = alert_channels.get(tx, request.channel_id)
    if row is None:
        raise not_found("channel", request.channel_id)
    return row.project_id


def named(request: Any) -> tuple[str, str] | None:
    """What a request of AlertService names, as kind and id: what a refusal must name too. None for other requests."""
    if isinstance(request, pb.UpdateAlertRuleRequest):
        return "rule", request.rule.id
    for kind in ("alert", "rule", "silence", "channel"):
        if given := getattr(request, f"{kind}_id", ""):
            return kind, given
    for part in ("rule", "silence", "channel"):
        about = getattr(request, part, None)
        for kind in ("node", "cluster", "project"):
            if about is not None and (given := getattr(about, f"{kind}_id", "")):
                return kind, given
    return None
