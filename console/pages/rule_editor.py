"""The dialog in which an alert rule is written, changed, or given another shape at a lower level."""

from collections.abc import Awaitable, Callable, Mapping

from wap.control.v1 import alert_pb2 as al
from wap.control.v1.alert_pb2 import AlertRule
from wap.control.v1.metric_pb2 import Metric

from console.client.monitoring import span
from console.parts.controls import Choice, Dialog, Option, button, field, number, select
from console.parts.markup import Html, box, change, h, show
from console.view import View

CONDITIONS: Mapping[str, tuple[str, str]] = {
    "agent_silent": ("Agent silent for", "seconds"),
    "no_primary": ("No primary for", "seconds"),
    "mongod_down": ("mongod down for", "seconds"),
    "certificate_expiry": ("Certificate's life left", "percent"),
}
"""What rules can look at besides metrics -> words, unit."""

SIDES = (Option("above", "Above"), Option("below", "Below"))
SEVERITIES = (Option("1", "Info"), Option("2", "Warning"), Option("3", "Critical"))
REPEATS = (Option("0", "Never"), Option("3600", "Hourly"), Option("14400", "Every 4 h"), Option("86400", "Daily"))
ACTIVE = (Option("on", "On"), Option("off", "Off"))
USUAL_METRIC = "host.cpu.used_percent"
USUAL_HYSTERESIS = 5.0


class RuleEditor:
    """`saved` is called after each change that the control plane took."""

    def __init__(self, view: View, metrics: Mapping[str, Metric], saved: Callable[[], Awaitable[None]]) -> None:
        self._view = view
        self._metrics = metrics
        self._saved = saved
        self._rule = AlertRule()
        self._dialog = Dialog("Alert rule", mark="rule-dialog", wide=True)
        names = {key: words for key, (words, _) in CONDITIONS.items()} | {name: name for name in metrics}
        with self._dialog.body:
            self._told = show(Html(""), classes="muted")
            self._name = field("Name", mark="rule-name")
            self._metric = select(view, "Metric", names, USUAL_METRIC, self._explain, mark="rule-metric")
            self._metric.props("use-input input-debounce=0 hide-selected fill-input")
            self._help = show(Html(""), classes="hint")
            with box("pair"):
                self._side = Choice(view, "Fires when", SIDES, "above", _nothing, look="segments", mark="side")
                self._threshold = number("Threshold", 80, mark="threshold")
            with box("pair three"):
                self._hits = number("Samples beyond it", 3, mark="hits", precision=0, hint="They come every 10 s.")
                self._window = number("Within", 5, unit="min", mark="window")
                self._hysteresis = number(
                    "Resolves", USUAL_HYSTERESIS, unit="%", mark="hysteresis", hint="Back behind the threshold by this."
                )
            with box("pair"):
                self._severity = Choice(
                    view, "Severity", SEVERITIES, "2", _nothing, look="segments", mark="rule-severity"
                )
                self._active = Choice(view, "The rule is", ACTIVE, "on", _nothing, look="segments", mark="active")
            self._repeat = Choice(
                view, "Sent again while it fires", REPEATS, "14400", _nothing, look="segments", mark="repeat"
            )
            self._advice = field("What to do", hint="A sentence or two for whoever is woken up.", mark="advice")
        with self._dialog.foot:
            button(view, "Cancel", self._dialog.close)
            button(view, "Save rule", self._save, kind="primary", icon="check", mark="save-rule")

    def create(self, level: AlertRule) -> None:
        """Write a new rule for this level."""
        fresh = AlertRule()
        fresh.CopyFrom(level)
        fresh.metric, fresh.threshold, fresh.hits = USUAL_METRIC, 80, 3
        fresh.comparison, fresh.severity = al.ALERT_COMPARISON_ABOVE, al.ALERT_SEVERITY_WARNING
        fresh.window.CopyFrom(span(300))
        fresh.repeat_interval.CopyFrom(span(14_400))
        fresh.hysteresis = USUAL_HYSTERESIS / 100
        self._open(fresh, "", fixed=False)

    def edit(self, rule: AlertRule) -> None:
        """Change a rule."""
        self._open(rule, "", fixed=False)

    def override(self, rule: AlertRule, level: AlertRule) -> None:
        """Give an inherited rule another shape at this level."""
        here = AlertRule()
        here.CopyFrom(rule)
        here.id, here.built_in = "", False
        here.project_id, here.cluster_id, here.node_id = level.project_id, level.cluster_id, level.node_id
        self._open(here, "It takes the place of the inherited rule of this name, here and below.", fixed=True)

    def _open(self, rule: AlertRule, told: str, *, fixed: bool) -> None:
        self._rule = rule
        change(self._told, h("p", told) if told else Html(""))
        self._name.value = rule.name
        self._name.set_enabled(not fixed)
        if rule.metric not in self._metric.options:
            self._metric.set_options({rule.metric: rule.metric, **dict(self._metric.options)})
        self._metric.value = rule.metric
        self._side.choose("above" if rule.comparison == al.ALERT_COMPARISON_ABOVE else "below")
        self._threshold.value = rule.threshold
        self._hits.value = rule.hits or 1
        self._window.value = round(rule.window.seconds / 60, 2)
        self._hysteresis.value = round(rule.hysteresis * 100, 1)
        self._severity.choose(str(int(rule.severity)))
        # An interval that stands on no button stays as it is until one is pressed.
        self._repeat.choose(str(rule.repeat_interval.seconds))
        self._active.choose("off" if rule.disabled else "on")
        self._advice.value = rule.advice
        self._explain()
        self._dialog.open()

    def _explain(self) -> None:
        name = self._metric.value or ""
        metric = self._metrics.get(name)
        unit = metric.unit if metric is not None else CONDITIONS.get(name, ("", ""))[1]
        change(self._help, h("p", metric.help) if metric is not None else Html(""))
        self._threshold.props["suffix"] = {"percent": "%"}.get(unit, unit)

    async def _save(self) -> None:
        rule = self._written()
        with self._view.errors_to(self._dialog.complain):
            if rule.id:
                await self._view.api.alerts.UpdateAlertRule(al.UpdateAlertRuleRequest(rule=rule))
            else:
                await self._view.api.alerts.CreateAlertRule(al.CreateAlertRuleRequest(rule=rule))
        self._dialog.close()
        self._view.say(f"{rule.name} is saved")
        await self._saved()

    def _written(self) -> AlertRule:
        rule = AlertRule()
        rule.CopyFrom(self._rule)
        rule.name = (self._name.value or "").strip()
        rule.metric = self._metric.value or ""
        above = self._side.chosen == "above"
        rule.comparison = al.ALERT_COMPARISON_ABOVE if above else al.ALERT_COMPARISON_BELOW
        rule.threshold = self._threshold.value or 0.0
        rule.hits = max(0, int(self._hits.value or 0))
        rule.window.CopyFrom(span(max(0.0, (self._window.value or 0.0) * 60)))
        rule.hysteresis = (self._hysteresis.value or 0.0) / 100
        rule.severity = al.AlertSeverity.ValueType(int(self._severity.chosen))
        rule.ClearField("repeat_interval")
        if self._repeat.chosen != "0":
            rule.repeat_interval.CopyFrom(span(float(self._repeat.chosen)))
        rule.disabled = self._active.chosen == "off"
        rule.advice = (self._advice.value or "").strip()
        return rule


def _nothing() -> None:
    """A choice that is read when the rule is saved."""
