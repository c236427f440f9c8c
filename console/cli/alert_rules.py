"""`wap alerts rule`: when to alert, at every level."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text
from wap.control.v1 import alert_pb2 as pb

from console.cli.command import Commands, ProjectOption, YesOption
from console.cli.completion import cluster_names
from console.cli.confirm import confirm
from console.cli.failures import NOT_FOUND, CommandError
from console.cli.measures import seconds_of
from console.cli.nodes import find_node
from console.cli.session import Session, table
from console.cli.text import duration, safe, word
from console.client import Client
from console.client.monitoring import span

app = Commands("Alert rules: when to alert. A rule overrides the one of the same name above it.")

ClusterOption = Annotated[
    str | None, typer.Option("--cluster", "-c", help="Of this cluster.", autocompletion=cluster_names)
]
NodeOption = Annotated[str | None, typer.Option("--node", "-N", help="Of this node, by name or id.")]
Everywhere = Annotated[bool, typer.Option("--everywhere", help="Of the whole installation.")]
RuleArgument = Annotated[str, typer.Argument(metavar="RULE", help="Name of the rule.")]


class Severity(StrEnum):
    """How much an alert matters."""

    info = "info"
    warning = "warning"
    critical = "critical"


@app.command("list")
def list_rules(
    session: Session,
    project: ProjectOption = None,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    everywhere: Everywhere = False,
) -> None:
    """List the rules that hold at a level, inherited ones included."""
    with session.client() as client:
        request = pb.ListAlertRulesRequest(**level(session, client, project, cluster, node, everywhere))
        reply = client.alerts.ListAlertRules(request)
    rows = [
        (
            one.rule.name,
            word(pb.AlertSeverity.DESCRIPTOR, one.rule.severity),
            _condition(one.rule),
            "off" if one.rule.disabled else "on",
            "WAP" if one.rule.built_in else "inherited" if one.inherited else "this level",
            duration(one.rule.repeat_interval.seconds) if one.rule.repeat_interval.seconds else "never",
        )
        for one in reply.rules
    ]
    columns = ("NAME", "SEVERITY", "WHEN", "STATE", "FROM", "REPEAT")
    session.answer(reply, lambda: table(columns, rows, empty="No rules."))


@app.command("set")
def set_rule(
    session: Session,
    name: RuleArgument,
    metric: Annotated[str, typer.Option(help="Metric or condition; default: that of the rule above.")] = "",
    above: Annotated[float | None, typer.Option(help="Alert when the value is above this.")] = None,
    below: Annotated[float | None, typer.Option(help="Alert when the value is below this.")] = None,
    window: Annotated[str, typer.Option(metavar="SPAN", help="Over how long samples are looked at.")] = "",
    hits: Annotated[int | None, typer.Option(min=1, help="How many samples must be beyond.")] = None,
    severity: Annotated[Severity | None, typer.Option(help="How much it matters.")] = None,
    repeat: Annotated[str, typer.Option(metavar="SPAN", help="Send again after this long; 0s: never.")] = "",
    advice: Annotated[str, typer.Option(help="What to do, in a sentence or two.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Switch the rule off at this level.")] = False,
    project: ProjectOption = None,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    everywhere: Everywhere = False,
) -> None:
    """Make, change or override a rule at a level. What is not given stays as the rule of that name has it."""
    if above is not None and below is not None:
        raise CommandError("A rule alerts above or below a value, not both.", "Use --above or --below.")
    with session.client() as client:
        place = level(session, client, project, cluster, node, everywhere)
        known = {one.rule.name: one for one in client.alerts.ListAlertRules(pb.ListAlertRulesRequest(**place)).rules}
        rule, own = _start(known, name)
        if metric:
            rule.metric = metric
        if above is not None or below is not None:
            rule.threshold = above if above is not None else (below or 0.0)
            kind = "ABOVE" if above is not None else "BELOW"
            rule.comparison = pb.AlertComparison.Value(f"ALERT_COMPARISON_{kind}")
        if window:
            rule.window.CopyFrom(span(seconds_of(window, "--window")))
        if hits is not None:
            rule.hits = hits
        if severity is not None:
            rule.severity = pb.AlertSeverity.Value(f"ALERT_SEVERITY_{severity.value.upper()}")
        if repeat:
            rule.repeat_interval.CopyFrom(span(0.0 if repeat in ("0", "0s") else seconds_of(repeat, "--repeat")))
        rule.advice = advice or rule.advice
        rule.disabled = off
        if own:
            made = client.alerts.UpdateAlertRule(pb.UpdateAlertRuleRequest(rule=rule)).rule
        else:
            for field in ("project_id", "cluster_id", "node_id"):
                setattr(rule, field, place.get(field, ""))
            made = client.alerts.CreateAlertRule(pb.CreateAlertRuleRequest(rule=rule)).rule
    session.answer(made, lambda: f"Rule {safe(made.name)}: {_condition(made)}{', off' if made.disabled else ''}.")


@app.command("delete")
def delete_rule(
    session: Session,
    name: RuleArgument,
    project: ProjectOption = None,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    everywhere: Everywhere = False,
    yes: YesOption = False,
) -> None:
    """Delete a level's own rule; the one that it overrode holds again."""
    with session.client() as client:
        place = level(session, client, project, cluster, node, everywhere)
        rules = client.alerts.ListAlertRules(pb.ListAlertRulesRequest(**place)).rules
        found = [one.rule for one in rules if one.rule.name == name and not one.inherited and not one.rule.built_in]
        if not found:
            raise CommandError(
                f"This level has no rule {name} of its own.",
                "wap alerts rule list",
                exit_code=NOT_FOUND,
                reason="NOT_FOUND",
            )
        confirm(session, f"Delete the alert rule {name}?", yes=yes)
        reply = client.alerts.DeleteAlertRule(pb.DeleteAlertRuleRequest(rule_id=found[0].id))
    session.answer(reply, lambda: Text(f"Rule {safe(name)} deleted."))


def _start(known: dict[str, pb.EffectiveRule], name: str) -> tuple[pb.AlertRule, bool]:
    """What the rule is now, and whether it is this level's own."""
    rule = pb.AlertRule(name=name, hits=1, hysteresis=0.05, severity=pb.ALERT_SEVERITY_WARNING)
    if name not in known:
        rule.repeat_interval.CopyFrom(span(86_400.0))
        return rule, False
    found = known[name]
    rule.CopyFrom(found.rule)
    return rule, not found.inherited and not found.rule.built_in


def _condition(rule: pb.AlertRule) -> str:
    side = "above" if rule.comparison == pb.ALERT_COMPARISON_ABOVE else "below"
    text = f"{rule.metric} {side} {rule.threshold:g}"
    if rule.window.seconds:
        text += f", {rule.hits} times in {duration(rule.window.seconds)}"
    return text


def level(
    session: Session, client: Client, project: str | None, cluster: str | None, node: str | None, everywhere: bool
) -> dict[str, str]:
    """The one id that names a level; none for the whole installation, which has to be said."""
    if everywhere:
        if project or cluster or node:
            raise CommandError("It is either everywhere or in one place.", "Leave out --everywhere, or the rest.")
        return {}
    if node:
        return {"node_id": find_node(session, client, node, project, cluster).id}
    if cluster:
        return {"cluster_id": session.cluster(client, cluster, project).id}
    return {"project_id": session.project(client, project).id}
