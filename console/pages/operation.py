"""One operation, live: what it does now, every step it took, and what a person can do about it."""

from nicegui import ui
from wap.control.v1 import operation_pb2 as op
from wap.control.v1.operation_pb2 import Operation, OperationKind, OperationState
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.client import is_resting
from console.frame import heading, loading
from console.pages.clusters import figure
from console.pages.topics import watch_operation
from console.parts.controls import Dialog, button
from console.parts.failures import failure_panel
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.tables import skeleton
from console.parts.timeline import timeline
from console.parts.words import at, elapsed, pill, sentence, tag, word
from console.view import View

RUNNING = (op.OPERATION_STATE_QUEUED, op.OPERATION_STATE_RUNNING)


async def build(view: View) -> None:
    """Fill the page."""
    operation_id = view.parameter("operation_id")
    async with loading(view):
        reply = await view.api.operations.GetOperation(op.GetOperationRequest(operation_id=operation_id))
    page = _OperationPage(view, reply.operation)
    view.follow(("operation", operation_id), lambda: watch_operation(view.api, operation_id), page.update)


def title_of(operation: Operation) -> str:
    """ "Create cluster orders"."""
    kind = sentence(word(OperationKind.DESCRIPTOR, operation.kind).replace("_", " "))
    return f"{kind} {operation.cluster_name}"


def state_of(operation: Operation) -> str:
    """The state in one word."""
    return word(OperationState.DESCRIPTOR, operation.state)


class _OperationPage:
    def __init__(self, view: View, operation: Operation) -> None:
        self._view = view
        self._id = operation.id
        ui.page_title(f"{title_of(operation)} · WAP")
        with box("head-row"):
            with box("stack"):
                heading(title_of(operation), crumbs=(("Operations", "/operations"),))
                self._facts = show(Html(""), classes="facts-row")
            with box("buttons") as self._buttons:
                self._add_buttons(operation)
        self._banner = show(Html(""))
        self._figures = show(Html(""), classes="figures")
        with box("panel"):
            show(h("h2", "Steps"), classes="panel-head")
            self._timeline = show(skeleton())
        self._cancel_dialog = self._cancel_question()
        self._abandon_dialog = self._abandon_question()
        self.update(operation)

    def update(self, operation: Operation) -> None:
        """Show the operation as it is now."""
        change(self._facts, _facts(operation))
        change(self._figures, _figures(operation))
        change(self._timeline, timeline(operation))
        change(self._banner, _banner(operation))
        may_act = self._view.session.role_in(operation.project_id) >= ACCESS_ROLE_OPERATOR
        cancellable = operation.state in RUNNING and operation.kind != op.OPERATION_KIND_DELETE_CLUSTER
        self._cancel.set_visibility(may_act and cancellable and not operation.cancel_requested)
        failed = operation.state == op.OPERATION_STATE_FAILED
        self._retry.set_visibility(may_act and failed)
        self._abandon.set_visibility(may_act and failed)

    def _add_buttons(self, operation: Operation) -> None:
        view = self._view
        show(h("a", "Open cluster", href=f"/clusters/{operation.cluster_id}", class_="button"), classes="contents")
        self._cancel = button(view, "Cancel", lambda: self._cancel_dialog.open(), icon="stop", mark="cancel")
        self._abandon = button(view, "Abandon", lambda: self._abandon_dialog.open(), kind="danger", mark="abandon")
        self._retry = button(view, "Retry", self._do_retry, kind="primary", icon="retry", mark="retry")

    async def _do_retry(self) -> None:
        await self._view.api.operations.RetryOperation(op.RetryOperationRequest(operation_id=self._id))
        self.update(await self._current())

    async def _do_cancel(self) -> None:
        with self._view.errors_to(self._cancel_dialog.complain):
            await self._view.api.operations.CancelOperation(op.CancelOperationRequest(operation_id=self._id))
        self._cancel_dialog.close()
        self.update(await self._current())

    async def _do_abandon(self) -> None:
        with self._view.errors_to(self._abandon_dialog.complain):
            await self._view.api.operations.AbandonOperation(op.AbandonOperationRequest(operation_id=self._id))
        self._abandon_dialog.close()
        self.update(await self._current())

    async def _current(self) -> Operation:
        reply = await self._view.api.operations.GetOperation(op.GetOperationRequest(operation_id=self._id))
        found: Operation = reply.operation
        return found

    def _cancel_question(self) -> Dialog:
        dialog = Dialog("Cancel this operation?", mark="cancel-dialog")
        with dialog.body:
            show(
                h(
                    "p",
                    "Running steps end first. Then WAP undoes what was done: machines, volumes and network made for it go.",
                )
            )
        with dialog.foot:
            button(self._view, "Keep running", dialog.close)
            button(self._view, "Cancel operation", self._do_cancel, kind="danger-solid", mark="confirm-cancel")
        return dialog

    def _abandon_question(self) -> Dialog:
        dialog = Dialog("Abandon this operation?", mark="abandon-dialog")
        with dialog.body:
            words = "It stays as it is and cannot be retried. The cluster is free for other operations, for example a delete."
            show(h("p", words))
        with dialog.foot:
            button(self._view, "Keep it", dialog.close)
            button(self._view, "Abandon operation", self._do_abandon, kind="danger-solid", mark="confirm-abandon")
        return dialog


def _facts(operation: Operation) -> Html:
    cluster = h("a", operation.cluster_name, href=f"/clusters/{operation.cluster_id}", class_="tag")
    return joined(
        [pill(state_of(operation)), cluster, h("span", operation.id, class_="tag mono"), _attempts(operation)]
    )


def _attempts(operation: Operation) -> Html | None:
    return tag(f"attempt {operation.attempt}") if operation.attempt > 1 else None


def _figures(operation: Operation) -> Html:
    total = max(operation.steps_total, 1)
    bar = h("span", h("i", class_="brand", style=f"width:{100 * operation.steps_done / total:.0f}%"), class_="meter")
    progress = h("span", h("span", f"{operation.steps_done} / {operation.steps_total}"), bar, class_="gauge")
    running = not is_resting(operation)
    ended = operation.end_time if not running else type(operation.end_time)()
    return joined(
        [
            figure("Steps done", progress),
            figure("Time", elapsed(operation.start_time, ended)),
            figure("Asked for by", operation.actor.removeprefix("user:")),
            figure("Started", at(operation.create_time)),
        ]
    )


def _banner(operation: Operation) -> Html:
    if operation.state == op.OPERATION_STATE_FAILED and operation.HasField("failure"):
        return failure_panel(operation.failure)
    if operation.state in (*RUNNING, op.OPERATION_STATE_CANCELLING):
        waiting = [step for step in operation.steps if step.state == op.STEP_STATE_RUNNING and step.waiting_for]
        text = operation.summary or "Running"
        if waiting:
            text = f"{text}, waiting for {waiting[0].waiting_for}"
        words = h("div", h("span", "Cancelling: " if operation.cancel_requested else "", text))
        return h("div", h("span", class_="spinner", aria_hidden="true"), words, class_="notice busy", role="status")
    return Html("")
