"""HTML that cannot be broken by values: text and attributes are escaped where they are put in, and nowhere else.

The rule this module guards: it is the only one that hands HTML to the browser, and it takes nothing but `Html`. Whatever
came over the wire (names, errors, host names) is a plain string, and a plain string becomes text.
"""

import html
from collections.abc import Iterable

from nicegui import ui

VOID = ("input", "br", "img", "meta")

Child = str | int | float | None


class Html(str):
    """Markup in which every value has been escaped. Made by `h` and `joined`; literals of our own may be wrapped."""

    __slots__ = ()


def h(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """One element. `class_` is "class", other underscores become "-"; False and None leave an attribute out."""
    told = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{told}>")
    return Html(f"<{tag}{told}>{joined(children)}</{tag}>")


def joined(children: Iterable[Child]) -> Html:
    """The children one after the other."""
    return Html("".join(_child(child) for child in children))


def show(markup: Html, tag: str = "div", classes: str = "") -> ui.html:
    """Put the markup into the page, inside an element of this tag."""
    if not isinstance(markup, Html):
        raise TypeError("only Html is shown; plain text goes through h()")
    return ui.html(markup, sanitize=False, tag=tag).classes(classes)


def change(element: ui.html, markup: Html) -> None:
    """Show other markup in the same place; the same markup again costs nothing."""
    if not isinstance(markup, Html):
        raise TypeError("only Html is shown; plain text goes through h()")
    if element.content != markup:
        element.set_content(markup)


def box(classes: str = "", tag: str = "div", **attributes: str) -> ui.element:
    """An empty element to put others into."""
    element = ui.element(tag).classes(classes)
    for name, value in attributes.items():
        element.props[name.rstrip("_").replace("_", "-")] = value
    return element


def _child(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Html) else html.escape(str(child))


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
