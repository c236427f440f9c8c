"""Who is logged in at this console: sessions live here on the server, and a browser holds only a random id in a cookie.

The rule this module guards: a session is as good as the API session token inside it. It ends with that token (its absolute
limit comes with the login, its idle limit is the API's to say), at logout, and when the console stops. A login always makes
a new id, and an id that a browser brings along without a login is never accepted.
"""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from wap.control.v1.access_pb2 import Caller, LoginRequest, LogoutRequest
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_UNSPECIFIED, AccessRole

from console.client import AsyncClient, WapError
from console.live import Feeds

COOKIE = "wap_console"
SECURE_COOKIE = "__Host-wap_console"
"""The name where the browser came by TLS: it binds the cookie to this host and to TLS."""

CLIENT_NAME = "wap-console"

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Session:
    """One login. `api` calls the control plane with this user's own token; `pages` are the browser pages that it opened."""

    key: str
    caller: Caller
    api: AsyncClient
    feeds: Feeds = field(default_factory=Feeds)
    pages: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Page id -> what sends that page to the login."""

    @property
    def is_over(self) -> bool:
        """True once the API's token has reached its absolute limit."""
        expires = self.caller.expire_time.seconds
        return bool(expires) and time.time() >= expires

    def role_in(self, project_id: str) -> AccessRole.ValueType:
        """The highest role in this project; with "" the highest role that counts everywhere."""
        roles = (grant.role for grant in self.caller.grants if grant.project_id in ("", project_id))
        return max(roles, default=ACCESS_ROLE_UNSPECIFIED)


class Sessions:
    """All sessions of this console and the control plane that they belong to."""

    def __init__(self) -> None:
        self._endpoint = ""
        self._ca_pem: bytes | None = None
        self._live: dict[str, Session] = {}
        """Digest of the cookie's value -> session, so that a dump of the memory's index shows no usable id."""

    def connect(self, endpoint: str, ca_pem: bytes | None) -> None:
        """Say which control plane logins go to."""
        self._endpoint, self._ca_pem = endpoint, ca_pem

    async def login(self, username: str, password: str) -> tuple[str, Session]:
        """The new cookie value and its session; WapError where the control plane refuses."""
        await self._forget_those_over()
        api = AsyncClient(self._endpoint, ca_pem=self._ca_pem, client_name=CLIENT_NAME)
        try:
            reply = await api.access.Login(LoginRequest(username=username, password=password))
        except WapError:
            await api.close()
            raise
        api.token = reply.session_token
        cookie = secrets.token_urlsafe(32)
        session = Session(key=_digest(cookie), caller=reply.caller, api=api)
        self._live[session.key] = session
        log.info("console login", actor=reply.caller.actor)
        return cookie, session

    def by_cookies(self, cookies: Mapping[str, str]) -> Session | None:
        """The live session that these cookies stand for."""
        value = cookies.get(SECURE_COOKIE) or cookies.get(COOKIE) or ""
        return self.alive(_digest(value)) if value else None

    def alive(self, key: str) -> Session | None:
        """The session with this key, unless it is over."""
        session = self._live.get(key)
        return None if session is None or session.is_over else session

    def owner_of(self, page_id: str) -> Session | None:
        """The live session that opened this page."""
        return next((one for one in self._live.values() if page_id in one.pages and not one.is_over), None)

    async def logout(self, session: Session) -> None:
        """End it here and at the control plane; its other pages go to the login."""
        with contextlib.suppress(WapError):  # it ends here in any case, and there by its limits
            await session.api.access.Logout(LogoutRequest())
        await self.end(session)

    async def end(self, session: Session) -> None:
        """Forget it; its pages go to the login. A second time changes nothing."""
        if self._live.pop(session.key, None) is None:
            return
        for leave in list(session.pages.values()):
            leave()
        session.pages.clear()
        await session.feeds.close()
        await session.api.close()
        log.info("console session ended", actor=session.caller.actor)

    async def close(self) -> None:
        """Forget all sessions; their tokens stay valid until their limits."""
        for session in list(self._live.values()):
            await self.end(session)

    async def _forget_those_over(self) -> None:
        for session in [one for one in self._live.values() if one.is_over]:
            await self.end(session)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
