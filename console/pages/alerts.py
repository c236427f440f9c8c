"""Alerts: what fires, who takes care of it, what was; and the silences that hold."""

from collections.abc import Mapping, Sequence

from wap.control.v1 import alert_pb2 as al
from wap.control.v1.alert_pb2 import (
    ALERT_SEVERITY_CRITICAL,
    ALERT_STATE_ACKNOWLEDGED,
    ALERT_STATE_FIRING,
    ALERT_STATE_RESOLVED,
    Alert,
    AlertSeverity,
    AlertState,
    Silence,
)
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.live import polled
from console.pages.alert_actions import AlertActions
from console.pages.clusters import figure
from console.pages.scope import Scope, scope_of
from console.pages.topics import watch_alerts
from console.parts.controls import Choice, Option, button, link_button
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty
from console.parts.words import at, elapsed, measured, pill, since, tag, word
from console.view import View

COLUMNS = (
    Column("Alert", "named"),
    Column("Severity"),
    Column("State"),
    Column("Where", "wide-only"),
    Column("Value", "num"),
    Column("Since", "muted"),
)
SILENCE_COLUMNS = (
    Column("Silenced", "named"),
    Column("Ends"),
    Column("By", "wide-only"),
    Column("Comment", "wide-only muted"),
)
WHICH = (Option("open", "Open"), Option("history", "History"))
PAGE = 50
SILENCE_SECONDS = 5.0


async def build(view: View) -> None:
    """Fill the page."""
    scope = await scope_of(view, "Alerts", "What needs somebody, since when, and what to do about it")
    page = _AlertsPage(view, scope)
    view.follow("alerts", lambda: watch_alerts(view.api), page.see_open)
    view.follow("silences", lambda: polled(page.read_silences, SILENCE_SECONDS), page.see_silences)


class _AlertsPage:
    def __init__(self, view: View, scope: Scope) -> None:
        self._view = view
        self._scope = scope
        self._open: dict[str, Alert] = {}
        self._past: dict[str, Alert] = {}
        self._silences: dict[str, Silence] = {}
        self._next = ""
        self._figures = show(_figures([], 0), classes="figures")
        with box("tools choices"):
            self._which = Choice(view, "Show", WHICH, "open", self._switch, look="segments", mark="which")
            with box("buttons end"):
                show(link_button("Rules and channels", "/alert-rules", icon="rules"))
        self._actions = AlertActions(view)
        words = "Rules look at every node every ten seconds; what they find appears here."
        self._table = Table(COLUMNS, "alerts", "Alerts", empty("check", "Nothing is wrong", words), self._buttons)
        with box("more"):
            self._more = button(view, "Show older", self._older, mark="older")
        self._more.set_visibility(False)
        with box("section-head"):
            show(h("h2", "Silences"))
            show(h("span", "Alerts in them are kept and not sent", class_="small muted"))
        words = "Silence an alert above while somebody works on what it tells."
        self._silence_table = Table(
            SILENCE_COLUMNS, "silences", "Silences", empty("mute", "No silences", words), self._silence_buttons
        )

    def see_open(self, alerts: Mapping[str, Alert]) -> None:
        """The open alerts, as they are now."""
        self._open = {key: one for key, one in alerts.items() if self._is_mine(one)}
        self._paint()

    async def read_silences(self) -> list[Silence]:
        """Those that hold."""
        return list((await self._view.api.alerts.ListSilences(al.ListSilencesRequest())).silences)

    def see_silences(self, silences: Sequence[Silence]) -> None:
        """Those that hold, the one that ends first first."""
        self._silences = {one.id: one for one in silences}
        self._silence_table.update({one.id: _silence_row(one, self._scope) for one in silences})
        self._paint()

    def _switch(self) -> None:
        self._past, self._next = {}, ""
        if self._which.chosen == "history":
            self._view.later(self._older)
        self._paint()

    async def _older(self) -> None:
        request = al.ListAlertsRequest(
            cluster_id=self._scope.cluster_id,
            node_id=self._scope.node_id,
            include_resolved=True,
            page_size=PAGE,
            page_token=self._next,
        )
        reply = await self._view.api.alerts.ListAlerts(request)
        self._next = reply.next_page_token
        self._past |= {one.id: one for one in reply.alerts if one.state == ALERT_STATE_RESOLVED}
        self._paint()

    def _paint(self) -> None:
        history = self._which.chosen == "history"
        shown = self._past if history else dict(sorted(self._open.items(), key=lambda item: _urgency(item[1])))
        self._table.update({key: _row(one) for key, one in shown.items()})
        self._more.set_visibility(history and bool(self._next))
        change(self._figures, _figures(list(self._open.values()), len(self._silences)))

    def _buttons(self, key: str) -> None:
        if key in self._open:
            self._actions.buttons(self._open[key])

    def _silence_buttons(self, key: str) -> None:
        silence = self._silences[key]
        if self._view.session.role_in(_project_of(silence, self._scope)) >= ACCESS_ROLE_OPERATOR:
            button(self._view, "End", lambda: self._end(key), kind="small", mark=f"end:{key}", about="End this silence")

    async def _end(self, key: str) -> None:
        await self._view.api.alerts.EndSilence(al.EndSilenceRequest(silence_id=key))
        self.see_silences([one for one in self._silences.values() if one.id != key])

    def _is_mine(self, alert: Alert) -> bool:
        return self._scope.cluster_id in ("", alert.cluster_id) and self._scope.node_id in ("", alert.node_id)


