"""AlertService, the part about rules."""

from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import alert_pb2 as pb
from wap.control.v1.alert_pb2_grpc import AlertServiceServicer

from controlplane.alerting.built_in import BUILT_IN
from controlplane.api import calls
from controlplane.api.alert_scopes import check_one_level, find_place
from controlplane.api.changes import change
from controlplane.api.services import Services
from controlplane.api.wire_alerts import rule_from_wire, rule_to_json, rule_to_wire
from controlplane.domain.alert import Place, RuleBook
from controlplane.domain.failure import invalid, not_found
from controlplane.store import alerts
from controlplane.store.alert_tables import AlertRule


class AlertPart(AlertServiceServicer):
    """What every part of the service works with."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._database, self._clock, self._vault = services.database, services.clock, services.vault


class AlertRules(AlertPart):
    """Rules at every level."""

    async def ListAlertRules(self, request: pb.ListAlertRulesRequest, context: Any) -> pb.ListAlertRulesResponse:
        """What holds at this level, with what comes from above it."""
        check_one_level("request", request)

        def work(tx: Session) -> list[pb.EffectiveRule]:
            place = find_place(tx, request)
            found = RuleBook([*BUILT_IN, *alerts.list_rules(tx)]).at(place)
            return [
                pb.EffectiveRule(rule=rule_to_wire(rule), inherited=rule.built_in or rule.place != place)
                for _, rule in sorted(found.items())
            ]

        return pb.ListAlertRulesResponse(rules=await self._database.read(work))

    async def CreateAlertRule(self, request: pb.CreateAlertRuleRequest, context: Any) -> pb.CreateAlertRuleResponse:
        """Of the same name as one from above: an override."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.AlertRule:
            rule = rule_from_wire(request.rule, find_place(tx, request.rule))
            stored = alerts.rule_of(alerts.insert_rule(tx, rule, now))
            call.record(tx, now, f"alert-rule/{stored.id}", after=rule_to_json(stored))
            return rule_to_wire(stored)

        return pb.CreateAlertRuleResponse(rule=await change(self._database, work))

    async def UpdateAlertRule(self, request: pb.UpdateAlertRuleRequest, context: Any) -> pb.UpdateAlertRuleResponse:
        """All settings; its level stays."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.AlertRule:
            row = _found(tx, request.rule.id)
            place = Place(row.project_id, row.cluster_id, row.node_id)
            _check_same_level(request.rule, place)
            before = rule_to_json(alerts.rule_of(row))
            alerts.change_rule(tx, row, rule_from_wire(request.rule, place))
            stored = alerts.rule_of(row)
            call.record(tx, now, f"alert-rule/{row.id}", before=before, after=rule_to_json(stored))
            return rule_to_wire(stored)

        return pb.UpdateAlertRuleResponse(rule=await change(self._database, work))

    async def DeleteAlertRule(self, request: pb.DeleteAlertRuleRequest, context: Any) -> pb.DeleteAlertRuleResponse:
        """What it overrode holds again."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> None:
            row = _found(tx, request.rule_id)
            call.record(tx, now, f"alert-rule/{row.id}", before=rule_to_json(alerts.rule_of(row)))
            tx.delete(row)

        await change(self._database, work)
        return pb.DeleteAlertRuleResponse()


def _found(tx: Session, rule_id: str) -> AlertRule:
    row = alerts.get_rule(tx, rule_id)
    if row is None:
        raise not_found("rule", rule_id)
    return row


def _check_same_level(rule: pb.AlertRule, place: Place) -> None:
    """The ids may be left out; those that are given must be the rule's own."""
    for field, own in (
        ("project_id", place.project_id),
        ("cluster_id", place.cluster_id),
        ("node_id", place.node_id),
    ):
        if getattr(rule, field) not in ("", own):
            raise invalid(f"rule.{field}", getattr(rule, field), own or "none: the level of a rule cannot change")
