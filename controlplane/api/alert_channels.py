"""AlertService, the part about channels."""

from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.orm import Session
from wap.control.v1 import alert_pb2 as pb

from controlplane.alerting import wording
from controlplane.alerting.addresses import resolve
from controlplane.alerting.channels import ChannelKind
from controlplane.api import calls
from controlplane.api.alert_rules import AlertPart
from controlplane.api.changes import change
from controlplane.api.wire_alerts import channel_from_wire, channel_to_wire
from controlplane.domain.failure import FailureCode, Refused, not_found
from controlplane.store import alert_channels
from controlplane.store.alert_channels import NewChannel, Taken
from controlplane.store.alert_tables import AlertChannel


class AlertChannels(AlertPart):
    """Ways in which alerts reach people."""

    async def CreateAlertChannel(
        self, request: pb.CreateAlertChannelRequest, context: Any
    ) -> pb.CreateAlertChannelResponse:
        """The secret goes into the vault; one that was made here is shown this once."""
        call, now = calls.current(), self._clock.now()
        new = channel_from_wire(request.channel, allow_private=self._services.channels.allow_private)
        await self._check_address(new)
        made_here = new.kind == ChannelKind.WEBHOOK and not request.channel.webhook.secret

        def work(tx: Session) -> pb.AlertChannel:
            row = alert_channels.insert(tx, self._vault, new, now)
            call.record(tx, now, f"alert-channel/{row.id}", after=_facts(row))
            return channel_to_wire(row, 0, secret=new.secret if made_here else "")

        return pb.CreateAlertChannelResponse(channel=await change(self._database, work))

    async def _check_address(self, new: NewChannel) -> None:
        """Say at once what every message would fail with; a name that does not resolve now may do so later."""
        url = new.secret if new.kind == ChannelKind.SLACK else new.settings.get("url", "")
        if not url:
            return
        parts, field = urlsplit(url), f"channel.{new.kind.lower()}.url"
        allow = self._services.channels.allow_private
        try:
            await resolve(parts.hostname or "", parts.port or 443, allow_private=allow, field=field)
        except Refused as refused:
            if refused.code is not FailureCode.UNAVAILABLE:
                raise

    async def ListAlertChannels(
        self, request: pb.ListAlertChannelsRequest, context: Any
    ) -> pb.ListAlertChannelsResponse:
        """By name, without secrets. Those of all projects are shown to administrators of the installation only."""
        visible = calls.current().projects()

        def work(tx: Session) -> list[pb.AlertChannel]:
            waiting = alert_channels.waiting(tx)
            rows = alert_channels.list_channels(tx, visible)
            return [channel_to_wire(row, waiting.get(row.id, 0)) for row in rows]

        return pb.ListAlertChannelsResponse(channels=await self._database.read(work))

    async def DeleteAlertChannel(
        self, request: pb.DeleteAlertChannelRequest, context: Any
    ) -> pb.DeleteAlertChannelResponse:
        """What waits for it is not sent any more."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> None:
            row = _found(tx, request.channel_id)
            call.record(tx, now, f"alert-channel/{row.id}", before=_facts(row))
            alert_channels.remove(tx, self._vault, row)

        await change(self._database, work)
        return pb.DeleteAlertChannelResponse()

    async def TestAlertChannel(self, request: pb.TestAlertChannelRequest, context: Any) -> pb.TestAlertChannelResponse:
        """Sent while the caller waits. Where it goes well, what waits is tried again at once."""
        call, now = calls.current(), self._clock.now()

        def read(tx: Session) -> Taken:
            row = _found(tx, request.channel_id)
            secret = alert_channels.secret(tx, self._vault, row.id)
            return Taken(row.id, row.name, row.kind, row.settings, secret, (), (wording.test_notice(row.name),))

        message = await self._database.read(read)
        outcome = await self._services.channels.send(message)

        def write(tx: Session) -> None:
            row = _found(tx, request.channel_id)
            alert_channels.tested(tx, row, "" if outcome.delivered else outcome.detail, self._clock.now())
            after = {"name": row.name, "delivered": outcome.delivered, "detail": outcome.detail}
            call.record(tx, now, f"alert-channel/{row.id}", after=after)

        await change(self._database, write)
        return pb.TestAlertChannelResponse(delivered=outcome.delivered, detail=outcome.detail)


def _found(tx: Session, channel_id: str) -> AlertChannel:
    row = alert_channels.get(tx, channel_id)
    if row is None:
        raise not_found("channel", channel_id)
    return row


def _facts(row: AlertChannel) -> dict[str, Any]:
    return {"name": row.name, "kind": row.kind, "minimum_severity": row.minimum_severity, **row.settings}