def severity_pill(severity: AlertSeverity.ValueType) -> Html:
    """How bad it is, in a word."""
    return pill(word(AlertSeverity.DESCRIPTOR, severity))


def state_of(alert: Alert) -> Html:
    """Where it stands; under it until when somebody takes care of it."""
    told: list[Child] = [pill(word(AlertState.DESCRIPTOR, alert.state))]
    if alert.silenced:
        told.append(tag("Silenced"))
    under = None
    if alert.state == ALERT_STATE_ACKNOWLEDGED:
        who = alert.acknowledged_by.removeprefix("user:")
        under = h("div", f"By {who}, until ", at(alert.acknowledged_until_time), class_="small muted")
    return joined([h("div", joined(told), class_="step-title"), under])


def where(alert: Alert) -> Html:
    """The node and the cluster, as links."""
    node = h("a", alert.node_name, href=f"/nodes/{alert.node_id}", class_="above") if alert.node_id else None
    cluster = (
        h("a", alert.cluster_name, href=f"/clusters/{alert.cluster_id}", class_="above") if alert.cluster_id else None
    )
    if node is None:
        return cluster if cluster is not None else h("span", "Installation")
    return joined([h("div", node), h("div", cluster, class_="small muted")])


def _urgency(alert: Alert) -> tuple[bool, int, int]:
    return (alert.state != ALERT_STATE_FIRING, -alert.severity, -alert.start_time.seconds)


def _row(alert: Alert) -> Sequence[Child]:
    name = h("a", alert.rule_name, href=f"/alerts/{alert.id}", class_="row-link")
    ended = alert.resolve_time if alert.state == ALERT_STATE_RESOLVED else type(alert.resolve_time)()
    limit = h("div", f"limit {measured(alert.threshold, alert.unit)}", class_="small muted")
    return (
        joined([name, h("div", alert.summary, class_="small muted")]),
        severity_pill(alert.severity),
        state_of(alert),
        where(alert),
        joined([h("div", measured(alert.value, alert.unit)), limit]),
        joined(
            [
                h("div", since(alert.start_time)),
                h("div", elapsed(alert.start_time, ended), class_="small") if ended.seconds else None,
            ]
        ),
    )


def _silence_row(silence: Silence, scope: Scope) -> Sequence[Child]:
    rule = silence.rule_name or "All alerts"
    if silence.node_id:
        place = scope.nodes[silence.node_id].name if silence.node_id in scope.nodes else silence.node_id
    elif silence.cluster_id:
        place = scope.clusters[silence.cluster_id].name if silence.cluster_id in scope.clusters else silence.cluster_id
    else:
        place = "a project" if silence.project_id else "everywhere"
    return (
        joined([h("span", rule, class_="row-name"), h("div", place, class_="small muted")]),
        since(silence.end_time),
        silence.created_by.removeprefix("user:"),
        silence.comment,
    )


def _project_of(silence: Silence, scope: Scope) -> str:
    if silence.node_id in scope.nodes:
        return scope.nodes[silence.node_id].project_id
    if silence.cluster_id in scope.clusters:
        return scope.clusters[silence.cluster_id].project_id
    return silence.project_id


def _figures(alerts: Sequence[Alert], silences: int) -> Html:
    firing = [one for one in alerts if one.state == ALERT_STATE_FIRING]
    critical = sum(one.severity == ALERT_SEVERITY_CRITICAL for one in firing)
    return joined(
        [
            figure("Firing", str(len(firing))),
            figure("Critical", str(critical), "bad" if critical else ""),
            figure("Acknowledged", str(sum(one.state == ALERT_STATE_ACKNOWLEDGED for one in alerts))),
            figure("Silences", str(silences)),
        ]
    )
