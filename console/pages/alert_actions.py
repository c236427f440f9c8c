"""What a person can do about an alert: take care of it for a while, or keep it from being sent."""

import time

from wap.control.v1.alert_pb2 import (
    ALERT_STATE_RESOLVED,
    AcknowledgeAlertRequest,
    Alert,
    CreateSilenceRequest,
    Silence,
)
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.client.monitoring import stamp
from console.parts.controls import Choice, Dialog, Option, button, field
from console.parts.markup import Html, box, change, h, show
from console.view import View

SPANS = (
    Option("3600", "1 hour"),
    Option("14400", "4 hours"),
    Option("86400", "1 day"),
    Option("604800", "1 week"),
)
SCOPES = (
    Option("rule", "This rule on this node"),
    Option("node", "Everything on this node"),
    Option("cluster", "Everything in this cluster"),
)


class AlertActions:
    """The two dialogs, and the buttons that open them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._alert = Alert()
        self._acknowledge = Dialog("Acknowledge alert", mark="acknowledge-dialog")
        with self._acknowledge.body:
            self._what = show(Html(""))
            self._until = Choice(view, "For", SPANS, "14400", _nothing, look="segments", mark="until")
            self._comment = field("Comment", hint="It stands in the alert's history.", mark="comment")
        with self._acknowledge.foot:
            button(view, "Not now", self._acknowledge.close)
            button(view, "Acknowledge", self._do_acknowledge, kind="primary", icon="check", mark="confirm-acknowledge")
        self._silence = Dialog("Silence", mark="silence-dialog")
        with self._silence.body:
            show(h("p", "Alerts still fire and are kept; they are not sent to anybody.", class_="muted"))
            self._scope = Choice(view, "What", SCOPES, "rule", _nothing, look="segments", mark="scope")
            self._length = Choice(view, "For", SPANS, "14400", _nothing, look="segments", mark="length")
            self._reason = field("Comment", hint="Why, for others who look.", mark="reason")
        with self._silence.foot:
            button(view, "Not now", self._silence.close)
            button(view, "Silence", self._do_silence, kind="primary", icon="mute", mark="confirm-silence")

    def buttons(self, alert: Alert, kind: str = "small") -> None:
        """The buttons for one alert, where this user may press them."""
        may_act = self._view.session.role_in(alert.project_id) >= ACCESS_ROLE_OPERATOR
        if not may_act or alert.state == ALERT_STATE_RESOLVED:
            return
        about = f"{alert.rule_name} on {alert.node_name or alert.cluster_name}"
        with box("buttons nowrap-buttons"):
            button(
                self._view,
                "Acknowledge",
                lambda: self._ask_acknowledge(alert),
                kind=kind,
                mark=f"acknowledge:{alert.id}",
                about=f"Acknowledge {about}",
            )
            button(
                self._view,
                "Silence",
                lambda: self._ask_silence(alert),
                kind=kind,
                mark=f"silence:{alert.id}",
                about=f"Silence {about}",
            )

    def _ask_acknowledge(self, alert: Alert) -> None:
        self._alert = alert
        change(
            self._what, h("p", h("b", alert.summary), " is not sent again until the time is over, or it fires anew.")
        )
        self._comment.value = ""
        self._acknowledge.open()

    async def _do_acknowledge(self) -> None:
        until = stamp(time.time() + float(self._until.chosen))
        request = AcknowledgeAlertRequest(
            alert_id=self._alert.id, until_time=until, comment=(self._comment.value or "").strip()
        )
        with self._view.errors_to(self._acknowledge.complain):
            await self._view.api.alerts.AcknowledgeAlert(request)
        self._acknowledge.close()
        self._view.say("You take care of this alert")

    def _ask_silence(self, alert: Alert) -> None:
        self._alert = alert
        self._reason.value = ""
        self._silence.open()

    async def _do_silence(self) -> None:
        alert, scope = self._alert, self._scope.chosen
        on_node = bool(alert.node_id) and scope != "cluster"
        silence = Silence(
            node_id=alert.node_id if on_node else "",
            cluster_id="" if on_node else alert.cluster_id,
            rule_name=alert.rule_name if scope == "rule" else "",
            end_time=stamp(time.time() + float(self._length.chosen)),
            comment=(self._reason.value or "").strip(),
        )
        with self._view.errors_to(self._silence.complain):
            await self._view.api.alerts.CreateSilence(CreateSilenceRequest(silence=silence))
        self._silence.close()
        self._view.say("Silenced")


def _nothing() -> None:
    """The choice is read when the dialog is confirmed."""
