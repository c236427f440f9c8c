"""A line as small as a word: how something went lately, and its newest value."""

from collections.abc import Sequence
from itertools import groupby

from console.parts.markup import Html, h, joined

WIDTH, HEIGHT, EDGE = 96.0, 24.0, 2.0

NOT_KNOWN = h("span", "\N{EN DASH}", class_="muted")


def sparkline(values: Sequence[float | None], label: str, *, percent: bool = False) -> Html:
    """The line of evenly spaced values, gaps left open. Per cent are drawn on 0 to 100, others on 0 to their highest."""
    known = [value for value in values if value is not None]
    if not known:
        return NOT_KNOWN
    newest = f"{known[-1]:.0f} %" if percent else short(known[-1])
    top = 100.0 if percent else max(*known, 1e-9)
    points = [(place, value) for place, value in enumerate(values)]
    lines = [
        _line(list(run), len(values), top)
        for has_value, run in groupby(points, key=lambda point: point[1] is not None)
        if has_value
    ]
    picture = h(
        "svg",
        joined(lines),
        class_="spark",
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        aria_hidden="true",
        focusable="false",
    )
    title = f"{label}: now {newest}"
    return h(
        "span", picture, h("span", newest, class_="num"), class_="spark-cell", title=title, role="img", aria_label=title
    )


def newest(values: Sequence[float | None]) -> Html:
    """The last value alone."""
    known = [value for value in values if value is not None]
    return h("span", short(known[-1]), class_="num") if known else NOT_KNOWN


def short(value: float) -> str:
    """ "7,015", "351 k": a number in a few characters."""
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e5 else f"{value:,.0f}"


def _line(run: Sequence[tuple[int, float | None]], count: int, top: float) -> Html:
    apart = WIDTH / max(1, count - 1)
    places = [
        f"{place * apart:.1f},{HEIGHT - EDGE - (value or 0.0) / top * (HEIGHT - 2 * EDGE):.1f}" for place, value in run
    ]
    return h("polyline", points=" ".join(places))
