"""An operation on the terminal: a live bar with what it waits for, or one line per step where nobody looks live."""

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from wap.control.v1 import operation_pb2 as pb
from wap.control.v1.operation_pb2 import Operation, OperationKind, OperationState, Step
from wap.type.v1.failure_pb2 import Failure, FailureCode

from console.cli.failures import FAILED, INTERRUPTED, CommandError
from console.cli.session import Session, as_dict
from console.cli.text import between, safe, word
from console.client import Client

VERBS = {pb.OPERATION_KIND_CREATE_CLUSTER: "Creating", pb.OPERATION_KIND_DELETE_CLUSTER: "Deleting"}

MARKS = {
    pb.STEP_STATE_PENDING: ("·", "dim"),
    pb.STEP_STATE_RUNNING: ("▸", "cyan"),
    pb.STEP_STATE_SUCCEEDED: ("✓", "green"),
    pb.STEP_STATE_FAILED: ("✗", "red"),
    pb.STEP_STATE_SKIPPED: ("-", "dim"),
}


def finish(
    session: Session,
    client: Client,
    operation: Operation,
    *,
    wait: bool,
    wanted: OperationState.ValueType = pb.OPERATION_STATE_SUCCEEDED,
) -> None:
    """End a command that opened or steered an operation: follow it, or say how to; exit code 1 unless it ends as wanted."""
    if wait:
        operation = follow(session, client, operation)
    if session.json:
        session.print_json(as_dict(operation))
    if wait:
        conclude(session, operation, wanted=wanted)
    else:
        session.say(f"Operation {operation.id} goes on; follow it with: wap operation watch {operation.id}")


def follow(session: Session, client: Client, operation: Operation, *, stream_json: bool = False) -> Operation:
    """Show the operation until it rests and return it. Ctrl-C leaves it running and says so (exit code 130).

    With `stream_json` a program gets one JSON object per line and change; otherwise it sees nothing here.
    """
    try:
        if session.json:
            return client.wait(operation.id, _json_line(session) if stream_json else None)
        if session.err.is_terminal:
            return _follow_live(session, client, operation)
        return client.wait(operation.id, _Lines(session).show)
    except KeyboardInterrupt:
        raise CommandError(
            f"Stopped watching; the operation {operation.id} goes on.",
            f"Watch it again: wap operation watch {operation.id} · Cancel it: wap operation cancel {operation.id}",
            exit_code=INTERRUPTED,
            reason="INTERRUPTED",
        ) from None


def conclude(
    session: Session, operation: Operation, *, wanted: OperationState.ValueType = pb.OPERATION_STATE_SUCCEEDED
) -> None:
    """End the command by the operation's state; raises with exit code 1 unless it is the wanted one."""
    if operation.state == wanted:
        session.say(f"{headline(operation)}: {word(OperationState.DESCRIPTOR, operation.state)}.", "green")
        return
    state = word(OperationState.DESCRIPTOR, operation.state)
    hint = ""
    if operation.state == pb.OPERATION_STATE_FAILED:
        hint = f"wap operation retry {operation.id}   or   wap operation abandon {operation.id}"
    why = f": {failure_text(operation.failure)}" if operation.HasField("failure") else ""
    raise CommandError(
        f"Operation {operation.id} {state}{why}", hint, exit_code=FAILED, reason=f"OPERATION_{state.upper()}"
    )


def headline(operation: Operation) -> str:
    """ "create cluster demo"."""
    kind = word(OperationKind.DESCRIPTOR, operation.kind).replace("_", " ")
    return f"{kind.capitalize()} {operation.cluster_name}"


def failure_text(failure: Failure) -> str:
    """The failure in one line, with field, given and allowed where they are known."""
    told = [("field", failure.field), ("given", failure.given), ("allowed", failure.allowed)]
    extra = ", ".join(f"{name}: {value}" for name, value in told if value)
    reason = word(FailureCode.DESCRIPTOR, failure.code).upper()
    return f"{failure.message} [{reason}]" + (f" ({extra})" if extra else "")


def _json_line(session: Session) -> Callable[[Operation], None]:
    def show(operation: Operation) -> None:
        session.print_json(as_dict(operation), indent=None)

    return show


def _follow_live(session: Session, client: Client, operation: Operation) -> Operation:
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        console=session.err,
    )
    task = progress.add_task("", total=None)
    view = _View(progress)
    with Live(view, console=session.err, refresh_per_second=8):

        def show(changed: Operation) -> None:
            verb = VERBS.get(changed.kind, "Changing")
            if changed.cancel_requested:
                verb = "Undoing"
            progress.update(
                task,
                description=f"{verb} {safe(changed.cluster_name)}",
                total=changed.steps_total or None,
                completed=changed.steps_done,
            )
            view.operation = changed

        return client.wait(operation.id, show)


class _View:
    """The bar and, below it, the steps that run right now."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner = Spinner("dots", style="cyan")
        self.operation = Operation()

    def __rich__(self) -> RenderableType:
        lines = Table.grid(padding=(0, 1, 0, 0))
        for step in self.operation.steps:
            if step.state == pb.STEP_STATE_RUNNING:
                lines.add_row(self._spinner, Text(safe(step.plan.title)), Text(_waiting(step), style="dim"))
        return Group(self._progress, lines)


class _Lines:
    """One line per step that began to wait, ended or failed: for logs and pipes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told: dict[str, int] = {}

    def show(self, operation: Operation) -> None:
        """Print what is new."""
        for step in operation.steps:
            if self._told.get(step.plan.name) == step.state or step.state == pb.STEP_STATE_PENDING:
                continue
            self._told[step.plan.name] = step.state
            if step.state == pb.STEP_STATE_SKIPPED:
                continue
            mark, _ = MARKS.get(step.state, ("?", ""))
            count = f"[{operation.steps_done}/{operation.steps_total}]"
            self._session.warn(f"{count} {mark} {step.plan.title}{_ending(step)}")


def _waiting(step: Step) -> str:
    waits = f"waits for {safe(step.waiting_for)} · " if step.waiting_for else ""
    again = f" · attempt {step.attempt}" if step.attempt > 1 else ""
    return f"{waits}{between(step.start_time, step.end_time)}{again}"


def _ending(step: Step) -> str:
    if step.state == pb.STEP_STATE_FAILED:
        return f": {failure_text(step.failure)}"
    if step.state == pb.STEP_STATE_RUNNING:
        return f" (waits for {step.waiting_for})" if step.waiting_for else ""
    return f" ({between(step.start_time, step.end_time)})"
