"""Tables whose rows change one by one, and what stands there while there are none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from console.design import ICONS
from console.parts.markup import Child, Html, box, change, h, joined, show


@dataclass(frozen=True)
class Column:
    """A column's title and its classes ("num", "wide-only")."""

    title: str
    classes: str = ""


class Table:
    """Rows by key. Only rows that changed are sent to the browser; `actions` puts buttons at the end of a row, once."""

    def __init__(
        self,
        columns: Sequence[Column],
        html_id: str,
        label: str,
        nothing: Html,
        actions: Callable[[str], None] | None = None,
    ) -> None:
        self._columns = columns
        self._actions = actions
        self._rows: dict[str, _Row] = {}
        with box("panel table-panel"):
            with box("table", "table", id=html_id, aria_label=label):
                heads = [h("th", one.title, scope="col", class_=one.classes or None) for one in columns]
                if actions is not None:
                    heads.append(h("th", h("span", "Actions", class_="offscreen"), scope="col"))
                show(h("tr", joined(heads)), "thead")
                self._body = box(tag="tbody")
            self._loading = show(skeleton(), classes="loading").props('role="status" aria-label="Loading"')
            self._nothing = show(nothing, classes="nothing")
        self._nothing.set_visibility(False)

    def update(self, rows: Mapping[str, Sequence[Child]]) -> None:
        """Show these rows, each a value per column, in this order."""
        self._loading.set_visibility(False)
        self._nothing.set_visibility(not rows)
        for key in [key for key in self._rows if key not in rows]:
            self._rows.pop(key).element.delete()
        for position, (key, cells) in enumerate(rows.items()):
            if key not in self._rows:
                with self._body:
                    self._rows[key] = self._new_row(key, cells)
            row = self._rows[key]
            row.update(cells)
            if self._body.default_slot.children.index(row.element) != position:
                row.element.move(target_index=position)

    def _new_row(self, key: str, cells: Sequence[Child]) -> "_Row":
        return (
            _PlainRow(self._columns, cells)
            if self._actions is None
            else _ActingRow(self._columns, cells, key, self._actions)
        )


class _PlainRow:
    """One piece of markup: cheap enough for hundreds of rows."""

    def __init__(self, columns: Sequence[Column], cells: Sequence[Child]) -> None:
        self._columns = columns
        self.element = show(self._markup(cells), "tr")

    def update(self, cells: Sequence[Child]) -> None:
        change(self.element, self._markup(cells))

    def _markup(self, cells: Sequence[Child]) -> Html:
        pairs = zip(self._columns, cells, strict=True)
        return joined(h("td", cell, class_=column.classes or None) for column, cell in pairs)


class _ActingRow:
    """A cell each, so that the buttons stay what they are when a value beside them changes."""

    def __init__(
        self, columns: Sequence[Column], cells: Sequence[Child], key: str, actions: Callable[[str], None]
    ) -> None:
        with box(tag="tr") as self.element:
            pairs = zip(columns, cells, strict=True)
            self._cells = [show(joined([cell]), "td", column.classes) for column, cell in pairs]
            with box("actions", "td"):
                actions(key)

    def update(self, cells: Sequence[Child]) -> None:
        for place, cell in zip(self._cells, cells, strict=True):
            change(place, joined([cell]))


_Row = _PlainRow | _ActingRow


def filter_field(table_id: str, label: str) -> Html:
    """A field that hides the rows without the words typed; works in the browser alone."""
    entry = h(
        "input",
        type="search",
        class_="entry",
        placeholder=label,
        aria_label=label,
        data_filter=table_id,
        autocomplete="off",
    )
    return h("div", ICONS["search"], entry, h("kbd", "/", aria_hidden="true"), class_="search")


def empty(icon: str, title: str, text: str, action: Html | None = None) -> Html:
    """What a table says while it has no rows."""
    return joined([h("span", ICONS[icon], class_="big"), h("h2", title), h("p", text, class_="muted"), action])


def skeleton(rows: int = 4) -> Html:
    """Grey bars where rows will be."""
    return joined(h("div", h("i"), h("i"), class_="skeleton", aria_hidden="true") for _ in range(rows))
