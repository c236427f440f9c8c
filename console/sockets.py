"""A socket may speak only for pages of the session that opened it.

NiceGUI finds a page by the random id in each message and does not ask who sent it: whoever learns the id of another
person's page could act in it. So a handshake is accepted only from a socket whose cookie is of the session that opened the
page, and messages are passed on only from sockets that shook hands for that page. The ids never get into a log either.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import structlog
from nicegui import core

from console.sessions import Sessions

PAGE_MESSAGES = ("event", "javascript_response", "ack", "log")
PAGE_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
LOGGERS = ("nicegui", "uvicorn.error", "uvicorn.access", "engineio.server", "socketio.server", "asyncio")

log = structlog.get_logger(__name__)


class SocketGuard:
    """Stands between the socket server and NiceGUI's handlers; `release` puts those back."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._handlers: dict[str, Any] = core.sio.handlers["/"]
        self._originals = dict(self._handlers)
        self._silencer = _WithoutPageIds()

    def install(self) -> None:
        """Put the guard in front of every message that names a page."""
        self._handlers["connect"] = self._connect
        self._handlers["handshake"] = self._handshake
        for name in PAGE_MESSAGES:
            self._handlers[name] = self._only_from_its_socket(name)
        for logger in LOGGERS:
            logging.getLogger(logger).addFilter(self._silencer)

    def release(self) -> None:
        """Take the guard away."""
        self._handlers.clear()
        self._handlers.update(self._originals)
        for logger in LOGGERS:
            logging.getLogger(logger).removeFilter(self._silencer)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
        named = parse_qs(environ.get("QUERY_STRING", "")).get("client_id", [""])[0]
        if named and not self._may_speak_for(environ, named):
            log.warning("a socket of another session was refused")
            return False
        return await self._originals["connect"](sid, environ, auth)

    async def _handshake(self, sid: str, data: dict[str, Any]) -> bool:
        if not self._may_speak_for(core.sio.get_environ(sid), str(data.get("client_id", ""))):
            log.warning("a handshake for another session's page was refused")
            return False
        return bool(await self._originals["handshake"](sid, data))

    def _only_from_its_socket(self, name: str) -> Callable[[str, dict[str, Any]], Awaitable[None]]:
        async def guarded(sid: str, message: dict[str, Any]) -> None:
            if message.get("client_id") not in core.sio.rooms(sid):
                log.warning("a message for another socket's page was dropped", kind=name)
                return
            self._originals[name](sid, message)

        return guarded

    def _may_speak_for(self, environ: dict[str, Any] | None, page_id: str) -> bool:
        session = self._sessions.by_cookies(_cookies(environ or {}))
        return session is not None and self._sessions.owner_of(page_id) is session


def _cookies(environ: dict[str, Any]) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(environ.get("HTTP_COOKIE", "")).items()}
    except CookieError:
        return {}


class _WithoutPageIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if PAGE_ID.search(text):
            record.msg, record.args = PAGE_ID.sub("<page>", text), ()
        return True
