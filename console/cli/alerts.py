"""`wap alerts`: what is wrong now, what was, and who takes care. Rules, silences and channels are groups below it."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import RenderableType
from rich.text import Text
from wap.control.v1 import alert_pb2 as pb

from console.cli import alert_channels, alert_rules
from console.cli.command import Commands, JsonOption, LimitOption, Output, ProjectOption, answering
from console.cli.completion import cluster_names
from console.cli.measures import seconds_of
from console.cli.nodes import find_node
from console.cli.paging import collect
from console.cli.session import Session, as_dict, facts, table
from console.cli.text import ago, between, moment, safe, word
from console.client import Client
from console.client.monitoring import follow, stamp

app = Commands("Alerts: what is wrong now, what was, and who takes care. Without a command: the open ones.")
silences = Commands("Silences: alerts that are not sent for a while.")
app.info.no_args_is_help = False
app.add_typer(alert_rules.app, name="rule")
app.add_typer(silences, name="silence")
app.add_typer(alert_channels.app, name="channel")

ClusterOption = Annotated[
    str | None, typer.Option("--cluster", "-c", help="Only of this cluster.", autocompletion=cluster_names)
]
NodeOption = Annotated[str | None, typer.Option("--node", "-N", help="Only of this node, by name or id.")]
AlertArgument = Annotated[str, typer.Argument(metavar="ALERT", help="Id of the alert.")]
ForOption = Annotated[str, typer.Option("--for", metavar="SPAN", help="For how long, such as 30m, 4h or 2d.")]
CommentOption = Annotated[str, typer.Option("--comment", help="Why, for the others.")]

_COLOURS = {"critical": "bold red", "warning": "yellow", "info": "blue", "firing": "red", "acknowledged": "yellow"}


@app.callback(invoke_without_command=True)
def _open_ones(context: typer.Context, json: JsonOption = False) -> None:
    """Alerts: what is wrong now, what was, and who takes care. Without a command: the open ones."""
    if context.invoked_subcommand is None:
        answering(list_alerts)(output=Output.table, json=json)


@app.command("list")
def list_alerts(
    session: Session,
    project: ProjectOption = None,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Also those that have resolved.")] = False,
    limit: LimitOption = 100,
) -> None:
    """List open alerts, newest first."""
    with session.client() as client:
        project_id, cluster_id, node_id = place(session, client, project, cluster, node)
        request = pb.ListAlertsRequest(
            project_id=project_id, cluster_id=cluster_id, node_id=node_id, include_resolved=every
        )
        reply = collect(client.alerts.ListAlerts, request, pb.ListAlertsResponse(), limit)
    columns = ("SEVERITY", "STATE", "SINCE", "WHAT", "ID")
    session.answer(reply, lambda: table(columns, [_row(one) for one in reply.alerts], empty="No alerts."))
    if reply.next_page_token:
        session.warn("There are more; see --limit.")


@app.command("show")
def show_alert(session: Session, alert: AlertArgument) -> None:
    """Show one alert with its history."""
    with session.client() as client:
        reply = client.alerts.GetAlert(pb.GetAlertRequest(alert_id=alert))
    rows = [(moment(one.time), one.what, one.actor or "-", one.detail) for one in reply.history]
    session.answer(
        reply,
        lambda: _facts(reply.alert),
        lambda: table(("TIME", "WHAT", "BY", "DETAIL"), rows, empty="No history."),
    )


@app.command("acknowledge")
def acknowledge(session: Session, alert: AlertArgument, span: ForOption = "1h", comment: CommentOption = "") -> None:
    """Say that you take care: nothing is sent again until then."""
    until = stamp(time.time() + seconds_of(span, "--for"))
    with session.client() as client:
        request = pb.AcknowledgeAlertRequest(alert_id=alert, until_time=until, comment=comment)
        found = client.alerts.AcknowledgeAlert(request).alert
    session.answer(found, lambda: f"Acknowledged until {moment(found.acknowledged_until_time)}: {safe(found.summary)}")


@app.command("watch")
def watch_alerts(session: Session, project: ProjectOption = None, cluster: ClusterOption = None) -> None:
    """Show open alerts and each that changes, until Ctrl-C."""
    with session.client() as client:
        project_id, cluster_id, _ = place(session, client, project, cluster, None)
        request = pb.WatchAlertsRequest(project_id=project_id, cluster_id=cluster_id)
        told: dict[str, tuple[int, bool]] = {}
        for reply in follow(client.alerts.WatchAlerts, request):
            one = reply.alert
            if session.json:
                session.print_json(as_dict(one), indent=None)
            elif told.get(one.id) != (one.state, one.silenced):  # not for each new value
                session.out.print(Text.assemble(f"{datetime.now(UTC):%H:%M:%S}Z  ", *_marks(one), safe(one.summary)))
            told[one.id] = (one.state, one.silenced)


@silences.command("create")
def create_silence(
    session: Session,
    span: ForOption,
    project: ProjectOption = None,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Of the whole installation.")] = False,
    rule: Annotated[str, typer.Option("--rule", help="Only alerts of the rule of this name.")] = "",
    comment: CommentOption = "",
) -> None:
    """Keep alerts from being sent for a while; they are still seen."""
    with session.client() as client:
        where = alert_rules.level(session, client, project, cluster, node, everywhere)
        until = stamp(time.time() + seconds_of(span, "--for"))
        wish = pb.Silence(
            project_id=where.get("project_id", ""),
            cluster_id=where.get("cluster_id", ""),
            node_id=where.get("node_id", ""),
            rule_name=rule,
            end_time=until,
            comment=comment,
        )
        made = client.alerts.CreateSilence(pb.CreateSilenceRequest(silence=wish)).silence
    session.answer(made, lambda: f"Silence {made.id} until {moment(made.end_time)}.")


@silences.command("list")
def list_silences(session: Session, project: ProjectOption = None) -> None:
    """List silences that have not ended."""
    with session.client() as client:
        request = pb.ListSilencesRequest(project_id=session.project_id(client, project))
        reply = client.alerts.ListSilences(request)
    rows = [
        (
            one.node_id or one.cluster_id or one.project_id or "everywhere",
            one.rule_name or "all rules",
            moment(one.start_time),
            moment(one.end_time),
            one.created_by,
            one.comment,
            one.id,
        )
        for one in reply.silences
    ]
    columns = ("WHERE", "RULE", "FROM", "UNTIL", "BY", "COMMENT", "ID")
    session.answer(reply, lambda: table(columns, rows, empty="No silences."))


@silences.command("end")
def end_silence(session: Session, silence: Annotated[str, typer.Argument(metavar="SILENCE", help="Its id.")]) -> None:
    """End a silence now."""
    with session.client() as client:
        reply = client.alerts.EndSilence(pb.EndSilenceRequest(silence_id=silence))
    session.answer(reply, lambda: f"Silence {safe(silence)} has ended.")


def place(
    session: Session, client: Client, project: str | None, cluster: str | None, node: str | None
) -> tuple[str, str, str]:
    """The ids of project, cluster and node that alerts are filtered by."""
    node_id = find_node(session, client, node, project, cluster).id if node else ""
    if cluster:
        found = session.cluster(client, cluster, project)
        return found.project_id, found.id, node_id
    return session.project_id(client, project), "", node_id


def _row(one: pb.Alert) -> tuple[str | Text, ...]:
    severity = word(pb.AlertSeverity.DESCRIPTOR, one.severity)
    return (_coloured(severity), _state(one), ago(one.start_time), one.summary, one.id)


def _state(one: pb.Alert) -> Text:
    text = _coloured(word(pb.AlertState.DESCRIPTOR, one.state))
    return text.append(" (silenced)") if one.silenced else text


def _marks(one: pb.Alert) -> list[Text]:
    return [_coloured(word(pb.AlertSeverity.DESCRIPTOR, one.severity)), Text("  "), _state(one), Text("  ")]


def _coloured(text: str) -> Text:
    return Text(safe(text), style=_COLOURS.get(text, ""))


def _facts(one: pb.Alert) -> RenderableType:
    end = one.resolve_time if one.resolve_time.seconds else Timestamp()
    rows: list[tuple[str, str | Text]] = [
        ("Alert", one.summary),
        ("Severity", _coloured(word(pb.AlertSeverity.DESCRIPTOR, one.severity))),
        ("State", _state(one)),
        ("Cluster", f"{one.cluster_name} ({one.cluster_id})"),
        ("Node", f"{one.node_name} ({one.node_id})" if one.node_id else ""),
        ("Since", f"{moment(one.start_time)}, for {between(one.start_time, end)}"),
        ("To do", one.advice),
    ]
    if one.acknowledged_by:
        rows.append(("Acknowledged", f"by {one.acknowledged_by} until {moment(one.acknowledged_until_time)}"))
    return facts(rows)
