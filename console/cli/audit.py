"""`wap audit`: what was changed by whom."""

from typing import Annotated

import typer
from wap.control.v1.access_pb2 import ListAuditEventsRequest, ListAuditEventsResponse

from console.cli.command import Commands, LimitOption, ProjectOption
from console.cli.paging import collect
from console.cli.session import Session, table
from console.cli.text import moment, state

app = Commands("Audit: what was changed by whom.")


@app.callback()
def _root() -> None:
    """Audit: what was changed by whom."""


@app.command("list")
def list_events(
    session: Session,
    project: ProjectOption = None,
    resource: Annotated[str, typer.Option(help="Only this resource, e.g. cluster/cl-...")] = "",
    actor: Annotated[str, typer.Option(help="Only this actor, e.g. user:admin.")] = "",
    limit: LimitOption = 50,
) -> None:
    """List state changes, newest first. Without --project: of the whole installation, for its administrators."""
    with session.client() as client:
        request = ListAuditEventsRequest(
            project_id=client.project(project).id if project else "", resource=resource, actor=actor
        )
        reply = collect(client.access.ListAuditEvents, request, ListAuditEventsResponse(), limit)
    rows = [
        (moment(e.time), e.actor, e.action, e.resource, state(e.outcome), e.peer, e.request_id) for e in reply.events
    ]
    columns = ("TIME", "ACTOR", "ACTION", "RESOURCE", "OUTCOME", "FROM", "REQUEST")
    session.answer(reply, lambda: table(columns, rows, empty="No events."))
