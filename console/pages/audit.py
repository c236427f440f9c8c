"""The audit log: who changed what, from where, and what was refused; newest first, live."""

import json
from collections.abc import Sequence

from wap.control.v1.access_pb2 import AuditEvent, ListAuditEventsRequest

from console.frame import heading
from console.live import polled
from console.parts.controls import button, field
from console.parts.markup import Child, Html, box, h, joined
from console.parts.tables import Column, Table, empty
from console.parts.words import at, pill
from console.view import View

COLUMNS = (
    Column("Time", "nowrap"),
    Column("Who"),
    Column("Action", "nowrap"),
    Column("What"),
    Column("Outcome"),
    Column("From", "wide-only"),
    Column("Details"),
)
PAGE = 50
SECONDS = 4.0


async def build(view: View) -> None:
    """Fill the page."""
    heading("Audit log", "Every change and every refusal, written in the transaction that made it")
    page = _AuditPage(view)
    await view.connected()
    # The topic is this page's own: what is read depends on what was typed here.
    view.follow(("audit", id(page)), lambda: polled(page.read, SECONDS), page.show_latest)


class _AuditPage:
    def __init__(self, view: View) -> None:
        self._view = view
        self._actor = self._resource = ""
        self._latest: list[AuditEvent] = []
        self._older: list[AuditEvent] = []
        self._next = ""
        with box("tools wide"):
            self._actor_field = field("Who", mark="actor")
            self._actor_field.props["placeholder"] = "user:admin"
            self._resource_field = field("What", mark="resource")
            self._resource_field.props["placeholder"] = "cluster/cl-…"
            button(view, "Search", self._search, icon="search", mark="search")
        words = "Nothing was changed yet, or nothing matches."
        self._table = Table(COLUMNS, "audit", "Audit log", empty("audit", "No events", words))
        with box("more"):
            self._more = button(view, "Show older", self._show_older, mark="older")
        self._more.set_visibility(False)

    async def read(self) -> list[AuditEvent]:
        """The newest events that match."""
        reply = await self._view.api.access.ListAuditEvents(self._request(""))
        if not self._older:
            self._next = reply.next_page_token
        return list(reply.events)

    def show_latest(self, events: Sequence[AuditEvent]) -> None:
        """Show them above what was loaded before."""
        known = {event.id for event in events}
        # Events that moved to the second page since then are still shown once.
        self._older = [event for event in (*self._latest, *self._older) if event.id not in known and self._older]
        self._latest = list(events)
        self._paint()

    async def _search(self) -> None:
        self._actor = (self._actor_field.value or "").strip()
        self._resource = (self._resource_field.value or "").strip()
        self._older, self._latest = [], []
        self.show_latest(await self.read())

    async def _show_older(self) -> None:
        reply = await self._view.api.access.ListAuditEvents(self._request(self._next))
        self._next = reply.next_page_token
        shown = {event.id for event in (*self._latest, *self._older)}
        self._older += [event for event in reply.events if event.id not in shown]
        self._paint()

    def _request(self, page_token: str) -> ListAuditEventsRequest:
        return ListAuditEventsRequest(actor=self._actor, resource=self._resource, page_size=PAGE, page_token=page_token)

    def _paint(self) -> None:
        self._table.update({event.id: _row(event) for event in (*self._latest, *self._older)})
        self._more.set_visibility(bool(self._next))


def _row(event: AuditEvent) -> Sequence[Child]:
    return (
        at(event.time),
        h("span", event.actor.removeprefix("user:") or "\N{EN DASH}", title=event.actor),
        h("span", event.action, class_="row-name"),
        _resource(event.resource),
        _outcome(event.outcome),
        h("span", event.peer.removeprefix("ipv4:").removeprefix("ipv6:"), class_="mono muted"),
        _details(event),
    )


def _outcome(outcome: str) -> Html:
    return pill("ok") if outcome in ("", "ok") else h("span", outcome, class_="pill bad")


def _resource(resource: str) -> Html:
    kind, _, key = resource.partition("/")
    target = {"cluster": "/clusters/", "operation": "/operations/"}.get(kind)
    label = h("span", resource, class_="mono")
    return h("a", label, href=f"{target}{key}") if target and key else label


def _details(event: AuditEvent) -> Html:
    parts = [("Before", event.before_json), ("After", event.after_json)]
    shown = joined(
        joined([h("div", label, class_="small muted"), h("pre", _pretty(text))]) for label, text in parts if text
    )
    request = h("div", "Request ", h("span", event.request_id, class_="mono"), class_="small muted")
    return h("details", h("summary", "Show"), request, shown)


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
