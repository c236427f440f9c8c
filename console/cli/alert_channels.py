"""`wap alerts channel`: how alerts reach people."""

from typing import Annotated

import typer
from rich.text import Text
from wap.control.v1 import alert_pb2 as pb

from console.cli.alert_rules import Severity
from console.cli.command import Commands, ProjectOption, YesOption
from console.cli.confirm import confirm
from console.cli.failures import FAILED, NOT_FOUND, CommandError
from console.cli.login import PasswordStdin, read_secret
from console.cli.session import Session, table
from console.cli.text import ago, safe, state, word
from console.client import Client

app = Commands("Alert channels: how alerts reach people.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the channel.")]
MinimumOption = Annotated[Severity, typer.Option("--minimum", help="From this severity on.")]
AllProjects = Annotated[bool, typer.Option("--everywhere", help="For alerts of all projects.")]


@app.command("add-email")
def add_email(
    session: Session,
    name: NameArgument,
    host: Annotated[str, typer.Option(help="Mail server.")],
    sender: Annotated[str, typer.Option("--from", help="Address that mails come from.")],
    to: Annotated[list[str], typer.Option("--to", help="Address that mails go to; may be repeated.")],
    port: Annotated[int, typer.Option(help="Port; default 587, or 25 with --plaintext.")] = 0,
    username: Annotated[str, typer.Option(help="User name at the mail server; its password is asked for.")] = "",
    password_stdin: PasswordStdin = False,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="Without TLS.")] = False,
    minimum: MinimumOption = Severity.warning,
    project: ProjectOption = None,
    everywhere: AllProjects = False,
) -> None:
    """Send alerts by e-mail."""
    password = ""
    if username or password_stdin:
        password = read_secret(session, "Password at the mail server", from_stdin=password_stdin)
    email = pb.EmailChannel(
        host=host,
        port=port,
        username=username,
        password=password,
        to=to,
        plaintext=plaintext,
        **{"from": sender},
    )
    _create(session, pb.AlertChannel(name=name, email=email), minimum, project, everywhere)


@app.command("add-webhook")
def add_webhook(
    session: Session,
    name: NameArgument,
    url: Annotated[str, typer.Option(help="Where messages are posted to.")],
    minimum: MinimumOption = Severity.warning,
    project: ProjectOption = None,
    everywhere: AllProjects = False,
) -> None:
    """Post alerts as JSON, signed as Standard Webhooks has it; the secret is made and shown this once."""
    channel = pb.AlertChannel(name=name, webhook=pb.WebhookChannel(url=url))
    made = _create(session, channel, minimum, project, everywhere)
    session.say(f"Secret of its signatures, shown this once: {made.webhook.secret}", "bold")


@app.command("add-slack")
def add_slack(
    session: Session,
    name: NameArgument,
    password_stdin: PasswordStdin = False,
    minimum: MinimumOption = Severity.warning,
    project: ProjectOption = None,
    everywhere: AllProjects = False,
) -> None:
    """Post alerts to an incoming webhook of Slack, or of a chat that takes the same; its address, a secret, is asked for."""
    url = read_secret(session, "Address of the incoming webhook", from_stdin=password_stdin)
    channel = pb.AlertChannel(name=name, slack=pb.SlackChannel(url=url))
    _create(session, channel, minimum, project, everywhere)


@app.command("list")
def list_channels(session: Session, project: ProjectOption = None) -> None:
    """List channels with what went well and what did not."""
    with session.client() as client:
        request = pb.ListAlertChannelsRequest(project_id=session.project_id(client, project))
        reply = client.alerts.ListAlertChannels(request)
    rows = [
        (
            one.name,
            one.WhichOneof("kind") or "-",
            ", ".join(one.email.to) or one.webhook.url or "-",
            word(pb.AlertSeverity.DESCRIPTOR, one.minimum_severity),
            _health(one),
            ago(one.last_success_time),
            str(one.waiting),
            one.last_failure if _is_failing(one) else "",
        )
        for one in reply.channels
    ]
    columns = ("NAME", "KIND", "TO", "FROM SEVERITY", "STATE", "LAST SENT", ">WAITING", "LAST FAILURE")
    session.answer(reply, lambda: table(columns, rows, empty="No channels: nobody is told of alerts."))


@app.command("test")
def try_channel(session: Session, name: NameArgument, project: ProjectOption = None) -> None:
    """Send a test message now and say how it went."""
    with session.client() as client:
        found = _find(session, client, name, project)
        reply = client.alerts.TestAlertChannel(pb.TestAlertChannelRequest(channel_id=found.id), timeout=60)
    if not reply.delivered:
        raise CommandError(f"Not delivered: {reply.detail}", exit_code=FAILED, reason="NOT_DELIVERED")
    session.answer(reply, lambda: f"Delivered: {safe(reply.detail)}")


@app.command("delete")
def delete_channel(session: Session, name: NameArgument, project: ProjectOption = None, yes: YesOption = False) -> None:
    """Delete a channel; what waits for it is not sent."""
    with session.client() as client:
        found = _find(session, client, name, project)
        confirm(session, f"Delete the alert channel {found.name}?", yes=yes)
        reply = client.alerts.DeleteAlertChannel(pb.DeleteAlertChannelRequest(channel_id=found.id))
    session.answer(reply, lambda: f"Channel {safe(found.name)} deleted.")


def _create(
    session: Session, channel: pb.AlertChannel, minimum: Severity, project: str | None, everywhere: bool
) -> pb.AlertChannel:
    channel.minimum_severity = pb.AlertSeverity.Value(f"ALERT_SEVERITY_{minimum.value.upper()}")
    with session.client() as client:
        if not everywhere:
            channel.project_id = session.project(client, project).id
        made = client.alerts.CreateAlertChannel(pb.CreateAlertChannelRequest(channel=channel)).channel
    session.answer(made, lambda: f"Channel {safe(made.name)} added. Try it: wap alerts channel test {safe(made.name)}")
    return made


def _find(session: Session, client: Client, name: str, project: str | None) -> pb.AlertChannel:
    every = client.alerts.ListAlertChannels(pb.ListAlertChannelsRequest()).channels
    found = [one for one in every if one.id == name]
    if not found:
        project_id = session.project_id(client, project)
        found = [one for one in every if one.name == name and (not project or one.project_id == project_id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"{len(found)} channels are named {name}.", "Use --project, or the channel's id.")
    raise CommandError(
        f"There is no channel {name}.", "wap alerts channel list", exit_code=NOT_FOUND, reason="NOT_FOUND"
    )


def _is_failing(one: pb.AlertChannel) -> bool:
    return one.last_failure_time.ToNanoseconds() > one.last_success_time.ToNanoseconds()


def _health(one: pb.AlertChannel) -> Text:
    if _is_failing(one):
        return state("failed")
    return state("ok") if one.last_success_time.seconds else state("not used yet")
