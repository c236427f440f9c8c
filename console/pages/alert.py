"""One alert: what it says, what to do, how the metric went, and everything that happened to it."""

from collections.abc import Sequence

from nicegui import ui
from wap.control.v1.alert_pb2 import Alert, AlertEvent, GetAlertRequest, GetAlertResponse

from console.design import ICONS
from console.frame import heading, loading
from console.live import polled
from console.pages.alert_actions import AlertActions
from console.pages.alerts import severity_pill, state_of, where
from console.pages.clusters import figure
from console.parts.charts import CHARTS, ChartBoard
from console.parts.controls import link_button
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.words import at, elapsed, measured, sentence, since
from console.view import View

SECONDS = 3.0


async def build(view: View) -> None:
    """Fill the page."""
    request = GetAlertRequest(alert_id=view.parameter("alert_id"))
    async with loading(view):
        reply = await view.api.alerts.GetAlert(request)
    page = _AlertPage(view, reply)

    async def read() -> GetAlertResponse:
        return await view.api.alerts.GetAlert(request)

    view.follow(("alert", request.alert_id), lambda: polled(read, SECONDS), page.see)


class _AlertPage:
    def __init__(self, view: View, reply: GetAlertResponse) -> None:
        alert = reply.alert
        ui.page_title(f"{alert.rule_name} · WAP")
        actions = AlertActions(view)
        with box("head-row"):
            with box("stack"):
                heading(alert.rule_name, crumbs=(("Alerts", "/alerts"),))
                self._facts = show(Html(""), classes="facts-row")
            with box("buttons"):
                if alert.node_id:
                    show(link_button("Logs", f"/logs?node={alert.node_id}", icon="logs"))
                actions.buttons(alert, kind="")
        self._told = show(Html(""))
        self._figures = show(Html(""), classes="figures")
        keys = [key for key, chart in CHARTS.items() if chart.by_member and alert.metric in chart.metrics]
        if keys and alert.cluster_id:
            about = {"cluster": alert.cluster_id, "prefix": f"{alert.cluster_name}-"}
            ChartBoard(view, "The metric on all members", keys[:1], about=about, limit=alert.threshold).classes(
                "wide-chart"
            )
        with box("panel"):
            show(h("h2", "History"), classes="panel-head")
            self._history = show(Html(""))
        self.see(reply)

    def see(self, reply: GetAlertResponse) -> None:
        """The alert as it is now."""
        alert = reply.alert
        change(self._facts, joined([severity_pill(alert.severity), state_of(alert)]))
        advice = h("p", alert.advice) if alert.advice else None
        look = {"critical": "notice bad", "warning": "notice caution"}.get(_severity(alert), "notice busy")
        change(self._told, h("div", ICONS["alert"], h("div", h("b", alert.summary), advice), class_=look))
        change(self._figures, _figures(alert))
        change(self._history, _history(reply.history))


def _severity(alert: Alert) -> str:
    return {3: "critical", 2: "warning"}.get(alert.severity, "info")


def _figures(alert: Alert) -> Html:
    over = bool(alert.resolve_time.seconds)
    return joined(
        [
            figure("Value", measured(alert.value, alert.unit)),
            figure("Limit", measured(alert.threshold, alert.unit)),
            figure("Where", h("span", where(alert), class_="where")),
            figure("Since", since(alert.start_time)),
            figure("Lasted" if over else "Lasts", elapsed(alert.start_time, alert.resolve_time)),
        ]
    )


def _history(events: Sequence[AlertEvent]) -> Html:
    rows = []
    for event in reversed(events):
        failed = event.what.startswith("failed")
        tone = "bad" if event.what == "fired" or failed else "good" if event.what == "resolved" else "busy"
        who = f" by {event.actor.removeprefix('user:')}" if event.actor else ""
        text = h(
            "div",
            h("b", sentence(event.what) + who),
            h("div", event.detail, class_="small muted") if event.detail else None,
        )
        dot = h("i", class_=f"dot {tone}", aria_hidden="true")
        rows.append(h("li", dot, text, h("span", at(event.time), class_="small muted")))
    return h("ol", joined(rows), class_="feed")
