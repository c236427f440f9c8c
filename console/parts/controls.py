"""Buttons, fields, choices and dialogs. Each one that acts takes a handler and puts it behind `View.authorised`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nicegui import ui

from console.design import ICONS
from console.parts.markup import Html, box, change, h, joined, show
from console.view import Handler, View


def button(
    view: View,
    label: str,
    handler: Handler,
    *,
    kind: str = "",
    icon: str = "",
    mark: str = "",
    about: str = "",
) -> ui.element:
    """A button; `kind` is "primary", "danger", "quiet" or ""; `about` names it where the label alone says too little."""
    element = box(f"button {kind}".strip(), "button", type="button")
    if about:
        element.props["aria-label"] = about
    with element:
        show(joined([ICONS[icon] if icon else None, h("span", label)]), "span", "face")
    element.on("click", view.authorised(handler, busy=element))
    return element.mark(mark or label)


def link_button(label: str, target: str, *, kind: str = "", icon: str = "") -> Html:
    """A link that looks like a button: for what only opens a page."""
    return h("a", ICONS[icon] if icon else None, h("span", label), href=target, class_=f"button {kind}".strip())


def field(label: str, *, hint: str = "", mark: str, value: str = "", secret: bool = False, kind: str = "") -> ui.input:
    """A text field with its label above; `kind` is the value of autocomplete."""
    with box("field"):
        with box("label", "label"):
            show(h("span", label), "span")
        entry = ui.input(value=value, password=secret, placeholder="")
        entry.props("outlined dense no-error-icon hide-bottom-space spellcheck=false autocapitalize=off")
        entry.props["aria-label"] = label
        entry.props["autocomplete"] = kind or "off"
        if hint:
            show(h("p", hint), classes="hint")
    return entry.mark(mark)


def select(
    view: View, label: str, options: Mapping[str, str], chosen: str, on_choice: Handler, *, mark: str
) -> ui.select:
    """A field that opens a list: value -> what to call it. `on_choice` is called after each change."""
    with box("field"):
        with box("label", "label"):
            show(h("span", label), "span")
        entry = ui.select(dict(options), value=chosen if chosen in options else None)
        entry.props("outlined dense options-dense no-error-icon hide-bottom-space")
        entry.props["aria-label"] = label
        entry.on("update:model-value", view.authorised(on_choice))
    return entry.mark(mark)


def number(
    label: str, value: float | None, *, unit: str = "", hint: str = "", mark: str, precision: int | None = None
) -> ui.number:
    """A field for a number, with its unit at the end."""
    with box("field"):
        with box("label", "label"):
            show(h("span", label), "span")
        entry = ui.number(value=value, precision=precision)
        entry.props("outlined dense hide-bottom-space")
        entry.props["aria-label"] = f"{label} in {unit}" if unit else label
        if unit:
            entry.props["suffix"] = unit
        if hint:
            show(h("p", hint), classes="hint")
    return entry.mark(mark)


@dataclass(frozen=True)
class Option:
    """One of several: `value` for the program, the rest for people."""

    value: str
    title: str
    note: str = ""


class Choice:
    """One of several cards (or short segments); `chosen` is its value. Works as a group of radio buttons."""

    def __init__(
        self,
        view: View,
        label: str,
        options: Sequence[Option],
        chosen: str,
        on_choice: Callable[[], None],
        *,
        look: str = "cards",
        mark: str,
    ) -> None:
        self.chosen = chosen
        self._on_choice = on_choice
        self._faces: dict[str, ui.element] = {}
        with box("field"):
            show(h("span", label), "div", "label")
            with box(look, role="radiogroup", aria_label=label):
                for option in options:
                    self._add(view, option, f"{mark}:{option.value}")
        self._paint()

    def _add(self, view: View, option: Option, mark: str) -> None:
        element = box("choice", "button", type="button", role="radio").mark(mark)
        note = h("span", option.note, class_="note") if option.note else None
        with element:
            show(joined([h("span", option.title, class_="title"), note]), "span", "stack")
        element.on("click", view.authorised(lambda: self._choose(option.value)))
        self._faces[option.value] = element

    def choose(self, value: str) -> None:
        """Show another choice, without telling anybody."""
        self.chosen = value
        self._paint()

    def _choose(self, value: str) -> None:
        self.choose(value)
        self._on_choice()

    def _paint(self) -> None:
        for value, element in self._faces.items():
            here = value == self.chosen
            element.props["aria-checked"] = "true" if here else "false"
            element.props["tabindex"] = "0" if here else "-1"


class Choices:
    """Any of several; `chosen` are the values in the order given."""

    def __init__(
        self,
        view: View,
        label: str,
        options: Sequence[Option],
        chosen: Sequence[str],
        on_choice: Callable[[], None],
        mark: str,
    ) -> None:
        self._every = [option.value for option in options]
        self._chosen = set(chosen)
        self._on_choice = on_choice
        self._faces: dict[str, ui.element] = {}
        with box("field"):
            show(h("span", label), "div", "label")
            with box("segments", role="group", aria_label=label):
                for option in options:
                    element = box("choice", "button", type="button", role="checkbox").mark(f"{mark}:{option.value}")
                    with element:
                        show(h("span", option.title, class_="title"), "span", "stack")
                    element.on("click", view.authorised(functools.partial(self._toggle, option.value)))
                    self._faces[option.value] = element
        self._paint()

    @property
    def chosen(self) -> list[str]:
        """The values that are on."""
        return [value for value in self._every if value in self._chosen]

    def _toggle(self, value: str) -> None:
        self._chosen ^= {value}
        self._paint()
        self._on_choice()

    def _paint(self) -> None:
        for value, element in self._faces.items():
            element.props["aria-checked"] = "true" if value in self._chosen else "false"


class Dialog:
    """A question in front of the page. Enter its body with `with dialog.body:`; `open` and `close` do what they say."""

    def __init__(self, title: str, *, mark: str, wide: bool = False) -> None:
        with (
            ui.dialog() as self._dialog,
            box("dialog wide" if wide else "dialog", role="dialog", aria_label=title).mark(mark),
        ):
            show(h("h2", title), "div", "dialog-title")
            self.body = box("dialog-body")
            self._error = show(Html(""), classes="dialog-error")
            self.foot = box("dialog-foot")
        self._error.set_visibility(False)

    def open(self) -> None:
        """Ask."""
        self._error.set_visibility(False)
        self._dialog.open()

    def close(self) -> None:
        """Put it away."""
        self._dialog.close()

    def complain(self, markup: Html) -> None:
        """Show why it did not work, in the dialog."""
        change(self._error, markup)
        self._error.set_visibility(True)


class Once:
    """A secret that is shown one time."""

    def __init__(self, title: str, text: str, view: View) -> None:
        self._dialog = Dialog(title, mark="secret-dialog")
        with self._dialog.body:
            show(h("p", text))
            self._shown: ui.html = show(Html(""))
        with self._dialog.foot:
            button(view, "Done", self._forget, kind="primary", mark="secret-done")

    def reveal(self, secret: str) -> None:
        """Show it until the person is done."""
        code = h("code", secret, id="secret-once", class_="mono")
        change(self._shown, h("div", code, copyable("the secret", "secret-once"), class_="secret"))
        self._dialog.open()

    def _forget(self) -> None:
        change(self._shown, Html(""))
        self._dialog.close()


def copyable(label: str, target_id: str) -> Html:
    """A button that copies the text of the element with this id; works without the server."""
    return h(
        "button",
        ICONS["copy"],
        h("span", "Copy", data_label="yes"),
        type="button",
        class_="button small copy",
        data_copy=target_id,
        aria_label=f"Copy {label}",
    )
