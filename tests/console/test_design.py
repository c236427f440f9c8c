"""The look: text that can be read in both themes, states that are told in words, files that an installed copy has too."""

import itertools
import re

import pytest

from console.design import ICONS, STATIC, TONES
from console.parts.words import pill

SHEET = (STATIC / "console.css").read_text()
TEXTS = ("text", "muted", "faint", "brand", "good", "busy", "caution", "bad")
SURFACES = ("ground", "surface", "raised")
PAIRS = [
    *itertools.product(TEXTS, SURFACES),
    *((tone, f"{tone}-soft") for tone in ("good", "busy", "caution", "bad", "quiet")),
    ("on-brand", "brand"),
    ("on-bad", "bad-strong"),
]


def tokens(theme: str) -> dict[str, str]:
    """Token -> colour in one theme."""
    light, dark = re.findall(r':root(?:\[data-theme="dark"\])? \{(.*?)\n\}', SHEET, re.DOTALL)[:2]
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
    return found | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark)) if theme == "dark" else found


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2 for two colours "#rrggbb"."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    def linear(part: int) -> float:
        share = part / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[index : index + 2], 16)) for index in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " on ".join(pair))
def test_text_has_enough_contrast(theme: str, pair: tuple[str, str]) -> None:
    colours = tokens(theme)
    assert contrast(colours[pair[0]], colours[pair[1]]) >= 4.5


def test_contrast_is_measured() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#8592a6", "#ffffff") < 4.5


def test_a_state_is_a_word_and_not_only_a_colour() -> None:
    assert all(">" + word[0].upper() + word[1:].lower() in pill(word) for word in TONES)


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in STATIC.rglob("*.[cj]s*"):
        assert not re.findall(r"https?://", path.read_text())
    for name in re.findall(r"url\(\"([^\"]+)\"\)", SHEET):
        assert (STATIC / name).is_file()
    assert (STATIC / "fonts" / "LICENSE-inter.txt").is_file()


def test_icons_are_hidden_from_screen_readers() -> None:
    assert all('aria-hidden="true"' in icon for icon in ICONS.values())
