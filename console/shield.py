"""What stands before every request: the origin check, and the headers that tell the browser what a page may do.

The rules this module guards: nothing that changes state, and no socket, is open to a page of another site; no page runs a
script that the console did not write (nonce); nothing a person saw stays in a cache. It is plain ASGI, so that sockets pass
through it as well as requests.
"""

import re
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SOCKET_PATH = "/_nicegui_ws"
CACHEABLE = ("/_nicegui/", "/static/")
HOST = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,255}")
SCRIPT = re.compile(rb"<script(?=[\s>])")


class Shield:
    """The ASGI app around the console. `checks_origin` exists so that a test can show what the check is good for."""

    def __init__(self, app: ASGIApp, *, checks_origin: bool = True) -> None:
        self._app = app
        self._checks_origin = checks_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers added to the answer."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._checks_origin and _must_be_ours(scope) and not _is_ours(scope, headers):
            await _refuse(scope, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Answer(scope, headers.get("host", ""), send))


class _Answer:
    """Adds headers to one answer; in a page it also marks the scripts with the nonce, for which it waits for the whole page."""

    def __init__(self, scope: Scope, host: str, send: Send) -> None:
        self._path = scope["path"]
        self._host = host if HOST.fullmatch(host) else ""
        self._send = send
        self._nonce = secrets.token_urlsafe(16)
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            self._protect(headers)
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            await self._send_page()
            return
        await self._send(message)

    async def _send_page(self) -> None:
        assert self._start is not None
        # Values in a page are escaped, so that only the console's own scripts are spelled like this.
        body = SCRIPT.sub(f'<script nonce="{self._nonce}"'.encode(), self._body)
        MutableHeaders(raw=self._start["headers"])["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})

    def _protect(self, headers: MutableHeaders) -> None:
        headers["x-content-type-options"] = "nosniff"
        headers["x-frame-options"] = "DENY"
        headers["referrer-policy"] = "same-origin"
        headers["cross-origin-opener-policy"] = "same-origin"
        headers["content-security-policy"] = self._policy()
        if not self._path.startswith(CACHEABLE):
            headers["cache-control"] = "no-store"

    def _policy(self) -> str:
        sockets = f" ws://{self._host} wss://{self._host}" if self._host else ""
        return "; ".join(
            (
                "default-src 'self'",
                # NiceGUI's Vue compiles its templates in the browser, which needs eval; inline scripts need the nonce.
                f"script-src 'self' 'nonce-{self._nonce}' 'unsafe-eval'",
                "style-src 'self' 'unsafe-inline'",
                "img-src 'self' data:",
                "font-src 'self'",
                f"connect-src 'self'{sockets}",
                "object-src 'none'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            )
        )


def _must_be_ours(scope: Scope) -> bool:
    if scope["type"] == "websocket":
        return True
    # A socket can also run over plain requests; those must not be readable by another site either.
    return scope["method"] not in SAFE_METHODS or (scope["path"].startswith(SOCKET_PATH) and _has_origin(scope))


def _has_origin(scope: Scope) -> bool:
    return "origin" in Headers(scope=scope)


def _is_ours(scope: Scope, headers: Headers) -> bool:
    """True when the page that asks came from the same host and port as what it asks for."""
    origin, host = headers.get("origin", ""), headers.get("host", "")
    return bool(host) and urlsplit(origin).netloc.lower() == host.lower()


async def _refuse(scope: Scope, send: Send) -> None:
    text = b"Refused: this request did not come from a page of the console."
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": text})
    elif "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": text})
    else:
        await send({"type": "websocket.close", "code": 1008})  # before the accept: the server answers 403
