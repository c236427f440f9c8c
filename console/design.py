"""What the console looks like, in one place: the stylesheet with its tokens, the icons, and which state has which tone.

A tone is a meaning (good, busy, caution, bad, quiet), not a colour; the stylesheet gives it a colour in both themes. A tone
never stands alone: the word of the state is always beside it.
"""

from pathlib import Path

from console.parts.markup import Html, h

STATIC = Path(__file__).parent / "static"
"""Relative to this module, so that an installed wheel finds it too."""

HEAD = Html(
    '<link rel="stylesheet" href="/static/console.css">'
    '<link rel="preload" href="/static/fonts/inter.woff2" as="font" type="font/woff2" crossorigin>'
    # In the head and not deferred: it sets the theme before the first paint.
    '<script src="/static/console.js"></script>'
)

FAVICON = STATIC / "favicon.svg"

TONES = {
    "healthy": "good",
    "available": "good",
    "succeeded": "good",
    "connected": "good",
    "running": "busy",
    "active": "good",
    "ok": "good",
    "PRIMARY": "good",
    "SECONDARY": "good",
    "creating": "busy",
    "updating": "busy",
    "deleting": "busy",
    "queued": "busy",
    "cancelling": "busy",
    "waiting": "busy",
    "STARTUP": "busy",
    "firing": "bad",
    "acknowledged": "busy",
    "resolved": "good",
    "critical": "bad",
    "warning": "caution",
    "info": "quiet",
    "STARTUP2": "busy",
    "degraded": "caution",
    "silent": "caution",
    "unknown": "quiet",
    "unavailable": "bad",
    "failed": "bad",
    "banned": "bad",
    "disabled": "bad",
    "revoked": "quiet",
    "expired": "quiet",
    "abandoned": "caution",
    "cancelled": "quiet",
}

_SHAPES = {
    "clusters": '<circle cx="12" cy="5" r="2.4"/><circle cx="5" cy="18" r="2.4"/><circle cx="19" cy="18" r="2.4"/>'
    '<path d="M10.8 7.2 6.2 15.8M13.2 7.2l4.6 8.6M7.5 18h9"/>',
    "nodes": '<rect x="3.5" y="4" width="17" height="6.5" rx="1.6"/><rect x="3.5" y="13.5" width="17" height="6.5" rx="1.6"/>'
    '<path d="M7 7.25h.01M7 16.75h.01M11 7.25h6M11 16.75h6"/>',
    "operations": '<path d="M4 6.5 5.5 8 8 5M4 12.5 5.5 14 8 11M4 18.5 5.5 20 8 17M12 6.5h8M12 12.5h8M12 18.5h8"/>',
    "audit": '<path d="M4 5v5h5M4.6 14a8 8 0 1 0 .6-6.2L4 10M12 8v4.4l3 1.8"/>',
    "access": '<circle cx="8" cy="15" r="4"/><path d="m11 12 8.5-8.5M16 7l3 3"/>',
    "logs": '<rect x="4.5" y="3.5" width="15" height="17" rx="2"/><path d="M8 8h8M8 12h8M8 16h5"/>',
    "alerts": '<path d="M6 16.5V11a6 6 0 0 1 12 0v5.5l1.5 2h-15l1.5-2ZM10 21h4"/>',
    "rules": '<path d="M4 7h9M17 7h3M4 17h3M11 17h9"/><circle cx="15" cy="7" r="2"/><circle cx="9" cy="17" r="2"/>',
    "fleet": '<path d="M3.5 19.5h17M5.5 16l4-5 3.5 3 5.5-8"/>',
    "slow": '<path d="M4.5 17a8.5 8.5 0 1 1 15 0"/><path d="m12 14 4-4.5"/><circle cx="12" cy="14" r="1.2"/>',
    "mute": '<path d="M6 16.5V11c0-1 .2-1.900.6-2.700M9 5.800A6 6 0 0 1 18 11v3M4.500 18.500H16M10 21h4M4 4l16 16"/>',
    "plus": '<path d="M12 5v14M5 12h14"/>',
    "copy": '<rect x="9" y="9" width="11" height="11" rx="2"/>'
    '<path d="M5.5 15H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1h9a1 1 0 0 1 1 1v.5"/>',
    "check": '<path d="m5 12.5 4.5 4.5L19 7.5"/>',
    "cross": '<path d="M6.5 6.5l11 11M17.5 6.5l-11 11"/>',
    "alert": '<path d="M12 4 2.8 19.5h18.4L12 4ZM12 10v4.5M12 17.2h.01"/>',
    "info": '<circle cx="12" cy="12" r="8.5"/><path d="M12 11.5V16M12 8.2h.01"/>',
    "download": '<path d="M12 4v11M7.5 11 12 15.5 16.5 11M5 19.5h14"/>',
    "trash": '<path d="M4.5 7h15M9.5 7V4.5h5V7M6.5 7l.8 12.5h9.4L17.5 7M10.2 11v5M13.8 11v5"/>',
    "retry": '<path d="M19.5 5v5h-5M19 14a7.5 7.5 0 1 1-.8-6.6l1.3 2.6"/>',
    "logout": '<path d="M14 4.5h4a1.5 1.5 0 0 1 1.5 1.5v12a1.5 1.5 0 0 1-1.5 1.5h-4M10 8l-4 4 4 4M6.5 12H15"/>',
    "search": '<circle cx="11" cy="11" r="6"/><path d="m15.5 15.5 4 4"/>',
    "sun": '<circle cx="12" cy="12" r="3.8"/><path d="M12 3.5v2M12 18.5v2M3.5 12h2M18.5 12h2M6 6l1.4 1.4M16.6 16.6 18 18'
    'M18 6l-1.4 1.4M7.4 16.6 6 18"/>',
    "moon": '<path d="M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7Z"/>',
    "auto": '<circle cx="12" cy="12" r="8"/><path d="M12 4v16a8 8 0 0 0 0-16Z" fill="currentColor" stroke="none"/>',
    "eye": '<path d="M2.8 12S6 5.8 12 5.8 21.2 12 21.2 12 18 18.2 12 18.2 2.8 12 2.8 12Z"/><circle cx="12" cy="12" r="2.7"/>',
    "ban": '<circle cx="12" cy="12" r="8.2"/><path d="m6.3 6.3 11.4 11.4"/>',
    "clock": '<circle cx="12" cy="12" r="8.2"/><path d="M12 7.5V12l3 2"/>',
    "stop": '<rect x="6.5" y="6.5" width="11" height="11" rx="1.5"/>',
    "link": '<path d="M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.3l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3A4 4 0 0 0 11 18.7l1-1"/>',
    "user": '<circle cx="12" cy="8" r="3.7"/><path d="M4.8 19.5a7.3 7.3 0 0 1 14.4 0"/>',
    "forward": '<path d="m9.5 6 6 6-6 6"/>',
    "pending": '<circle cx="12" cy="12" r="7.5"/>',
    "skipped": '<circle cx="12" cy="12" r="7.5"/><path d="M8.5 12h7"/>',
}

ICONS = {
    name: Html(
        '<svg class="icon" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{shape}</svg>'
    )
    for name, shape in _SHAPES.items()
}
"""Name -> picture, drawn for this console."""

BRAND = h(
    "span", Html('<i class="logo" aria-hidden="true"><b></b><b></b><b></b></i>'), h("span", "WAP"), class_="brand"
)


def tone(word: str) -> str:
    """The tone of a state; states that are not known are quiet."""
    return TONES.get(word, "quiet")
