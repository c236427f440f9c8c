"""Alert rules with where they come from, an editor for them, and the channels that alerts go out by."""

from collections.abc import Mapping, Sequence

from wap.control.v1 import alert_pb2 as al
from wap.control.v1.alert_pb2 import AlertRule, EffectiveRule
from wap.control.v1.metric_pb2 import ListMetricsRequest, Metric
from wap.control.v1.project_pb2 import ListProjectsRequest, Project
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.pages.alert_channels import Channels
from console.pages.alerts import severity_pill
from console.pages.rule_editor import CONDITIONS, RuleEditor
from console.pages.scope import Scope, scope_of
from console.parts.controls import Dialog, button, select
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty
from console.parts.words import measured, tag, time_spent
from console.view import View

COLUMNS = (
    Column("Rule", "named"),
    Column("Fires when", "condition"),
    Column("Severity"),
    Column("Comes from", "wide-only"),
)


async def build(view: View) -> None:
    """Fill the page."""
    words = "A rule of the same name at a lower level takes the place of the one above: WAP, project, cluster, node"
    scope = await scope_of(view, "Alert rules", words)
    projects = {one.id: one for one in (await view.api.projects.ListProjects(ListProjectsRequest())).projects}
    metrics = {one.name: one for one in (await view.api.metrics.ListMetrics(ListMetricsRequest())).metrics}
    page = _RulesPage(view, scope, projects, metrics)
    await page.read()
    await Channels(view, projects).read()


class _RulesPage:
    def __init__(
        self, view: View, scope: Scope, projects: Mapping[str, Project], metrics: Mapping[str, Metric]
    ) -> None:
        self._view = view
        self._scope = scope
        self._metrics = metrics
        self._rules: dict[str, EffectiveRule] = {}
        self._deleting = AlertRule()
        places = {"": "All of WAP"}
        places |= {f"project:{key}": f"Project {one.name}" for key, one in projects.items()}
        places |= {f"cluster:{key}": f"Cluster {one.name}" for key, one in scope.clusters.items()}
        first = f"cluster:{scope.cluster_id}" if scope.cluster_id else ""
        with box("tools choices"):
            self._place = select(view, "Rules of", places, first, self._move, mark="place")
            self._node = select(view, "Node", {"": "All nodes"}, "", self.read, mark="rule-node")
            with box("buttons end"):
                self._new = button(view, "New rule", self._create, kind="primary", icon="plus", mark="new-rule")
        words = "Rules say which metric is compared with what, over which time."
        self._table = Table(COLUMNS, "rules", "Alert rules", empty("rules", "No rules", words), self._buttons)
        self._editor = RuleEditor(view, metrics, self.read)
        self._dialog = Dialog("Delete this rule?", mark="delete-rule-dialog")
        with self._dialog.body:
            self._whom = show(Html(""))
        with self._dialog.foot:
            button(view, "Keep it", self._dialog.close)
            button(view, "Delete rule", self._delete, kind="danger-solid", icon="trash", mark="confirm-delete-rule")

    async def read(self) -> None:
        """Show the rules of the level that is chosen."""
        level = self._level()
        request = al.ListAlertRulesRequest(
            project_id=level.project_id, cluster_id=level.cluster_id, node_id=level.node_id
        )
        reply = await self._view.api.alerts.ListAlertRules(request)
        # The buttons of a row depend on where its rule comes from, and so does its key.
        self._rules = {
            f"{one.rule.id}/{one.inherited}/{self._place.value}{self._node.value}": one for one in reply.rules
        }
        self._table.update({key: _row(one, self._metrics) for key, one in self._rules.items()})
        self._new.set_visibility(self._may_edit())

    async def _move(self) -> None:
        kind, _, key = str(self._place.value or "").partition(":")
        names = self._scope.node_names("All nodes", key) if kind == "cluster" else {"": "All nodes"}
        self._node.set_options(names, value="")
        await self.read()

    def _level(self) -> AlertRule:
        """A rule with nothing but its level."""
        kind, _, key = str(self._place.value or "").partition(":")
        if self._node.value:
            return AlertRule(node_id=self._node.value)
        return AlertRule(project_id=key if kind == "project" else "", cluster_id=key if kind == "cluster" else "")

    def _may_edit(self) -> bool:
        level = self._level()
        cluster = self._scope.clusters.get(str(self._place.value or "").partition(":")[2])
        project = cluster.project_id if cluster is not None else level.project_id
        return self._view.session.role_in(project) >= ACCESS_ROLE_OPERATOR

    def _buttons(self, key: str) -> None:
        if not self._may_edit():
            return
        effective = self._rules[key]
        rule, name = effective.rule, effective.rule.name
        mark = name.replace(" ", "-")
        with box("buttons nowrap-buttons"):
            if not effective.inherited and not rule.built_in:
                button(
                    self._view,
                    "Edit",
                    lambda: self._editor.edit(rule),
                    kind="small",
                    mark=f"edit:{mark}",
                    about=f"Edit {name}",
                )
                button(
                    self._view, "Delete", lambda: self._ask_delete(rule), kind="danger small", mark=f"delete:{mark}",
                    about=f"Delete {name}",
                )  # fmt: skip
            elif effective.inherited or self._place.value:
                button(
                    self._view, "Override", lambda: self._editor.override(rule, self._level()), kind="small",
                    mark=f"override:{mark}", about=f"Override {name} here",
                )  # fmt: skip

    def _create(self) -> None:
        self._editor.create(self._level())

    def _ask_delete(self, rule: AlertRule) -> None:
        self._deleting = rule
        words = " If it took the place of a rule of a higher level, that one holds again."
        change(self._whom, h("p", h("b", rule.name), " is deleted for good.", words))
        self._dialog.open()

    async def _delete(self) -> None:
        with self._view.errors_to(self._dialog.complain):
            await self._view.api.alerts.DeleteAlertRule(al.DeleteAlertRuleRequest(rule_id=self._deleting.id))
        self._dialog.close()
        await self.read()


def _row(effective: EffectiveRule, metrics: Mapping[str, Metric]) -> Sequence[Child]:
    rule = effective.rule
    off = tag("Off") if rule.disabled else None
    came = "WAP" if rule.built_in else _level_of(rule)
    return (
        joined(
            [
                h("div", h("span", rule.name, class_="row-name"), off, class_="step-title"),
                h("div", rule.advice, class_="small muted"),
            ]
        ),
        _condition(rule, metrics),
        severity_pill(rule.severity),
        joined([h("div", f"Inherited from {came}" if effective.inherited else came)]),
    )


def _condition(rule: AlertRule, metrics: Mapping[str, Metric]) -> Html:
    words, unit = CONDITIONS.get(rule.metric, ("", ""))
    if rule.metric in metrics:
        unit = metrics[rule.metric].unit
    above = rule.comparison == al.ALERT_COMPARISON_ABOVE
    side = ("more than" if above else "less than") if words else "above" if above else "below"
    name = h("span", words) if words else h("code", rule.metric)
    first = h("div", name, f" {side} ", h("b", measured(rule.threshold, unit), class_="num"))
    seconds = rule.window.seconds
    if not seconds or rule.metric in CONDITIONS:
        return first
    second = (
        f"{rule.hits} of the samples of {time_spent(rule.window)}"
        if rule.hits > 1
        else f"once in {time_spent(rule.window)}"
    )
    return joined([first, h("div", second, class_="small muted")])


def _level_of(rule: AlertRule) -> str:
    if rule.node_id:
        return "node"
    return "cluster" if rule.cluster_id else "project" if rule.project_id else "all of WAP"
