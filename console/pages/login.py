"""Signing in and out: plain HTML forms, so that the session cookie never passes through a script.

The rules this module guards: a login makes a new session id and ends the one that the browser came with; the way back leads
only to paths of this console.
"""

import re
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from console.client import WapError
from console.design import BRAND, HEAD, ICONS
from console.parts.markup import Html, h, joined
from console.sessions import COOKIE, SECURE_COOKIE, Sessions

HOME = "/clusters"
OWN_PATH = re.compile(
    r"/(fleet|clusters|clusters/new|operations|nodes|logs|slow-queries|alerts|alert-rules|audit|access"
    r"|(clusters|operations|nodes|alerts)/[A-Za-z0-9-]{1,64}(/metrics|/realtime)?)"
    r"(\?[A-Za-z0-9=&_.%+-]{0,300})?"
)
FORM_BYTES = 8 * 1024

WORDS = {
    "UNAUTHENTICATED": "User name or password is wrong.",
    "TOO_MANY_ATTEMPTS": "Too many wrong passwords. Wait a minute before the next try.",
}


def register(app: FastAPI, sessions: Sessions) -> None:
    """Add the routes; they must stand before NiceGUI's, which answers for every other path."""

    @app.get("/login", response_class=HTMLResponse)
    async def form(request: Request) -> Response:
        wanted = safe_path(request.query_params.get("next", ""))
        if sessions.by_cookies(request.cookies) is not None:
            return RedirectResponse(wanted, status_code=303)
        return HTMLResponse(_page(wanted))

    @app.post("/login", response_class=HTMLResponse)
    async def login(request: Request) -> Response:
        values = await _form_values(request)
        username, wanted = values.get("username", ""), safe_path(values.get("next", ""))
        before = sessions.by_cookies(request.cookies)
        try:
            cookie, _ = await sessions.login(username, values.get("password", ""))
        except WapError as error:
            status = 503 if error.is_unavailable else 401
            return HTMLResponse(_page(wanted, username, WORDS.get(error.reason, error.message)), status_code=status)
        if before is not None:
            await sessions.logout(before)
        response = RedirectResponse(wanted, status_code=303)
        _set_cookie(response, request, cookie)
        return response

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        session = sessions.by_cookies(request.cookies)
        if session is not None:
            await sessions.logout(session)
        response = RedirectResponse("/login", status_code=303)
        for name in (COOKIE, SECURE_COOKIE):
            if name in request.cookies:
                response.delete_cookie(name, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="lax")
        return response


def safe_path(wanted: str) -> str:
    """The path itself if it is one of this console's pages; the home page otherwise."""
    return wanted if OWN_PATH.fullmatch(wanted) else HOME


async def _form_values(request: Request) -> dict[str, str]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            return {}
    values = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8)
    return {name: texts[0] for name, texts in values.items()}


def _set_cookie(response: Response, request: Request, cookie: str) -> None:
    by_tls = request.url.scheme == "https"
    response.set_cookie(
        SECURE_COOKIE if by_tls else COOKIE, cookie, path="/", secure=by_tls, httponly=True, samesite="lax"
    )


def _page(wanted: str, username: str = "", problem: str = "") -> str:
    told = h("div", ICONS["alert"], h("p", problem), class_="notice bad", role="alert") if problem else None
    # The field to begin with: the password where the name is known already.
    names = _entry("User name", "username", "text", "username", username, focus=not username)
    words = _entry("Password", "password", "password", "current-password", "", focus=bool(username))
    hidden = h("input", type="hidden", name="next", value=wanted)
    go = h("button", h("span", "Sign in"), type="submit", class_="button primary wide")
    form = h("form", told, names, words, hidden, go, method="post", action=f"/login?next={quote(wanted)}")
    words_under = h("p", "MongoDB in your own AWS account.", class_="muted")
    card = h("main", BRAND, h("h1", "Sign in"), words_under, form, class_="card login-card")
    head = joined(
        [
            h("meta", charset="utf-8"),
            h("meta", name="viewport", content="width=device-width, initial-scale=1"),
            h("title", "Sign in · WAP"),
            Html('<link rel="icon" href="/static/favicon.svg">'),
            HEAD,
        ]
    )
    body = h("body", h("div", card, class_="login"))
    return "<!doctype html>" + h("html", h("head", head), body, lang="en")


def _entry(label: str, name: str, kind: str, complete: str, value: str, *, focus: bool) -> Html:
    entry = h(
        "input",
        id=name,
        name=name,
        type=kind,
        autocomplete=complete,
        value=value or None,
        required=True,
        autofocus=focus,
        maxlength=200,
        spellcheck="false",
        autocapitalize="off",
        class_="entry",
    )
    return h("div", h("label", label, for_=name, class_="label"), entry, class_="field")
