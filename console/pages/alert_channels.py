"""Channels: the ways in which alerts reach people, whether they work, and how to add one."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from nicegui import ui
from wap.control.v1 import alert_pb2 as al
from wap.control.v1.alert_pb2 import AlertChannel
from wap.control.v1.project_pb2 import Project
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN

from console.parts.controls import Choice, Dialog, Once, Option, button, field, number, select
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty
from console.parts.words import count, pill, since
from console.view import View

COLUMNS = (
    Column("Channel", "named"),
    Column("Sends"),
    Column("Of", "wide-only"),
    Column("Last delivery"),
)
KINDS = (
    Option("email", "E-mail", "By your SMTP server"),
    Option("webhook", "Webhook", "JSON, signed"),
    Option("slack", "Slack", "Or what takes its messages"),
)
LEAST = (Option("1", "Everything"), Option("2", "Warnings and worse"), Option("3", "Critical only"))
SMTP_PORT = 587


class Channels:
    """The table of channels with its dialogs."""

    def __init__(self, view: View, projects: Mapping[str, Project]) -> None:
        self._view = view
        self._projects = projects
        self._channels: dict[str, AlertChannel] = {}
        self._deleting = ""
        may_add = view.session.role_in("") >= ACCESS_ROLE_ADMIN or any(map(self._is_admin, projects))
        with box("section-head"):
            show(h("h2", "Channels"))
            if may_add:
                button(view, "New channel", self._create, icon="plus", mark="new-channel")
        words = "Without a channel alerts are seen on these pages only."
        self._table = Table(COLUMNS, "channels", "Channels", empty("alerts", "No channels", words), self._buttons)
        self._dialog = _NewChannel(view, projects, self.read)
        self._ask = Dialog("Delete this channel?", mark="delete-channel-dialog")
        with self._ask.body:
            self._whom = show(Html(""))
        with self._ask.foot:
            button(view, "Keep it", self._ask.close)
            button(
                view, "Delete channel", self._delete, kind="danger-solid", icon="trash", mark="confirm-delete-channel"
            )

    async def read(self) -> None:
        """Show the channels as they are."""
        reply = await self._view.api.alerts.ListAlertChannels(al.ListAlertChannelsRequest())
        self._channels = {one.id: one for one in reply.channels}
        self._table.update({one.id: self._row(one) for one in reply.channels})

    def _is_admin(self, project_id: str) -> bool:
        return self._view.session.role_in(project_id) >= ACCESS_ROLE_ADMIN

    def _create(self) -> None:
        self._dialog.open()

    def _buttons(self, key: str) -> None:
        channel = self._channels[key]
        if not self._is_admin(channel.project_id):
            return
        name, mark = channel.name, channel.name.replace(" ", "-")
        with box("buttons nowrap-buttons"):
            button(self._view, "Test", lambda: self._test(key), kind="small", mark=f"test:{mark}", about=f"Test {name}")
            button(
                self._view, "Delete", lambda: self._ask_delete(key), kind="danger small", mark=f"delete-channel:{mark}",
                about=f"Delete {name}",
            )  # fmt: skip

    async def _test(self, key: str) -> None:
        reply = await self._view.api.alerts.TestAlertChannel(al.TestAlertChannelRequest(channel_id=key))
        name = self._channels[key].name
        if reply.delivered:
            self._view.say(f"{name} took the test message")
        else:
            self._view.warn(f"{name} did not take the test message: {reply.detail}")
        await self.read()

    def _ask_delete(self, key: str) -> None:
        self._deleting = key
        change(self._whom, h("p", "No alert is sent by ", h("b", self._channels[key].name), " any more."))
        self._ask.open()

    async def _delete(self) -> None:
        with self._view.errors_to(self._ask.complain):
            await self._view.api.alerts.DeleteAlertChannel(al.DeleteAlertChannelRequest(channel_id=self._deleting))
        self._ask.close()
        await self.read()

    def _row(self, channel: AlertChannel) -> Sequence[Child]:
        least = next((one.title for one in LEAST if one.value == str(int(channel.minimum_severity))), "Everything")
        project = self._projects.get(channel.project_id)
        of = "All projects" if not channel.project_id else project.name if project is not None else channel.project_id
        return (
            joined([h("span", channel.name, class_="row-name"), h("div", _address(channel), class_="small muted")]),
            least,
            of,
            _health(channel),
        )


class _NewChannel:
    def __init__(self, view: View, projects: Mapping[str, Project], saved: Callable[[], Awaitable[None]]) -> None:
        self._view = view
        self._saved = saved
        self._secret = Once("The webhook's secret", "It signs every message. Copy it now: it is not shown again.", view)
        self._dialog = Dialog("New channel", mark="channel-dialog", wide=True)
        with self._dialog.body:
            self._name = field("Name", mark="channel-name")
            self._kind = Choice(view, "Kind", KINDS, "email", self._switch, mark="kind")
            self._panes: dict[str, ui.element] = {}
            with box("fields") as self._panes["email"]:
                with box("pair"):
                    self._host = field("SMTP server", mark="smtp-host")
                    self._port = number("Port", SMTP_PORT, mark="smtp-port", precision=0)
                with box("pair"):
                    self._user = field("User name", mark="smtp-user")
                    self._password = field("Password", mark="smtp-password", secret=True, kind="new-password")
                with box("pair"):
                    self._from = field("From", mark="mail-from")
                    self._to = field("To", hint="Several with commas.", mark="mail-to")
            with box("fields") as self._panes["webhook"]:
                words = "https; private addresses are refused. Messages carry an HMAC-SHA-256 signature."
                self._url = field("Address", hint=words, mark="webhook-url")
            with box("fields") as self._panes["slack"]:
                words = "The incoming webhook's address. It is a secret and is not shown again."
                self._slack = field("Address", hint=words, mark="slack-url", secret=True, kind="off")
            self._least = Choice(view, "Sends", LEAST, "2", self._switch, look="segments", mark="least-severity")
            allowed = {key: one.name for key, one in projects.items() if view.session.role_in(key) >= ACCESS_ROLE_ADMIN}
            if view.session.role_in("") >= ACCESS_ROLE_ADMIN:
                allowed = {"": "All projects", **allowed}
            self._project = select(
                view, "Alerts of", allowed, next(iter(allowed), ""), self._switch, mark="channel-project"
            )
        with self._dialog.foot:
            button(view, "Cancel", self._dialog.close)
            button(view, "Add channel", self._add, kind="primary", icon="plus", mark="add-channel")
        self._switch()

    def open(self) -> None:
        for entry in (self._name, self._host, self._user, self._password, self._from, self._to, self._url, self._slack):
            entry.value = ""
        self._dialog.open()

    def _switch(self) -> None:
        for kind, pane in self._panes.items():
            pane.set_visibility(kind == self._kind.chosen)

    async def _add(self) -> None:
        with self._view.errors_to(self._dialog.complain):
            reply = await self._view.api.alerts.CreateAlertChannel(
                al.CreateAlertChannelRequest(channel=self._written())
            )
        self._dialog.close()
        self._password.value = self._slack.value = ""
        if reply.channel.webhook.secret:
            self._secret.reveal(reply.channel.webhook.secret)
        await self._saved()

    def _written(self) -> AlertChannel:
        channel = AlertChannel(
            name=(self._name.value or "").strip(),
            project_id=self._project.value or "",
            minimum_severity=al.AlertSeverity.ValueType(int(self._least.chosen)),
        )
        match self._kind.chosen:
            case "email":
                channel.email.host = (self._host.value or "").strip()
                channel.email.port = max(0, int(self._port.value or 0))
                channel.email.username = (self._user.value or "").strip()
                channel.email.password = self._password.value or ""
                setattr(channel.email, "from", (self._from.value or "").strip())
                channel.email.to.extend(part.strip() for part in (self._to.value or "").split(",") if part.strip())
            case "webhook":
                channel.webhook.url = (self._url.value or "").strip()
            case _:
                channel.slack.url = (self._slack.value or "").strip()
        return channel


def _address(channel: AlertChannel) -> str:
    match channel.WhichOneof("kind"):
        case "email":
            return f"E-mail to {', '.join(channel.email.to)} by {channel.email.host}"
        case "webhook":
            return f"Webhook {channel.webhook.url}"
        case "slack":
            return "Slack-compatible webhook"
        case _:
            return ""


def _health(channel: AlertChannel) -> Html:
    sent, failed = channel.last_success_time, channel.last_failure_time
    waiting = (
        h("div", f"{count(channel.waiting, 'message')} waiting", class_="small muted") if channel.waiting else None
    )
    if failed.seconds and failed.seconds >= sent.seconds:
        why = h("div", channel.last_failure, class_="small bad")
        return joined([h("div", pill("failed"), " ", since(failed), class_="step-title"), why, waiting])
    if sent.seconds:
        return joined([h("div", pill("ok"), " ", since(sent), class_="step-title"), waiting])
    return joined([h("span", "Nothing sent yet", class_="muted"), waiting])
