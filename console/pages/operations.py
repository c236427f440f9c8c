"""All operations, newest first, live."""

from collections.abc import Callable, Sequence

from wap.control.v1.operation_pb2 import Operation

from console.client import is_resting
from console.frame import heading
from console.pages.operation import state_of, title_of
from console.pages.topics import watch_operations
from console.parts.markup import Child, Html, box, h, joined, show
from console.parts.tables import Column, Table, empty, filter_field
from console.parts.words import elapsed, pill, since
from console.view import View

COLUMNS = (
    Column("Operation", "named"),
    Column("State"),
    Column("Progress"),
    Column("Asked for by", "wide-only"),
    Column("Started", "wide-only muted"),
    Column("Time", "num"),
)


async def build(view: View) -> None:
    """Fill the page."""
    heading("Operations", "Every change of a cluster, step by step")
    with box("tools"):
        show(filter_field("operations", "Filter by cluster, state, person"))
    update = operation_table("No operations yet")
    await view.connected()
    view.follow("operations", lambda: watch_operations(view.api), update)


def operation_table(nothing: str) -> Callable[[Sequence[Operation]], None]:
    """A table of operations; returns what shows new rows in it."""
    words = "Creating or deleting a cluster appears here, with what it does and waits for."
    table = Table(COLUMNS, "operations", "Operations", empty("operations", nothing, words))

    def update(operations: Sequence[Operation]) -> None:
        table.update({one.id: _row(one) for one in operations})

    return update


def _row(operation: Operation) -> Sequence[Child]:
    link = h("a", title_of(operation), href=f"/operations/{operation.id}", class_="row-link")
    told = operation.failure.message or operation.summary
    ended = operation.end_time if is_resting(operation) else type(operation.end_time)()
    return (
        joined([link, h("div", told, class_="small muted") if told else None]),
        pill(state_of(operation)),
        _progress(operation),
        operation.actor.removeprefix("user:"),
        since(operation.create_time),
        elapsed(operation.start_time, ended),
    )


def _progress(operation: Operation) -> Html:
    percent = 100 * operation.steps_done / max(operation.steps_total, 1)
    text = h("span", f"{operation.steps_done} / {operation.steps_total}", class_="num")
    bar = h("span", h("i", class_="brand", style=f"width:{percent:.0f}%"), class_="meter", aria_hidden="true")
    return h("span", text, bar, class_="gauge")
