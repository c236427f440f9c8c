"""`wap operation`: show and steer what changes clusters."""

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from wap.control.v1 import operation_pb2 as pb
from wap.control.v1.operation_pb2 import Operation, OperationKind, OperationState

from console.cli.command import Commands, LimitOption, ProjectOption, YesOption
from console.cli.completion import cluster_names
from console.cli.confirm import confirm
from console.cli.paging import collect
from console.cli.progress import MARKS, conclude, failure_text, finish, follow, headline
from console.cli.session import Session, facts, table
from console.cli.text import ago, between, moment, safe, state, word

app = Commands("Operations: the durable work behind every change.")

OperationArgument = Annotated[str, typer.Argument(metavar="OPERATION", help="Id of the operation, op-...")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is over.")]


@app.command("list")
def list_operations(
    session: Session,
    project: ProjectOption = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", "-c", help="Only of this cluster.", autocompletion=cluster_names)
    ] = None,
    limit: LimitOption = 50,
) -> None:
    """List operations, newest first."""
    with session.client() as client:
        found = session.cluster(client, cluster, project) if cluster else None
        project_id = found.project_id if found else session.project_id(client, project)
        request = pb.ListOperationsRequest(project_id=project_id, cluster_id=found.id if found else "")
        reply = collect(client.operations.ListOperations, request, pb.ListOperationsResponse(), limit)
    rows = [
        (
            one.id,
            headline(one),
            state(word(OperationState.DESCRIPTOR, one.state)),
            f"{one.steps_done}/{one.steps_total}",
            ago(one.create_time),
            between(one.start_time, one.end_time),
            one.actor,
        )
        for one in reply.operations
    ]
    columns = ("ID", "OPERATION", "STATE", ">STEPS", "STARTED", ">TOOK", "BY")
    session.answer(reply, lambda: table(columns, rows, empty="No operations yet."))


@app.command("show")
def show_operation(session: Session, operation: OperationArgument) -> None:
    """Show one operation with its steps."""
    with session.client() as client:
        found = client.operations.GetOperation(pb.GetOperationRequest(operation_id=operation)).operation
    session.answer(found, lambda: _facts(found), lambda: _steps(found))


@app.command("watch")
def watch_operation(session: Session, operation: OperationArgument) -> None:
    """Follow an operation until it is over; Ctrl-C leaves it running. JSON: one object per line and change."""
    with session.client() as client:
        found = client.operations.GetOperation(pb.GetOperationRequest(operation_id=operation)).operation
        ended = follow(session, client, found, stream_json=True)
    conclude(session, ended, wanted=_as_asked(ended))


@app.command("cancel")
def cancel_operation(
    session: Session, operation: OperationArgument, wait: WaitOption = False, yes: YesOption = False
) -> None:
    """Ask a running operation to stop and undo what it did."""
    with session.client() as client:
        confirm(session, f"Cancel {operation} and undo what it did?", yes=yes)
        found = client.operations.CancelOperation(pb.CancelOperationRequest(operation_id=operation)).operation
        finish(session, client, found, wait=wait, wanted=pb.OPERATION_STATE_CANCELLED)


@app.command("retry")
def retry_operation(session: Session, operation: OperationArgument, wait: WaitOption = True) -> None:
    """Carry a failed operation on; steps that are done are not repeated."""
    with session.client() as client:
        found = client.operations.RetryOperation(pb.RetryOperationRequest(operation_id=operation)).operation
        finish(session, client, found, wait=wait)


@app.command("abandon")
def abandon_operation(session: Session, operation: OperationArgument, yes: YesOption = False) -> None:
    """Give a failed operation up and free its cluster for other operations."""
    with session.client() as client:
        confirm(session, f"Give {operation} up? What it made stays until the cluster is deleted.", yes=yes)
        found = client.operations.AbandonOperation(pb.AbandonOperationRequest(operation_id=operation)).operation
    session.answer(found, lambda: f"Operation {found.id} abandoned; cluster {safe(found.cluster_name)} is free.")


def _as_asked(operation: Operation) -> OperationState.ValueType:
    return pb.OPERATION_STATE_CANCELLED if operation.cancel_requested else pb.OPERATION_STATE_SUCCEEDED


def _facts(one: Operation) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [
        ("Operation", one.id),
        ("Kind", word(OperationKind.DESCRIPTOR, one.kind).replace("_", " ")),
        ("Cluster", f"{one.cluster_name} ({one.cluster_id})"),
        ("State", state(word(OperationState.DESCRIPTOR, one.state))),
        ("Now", one.summary),
        ("Asked by", one.actor),
        ("Created", moment(one.create_time)),
        ("Took", between(one.start_time, one.end_time)),
        ("Steps", f"{one.steps_done} of {one.steps_total}"),
        ("Attempt", str(one.attempt)),
    ]
    if one.HasField("failure"):
        rows.append(("Failure", Text(safe(failure_text(one.failure)), style="red")))
    return facts([*rows, ("", "")])


def _steps(one: Operation) -> RenderableType:
    rows = []
    for step in one.steps:
        mark, style = MARKS.get(step.state, ("?", ""))
        told = failure_text(step.failure) if step.HasField("failure") else step.detail
        told = f"waits for {step.waiting_for}" if step.waiting_for else told
        title = f"Undo: {step.plan.title}" if step.undo else step.plan.title
        rows.append((Text(mark, style=style), title, between(step.start_time, step.end_time), str(step.attempt), told))
    return table(("", "STEP", ">TOOK", ">ATTEMPT", "DETAIL"), rows, empty="No steps.")
