"""Values, spans of time and curves as text."""

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from console.cli.failures import CommandError

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
BLOCKS = "▁▂▃▄▅▆▇█"
LastOption = Annotated[str, typer.Option("--last", metavar="SPAN", help='How far back: "30m", "6h", "7d".')]


def seconds_of(text: str, option: str) -> float:
    """Seconds in "90s", "15m", "6h", "7d" or "2w"."""
    found = SPAN.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise CommandError(f"{option} {text} is no span of time.", 'Give a number and s, m, h, d or w: "6h".')
    return float(found[1]) * SECONDS[found[2]]


def quantity(value: float, unit: str) -> str:
    """A value with its unit, in few digits: "12.5 %", "3.2 GiB", "140 /s"."""
    if unit in ("bytes", "bytes/s", "bytes/h"):
        return _bytes(value) + unit.removeprefix("bytes")
    short = {"percent": " %", "seconds": " s", "1/s": " /s", "": ""}.get(unit, f" {unit}")
    return f"{_digits(value)}{short}"


def _bytes(value: float) -> str:
    for name in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{_digits(value)} {name}"
        value /= 1024
    return f"{_digits(value)} TiB"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def curve(values: Sequence[float | None], width: int = 40) -> str:
    """The values as blocks of rising height, oldest first; a gap stays empty."""
    if not values:
        return ""
    cells: list[float | None] = []
    for index in range(min(width, len(values))):
        part = values[
            index * len(values) // min(width, len(values)) : (index + 1) * len(values) // min(width, len(values))
        ]
        known = [value for value in part if value is not None]
        cells.append(sum(known) / len(known) if known else None)
    known = [cell for cell in cells if cell is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(" " if cell is None else _block(cell, low, high) for cell in cells)


def _block(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]
