"""The frame around every page: who may see it, the top bar, the navigation, and the place for the page itself.

The rule this module guards: a page is built only for a live session; anybody else is sent to the login, with a way back.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from wap.control.v1.alert_pb2 import ALERT_SEVERITY_CRITICAL, ALERT_STATE_FIRING, Alert

from console.client import WapError
from console.design import BRAND, HEAD, ICONS
from console.pages.topics import watch_alerts
from console.parts.failures import error_panel
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.tables import skeleton
from console.parts.words import count
from console.sessions import Sessions
from console.view import View, address_of, is_session_over, login_path

Build = Callable[[View], Awaitable[None]]

NAVIGATION = (
    (
        "Deployments",
        (("Fleet", "/fleet", "fleet"), ("Clusters", "/clusters", "clusters"), ("Nodes and agents", "/nodes", "nodes")),
    ),
    (
        "Operate",
        (
            ("Operations", "/operations", "operations"),
            ("Alerts", "/alerts", "alerts"),
            ("Logs", "/logs", "logs"),
            ("Slow queries", "/slow-queries", "slow"),
            ("Alert rules", "/alert-rules", "rules"),
        ),
    ),
    ("Platform", (("Access", "/access", "access"), ("Audit log", "/audit", "audit"))),
)


def page(sessions: Sessions, path: str, title: str, build: Build) -> None:
    """Register a page. `build` fills the frame; a WapError in it becomes a box on the page."""

    # dark=None: as the system is, until console.js has read the theme that was chosen.
    @ui.page(path, title=f"{title} · WAP", language="en-US", dark=None)
    async def opened(request: Request) -> Response | None:
        session = sessions.by_cookies(request.cookies)
        if session is None:
            return RedirectResponse(login_path(address_of(request)), status_code=303)
        view = View(sessions, session, ui.context.client, request)
        await _fill(view, path, build)
        return None


async def _fill(view: View, path: str, build: Build) -> None:
    ui.add_head_html(HEAD)
    with box("shell"):
        show(h("a", "Skip to content", href="#content", class_="skip"), classes="contents")
        _top_bar(view)
        navigation = show(_navigation(path, 0, ""), "nav", "side").props('aria-label="Main"')
        # Alerts are told on every page; a control plane that knows none leaves the rest of the page as it is.
        view.follow(
            "alerts", lambda: watch_alerts(view.api), lambda alerts: _count_alerts(navigation, path, alerts), _not_told
        )
        with box("main", "main", id="content", tabindex="-1"), box("page") as content:
            try:
                await build(view)
            except WapError as error:
                await _give_up(view, content, error)


async def _give_up(view: View, content: ui.element, error: WapError) -> None:
    if is_session_over(error):
        await view.failed(error)
    elif view.is_valid():
        content.clear()
        with content:
            show(error_panel(error, "This page cannot be shown"))


def _top_bar(view: View) -> None:
    with box("topbar", "header"):
        show(h("a", BRAND, href="/clusters", aria_label="WAP, to the clusters"), classes="contents")
        view.shows_trouble_in(show(Html(""), "span", "spring"))
        show(joined([_theme_button(), _user(view)]), classes="contents")


def _theme_button() -> Html:
    faces = joined(h("span", ICONS[icon], class_=f"theme-{name}") for name, icon in _THEME_ICONS)
    return h(
        "button", faces, type="button", class_="button quiet icon-only", data_theme_toggle=True, aria_label="Theme"
    )


_THEME_ICONS = (("auto", "auto"), ("light", "sun"), ("dark", "moon"))


def _user(view: View) -> Html:
    caller = view.session.caller
    name = caller.display_name or caller.actor.removeprefix("user:")
    leave = h(
        "button", ICONS["logout"], h("span", "Sign out"), type="submit", class_="button quiet", aria_label="Sign out"
    )
    who = h(
        "a",
        h("span", name[:1].upper(), class_="avatar", aria_hidden="true"),
        h("span", name, class_="who"),
        href="/access",
    )
    # A form, not an event: signing out also works when the socket is down, and takes the cookie back.
    return joined([who, h("form", leave, method="post", action="/logout")])


def _count_alerts(navigation: ui.html, path: str, alerts: Mapping[str, Alert]) -> None:
    firing = [one for one in alerts.values() if one.state == ALERT_STATE_FIRING and not one.silenced]
    worst = "" if any(one.severity == ALERT_SEVERITY_CRITICAL for one in firing) else " caution"
    change(navigation, _navigation(path, len(firing), worst))


def _not_told(error: WapError) -> None:
    """What the page itself reads says what is wrong."""


def _navigation(path: str, alerts: int, look: str) -> Html:
    groups: list[Any] = []
    for title, items in NAVIGATION:
        groups.append(h("div", title, class_="nav-title"))
        for label, target, icon in items:
            here = path == target or path.startswith(f"{target}/")
            told = None
            if alerts and target == "/alerts":
                told = h(
                    "span",
                    str(alerts),
                    class_=f"count{look}",
                    aria_label=count(alerts, "alert firing", "alerts firing"),
                )
            current = "page" if here else None
            groups.append(h("a", ICONS[icon], h("span", label), told, href=target, class_="nav", aria_current=current))
    return joined(groups)


@contextlib.asynccontextmanager
async def loading(view: View) -> AsyncIterator[None]:
    """Show grey bars and send the page; what the block reads and draws then takes their place.

    So the first answer is there at once, however long the control plane takes.
    """
    bars = show(skeleton(6), classes="panel loading").props('role="status" aria-label="Loading"')
    await view.connected()
    try:
        yield
    finally:
        if not bars.is_deleted:
            bars.delete()


def heading(title: str, subtitle: str = "", crumbs: tuple[tuple[str, str], ...] = ()) -> None:
    """The page's title, with the way that leads to it above."""
    with box("title"):
        if crumbs:
            steps = joined(
                joined([h("a", label, href=target), h("span", "/", aria_hidden="true")]) for label, target in crumbs
            )
            way = joined([steps, h("span", title, aria_current="page")])
            show(way, "nav", "crumbs").props('aria-label="Breadcrumb"')
        show(joined([h("h1", title), h("p", subtitle, class_="muted") if subtitle else None]), classes="heading")
