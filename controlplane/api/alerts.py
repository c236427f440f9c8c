"""AlertService: rules and channels (in their own modules), the alerts themselves, and silences."""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import alert_pb2 as pb

from controlplane.api import calls
from controlplane.api.alert_channels import AlertChannels
from controlplane.api.alert_rules import AlertRules
from controlplane.api.alert_scopes import find_place
from controlplane.api.calls import Call
from controlplane.api.changes import change
from controlplane.api.pages import Pages, page_size
from controlplane.api.requests import check_printable
from controlplane.api.watching import LOOK_SECONDS, SETTLE_SECONDS
from controlplane.api.wire_alerts import (
    MAX_COMMENT,
    alert_event_to_wire,
    alert_to_wire,
    silence_from_wire,
    silence_to_wire,
    time_from_wire,
)
from controlplane.domain.alert import AlertState, Silence, check_acknowledgement
from controlplane.domain.failure import not_found
from controlplane.store import alerts
from controlplane.store.alert_tables import Alert, AlertSilence
from controlplane.store.alerts import AlertFilter

DEFAULT_PAGE = 100


class Alerts(AlertRules, AlertChannels):
    """Alerts."""

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: Any) -> pb.ListAlertsResponse:
        """Open ones first, then newest first."""
        call, size, now = calls.current(), page_size(request.page_size, DEFAULT_PAGE), self._clock.now()
        filters = (request.project_id, request.cluster_id, request.node_id, request.include_resolved)
        pages = Pages(self._services.vault, now, call.name, *filters)
        begin = pages.begin(request.page_token)
        after = (int(begin[0]), datetime.fromisoformat(begin[1]), str(begin[2])) if begin else None
        wanted = _filter(call, request, request.node_id, request.include_resolved)

        def work(tx: Session) -> tuple[list[pb.Alert], str]:
            rows = alerts.list_page(tx, wanted, after, size + 1)
            last = rows[size - 1] if len(rows) > size else None
            following = pages.token(_cursor(last)) if last is not None else ""
            return self._shown(tx, rows[:size], now), following

        found, following = await self._database.read(work)
        return pb.ListAlertsResponse(alerts=found, next_page_token=following)

    async def GetAlert(self, request: pb.GetAlertRequest, context: Any) -> pb.GetAlertResponse:
        """With all that has happened to it."""
        now = self._clock.now()

        def work(tx: Session) -> pb.GetAlertResponse:
            row = alerts.get(tx, request.alert_id)
            if row is None:
                raise not_found("alert", request.alert_id)
            history = [alert_event_to_wire(event) for event in alerts.history(tx, row.id)]
            return pb.GetAlertResponse(alert=self._shown(tx, [row], now)[0], history=history)

        return await self._database.read(work)

    async def WatchAlerts(self, request: pb.WatchAlertsRequest, context: Any) -> AsyncIterator[pb.WatchAlertsResponse]:
        """The open ones, then each that changes, to its end."""
        wanted = _filter(calls.current(), request, "", False)
        told: dict[str, bytes] = {}
        with self._database.bus.subscribe("alert/") as changes:  # before the first look, so that nothing falls between
            while True:
                known, now = tuple(told), self._clock.now()
                for alert in await self._database.read(lambda tx: self._watched(tx, wanted, known, now)):  # noqa: B023
                    text = alert.SerializeToString(deterministic=True)
                    if told.get(alert.id) != text:
                        yield pb.WatchAlertsResponse(alert=alert)
                    told[alert.id] = text
                    if alert.state == pb.ALERT_STATE_RESOLVED:
                        del told[alert.id]
                if await changes.wait(LOOK_SECONDS):
                    await asyncio.sleep(SETTLE_SECONDS)

    def _watched(self, tx: Session, wanted: AlertFilter, known: Collection[str], now: datetime) -> list[pb.Alert]:
        rows = list(alerts.list_page(tx, wanted, None, None))
        still_open = {row.id for row in rows}
        ended = (alerts.get(tx, alert_id) for alert_id in known if alert_id not in still_open)
        return self._shown(tx, [*rows, *(row for row in ended if row is not None)], now)

    async def AcknowledgeAlert(self, request: pb.AcknowledgeAlertRequest, context: Any) -> pb.AcknowledgeAlertResponse:
        """Nothing more is sent until then, but that it has resolved."""
        call, now = calls.current(), self._clock.now()
        comment = check_printable("comment", request.comment, MAX_COMMENT, least=0)
        until = time_from_wire("until_time", request.until_time)

        def work(tx: Session) -> pb.Alert:
            row = alerts.lock(tx, request.alert_id)
            if row is None:
                raise not_found("alert", request.alert_id)
            check_acknowledgement(AlertState(row.state), until, now)
            alerts.acknowledge(tx, row, until, call.caller.actor, comment, now)
            after = {"rule": row.rule_name, "until": until.isoformat(), "comment": comment}
            call.record(tx, now, f"alert/{row.id}", after=after)
            tx.flush()
            return self._shown(tx, [row], now)[0]

        return pb.AcknowledgeAlertResponse(alert=await change(self._database, work))

    async def CreateSilence(self, request: pb.CreateSilenceRequest, context: Any) -> pb.CreateSilenceResponse:
        """Alerts of its scope still fire and are still seen; they are not sent."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.Silence:
            silence = silence_from_wire(request.silence, find_place(tx, request.silence), now)
            row = alerts.insert_silence(tx, silence, request.silence.comment, call.caller.actor)
            call.record(tx, now, f"silence/{row.id}", after=_facts(row))
            return silence_to_wire(row)

        return pb.CreateSilenceResponse(silence=await change(self._database, work))

    async def ListSilences(self, request: pb.ListSilencesRequest, context: Any) -> pb.ListSilencesResponse:
        """By end, with those of the whole installation: they concern every project."""
        visible, now = calls.current().projects(), self._clock.now()

        def work(tx: Session) -> list[pb.Silence]:
            return [silence_to_wire(row) for row in alerts.list_silences(tx, visible, now)]

        return pb.ListSilencesResponse(silences=await self._database.read(work))

    async def EndSilence(self, request: pb.EndSilenceRequest, context: Any) -> pb.EndSilenceResponse:
        """A second time changes nothing."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> None:
            row = tx.get(AlertSilence, request.silence_id)
            if row is None:
                raise not_found("silence", request.silence_id)
            before = _facts(row)
            alerts.end_silence(tx, row, now)
            call.record(tx, now, f"silence/{row.id}", before=before, after=_facts(row))

        await change(self._database, work)
        return pb.EndSilenceResponse()

    def _shown(self, tx: Session, rows: Collection[Alert], now: datetime) -> list[pb.Alert]:
        silences: list[Silence] = [alerts.silence_of(row) for row in alerts.list_silences(tx, None, now)]
        return [alert_to_wire(row, silences, now) for row in rows]


def _filter(call: Call, request: Any, node_id: str, include_resolved: bool) -> AlertFilter:
    """What the caller may see of what is asked for."""
    visible = call.projects()
    if request.project_id:
        visible = {request.project_id} if visible is None or request.project_id in visible else set()
    return AlertFilter(visible, request.cluster_id, node_id, include_resolved)


def _cursor(alert: Alert) -> list[object]:
    return [0 if alert.open_key is not None else 1, alert.started_at.isoformat(), alert.id]


def _facts(row: AlertSilence) -> dict[str, Any]:
    return {
        "rule_name": row.rule_name,
        "cluster_id": row.cluster_id,
        "node_id": row.node_id,
        "ends_at": row.ends_at.isoformat(),
        "comment": row.comment,
    }
