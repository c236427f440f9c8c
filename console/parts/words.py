"""States, times, sizes and money as markup. A time is written once and goes on by itself in the browser."""

import time
from collections.abc import Iterable

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from console.cli.text import ago, between, duration, moment, usd
from console.cli.text import word as _word
from console.design import tone
from console.parts.markup import Child, Html, h, joined

GIB = 2**30


def word(enum: EnumDescriptor, number: int) -> str:
    """ "available" for CLUSTER_STATE_AVAILABLE; empty for 0."""
    return _word(enum, number) if number else ""


def sentence(text: str) -> str:
    """The same with a capital first letter."""
    return text[:1].upper() + text[1:]


def pill(state: str) -> Html:
    """A state with its dot."""
    label = sentence(state.lower()) if state.isupper() else sentence(state)
    return h("span", label or "Unknown", class_=f"pill {tone(state)}")


def tag(text: str) -> Html:
    """A small fact beside a title."""
    return h("span", text, class_="tag")


def since(stamp: Timestamp) -> Html:
    """How long ago; goes on by itself."""
    if not stamp.seconds:
        return h("span", "\N{EN DASH}", class_="muted")
    return h("time", ago(stamp), data_moment=stamp.seconds, datetime=moment(stamp))


def at(stamp: Timestamp) -> Html:
    """A moment, in the reader's own time zone."""
    if not stamp.seconds:
        return h("span", "\N{EN DASH}", class_="muted")
    return h("time", moment(stamp), data_stamp=stamp.seconds, datetime=moment(stamp))


def elapsed(start: Timestamp, end: Timestamp) -> Html:
    """From start to end; where there is no end yet it goes on by itself."""
    if not start.seconds:
        return h("span", "\N{EN DASH}", class_="muted")
    if end.seconds:
        return h("span", between(start, end), class_="num")
    return h("span", duration(time.time() - start.seconds), class_="num", data_since=seconds(start))


def seconds(stamp: Timestamp) -> float:
    """Seconds since the epoch, with fractions; 0 where it is not set."""
    return stamp.seconds + round(stamp.nanos / 1e9, 3)


def money(amount: float) -> str:
    """ "$215" or "$215.40": cents only where they say something."""
    return usd(amount).removesuffix(".00")


def size(size_bytes: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, name in ((2**40, "TiB"), (GIB, "GiB"), (2**20, "MiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{size_bytes / 1024:.0f} KiB"


def share(used: float, total: float) -> float | None:
    """Per cent; None where the total is not known."""
    return 100 * used / total if total else None


def meter(percent: float | None, label: str) -> Html:
    """A bar of so many per cent. `label` says what it measures, for those who do not see it."""
    if percent is None:
        return h("span", class_="meter", aria_hidden="true")
    level = "bad" if percent >= 90 else "caution" if percent >= 75 else "brand"
    fill = h("i", class_=level, style=f"width:{min(100.0, percent):.0f}%")
    return h(
        "span",
        fill,
        class_="meter",
        role="meter",
        aria_label=label,
        aria_valuenow=round(percent),
        aria_valuemin=0,
        aria_valuemax=100,
    )


def per_cent(percent: float | None) -> str:
    """ "23 %"."""
    return "\N{EN DASH}" if percent is None else f"{percent:.0f} %"


def zone_list(zones: Iterable[str]) -> Html:
    """Zones with commas; a line never ends inside of one."""
    every: list[Child] = []
    for zone in zones:
        every += [", "] if every else []
        every.append(h("span", zone, class_="nowrap"))
    return joined(every)


def grouped(number: float) -> str:
    """ "41,200,000"."""
    return f"{number:,.0f}"


def time_spent(length: Duration) -> str:
    """ "850 ms", "14.2 s", "3 min": a duration in the unit that suits it."""
    spent = length.seconds + length.nanos / 1e9
    if spent < 1:
        return f"{spent * 1000:.0f} ms"
    return f"{spent:.1f} s" if spent < 120 else duration(spent)


def measured(value: float, unit: str) -> str:
    """A value of a metric with its unit as the catalogue names it: "92.4 %", "1.5 GiB", "84 s"."""
    if unit == "bytes":
        return size(value)
    if unit == "seconds":
        return f"{value:.3g} s" if abs(value) < 120 else duration(value)
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{shown} {'%' if unit == 'percent' else unit}".strip()


def count(number: int, one: str, many: str = "") -> str:
    """ "1 cluster", "2 clusters"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
