"""View: what a page holds while a person looks at it, and the one way in which a page may act.

The rule this module guards: every event handler goes through `View.authorised`. It asks first whether the session that
opened this page is still alive and still owns it; if not, nothing is done and the browser goes to the login. What the
handler then does, it does with that user's own token, so the control plane judges each call too. A test reads the source
of all pages and fails on a handler that does not go through it.
"""

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from typing import Any
from urllib.parse import quote

import grpc
import structlog
from nicegui import Client, background_tasks, ui
from starlette.requests import Request

from console.client import AsyncClient, WapError
from console.live import Watcher, end_quietly
from console.parts.failures import describe, error_panel
from console.parts.markup import Html, change, h, joined
from console.sessions import Session, Sessions

Handler = Callable[[], Awaitable[None] | None]

CONNECT_SECONDS = 30.0
"""A browser that has not opened its socket by then is gone."""

PASSWORD_FIELDS = ("password", "old_password")

log = structlog.get_logger(__name__)


class View:
    """One browser page of one session."""

    def __init__(self, sessions: Sessions, session: Session, client: Client, request: Request) -> None:
        self._sessions = sessions
        self._client = client
        self._address = address_of(request)
        self._parameters = dict(request.path_params)
        self._query = dict(request.query_params)
        self._trouble_shown: ui.html | None = None
        self.session = session
        session.pages[client.id] = self._leave
        client.on_delete(lambda: session.pages.pop(client.id, None))

    @property
    def api(self) -> AsyncClient:
        """The control plane, with this user's token."""
        return self.session.api

    def parameter(self, name: str) -> str:
        """A part of the page's path."""
        return str(self._parameters[name])

    def query(self, name: str) -> str:
        """A value from the page's address after the "?"; empty where there is none."""
        return str(self._query.get(name, ""))[:200]

    async def connected(self) -> None:
        """Send what is on the page so far; returns when the browser can be written to."""
        await self._client.connected(timeout=CONNECT_SECONDS)

    def authorised(self, handler: Handler, busy: ui.element | None = None) -> Callable[..., Awaitable[None]]:
        """The handler behind the checks; `busy` cannot be pressed again while it runs."""

        async def guarded(*_: Any) -> None:
            if not self.is_valid():
                self._leave()
                return
            if busy is not None:
                busy.props["disabled"] = True
                busy.props["aria-busy"] = "true"
            try:
                outcome = handler()
                if inspect.isawaitable(outcome):
                    await outcome
            except _ToldError:
                pass  # the page says it already
            except WapError as error:
                await self.failed(error)
            finally:
                if busy is not None and not busy.is_deleted:
                    for name in ("disabled", "aria-busy"):
                        busy.props.pop(name, None)

        return guarded

    def later(self, handler: Handler) -> None:
        """Run a handler that waits for the control plane, from one that cannot wait; behind the same checks."""
        with self._client.layout:
            ui.timer(0, self.authorised(handler), once=True)

    def is_valid(self) -> bool:
        """True while the session that opened this page lives and owns it."""
        session = self._sessions.alive(self.session.key)
        return session is self.session and self._client.id in session.pages

    async def failed(self, error: WapError) -> None:
        """Tell about an error; where it means that the session is over, go to the login."""
        if is_session_over(error):
            await self._sessions.end(self.session)
            self._leave()
            return
        self.warn(describe(error))

    @contextlib.contextmanager
    def errors_to(self, complain: Callable[[Html], None], title: str = "This did not work") -> Iterator[None]:
        """Show a refusal of the calls in this block with `complain`, where the person looks, and end the handler.

        That the session is over is no refusal: it leads to the login as everywhere.
        """
        try:
            yield
        except WapError as error:
            if is_session_over(error):
                raise
            complain(error_panel(error, title))
            raise _ToldError from error

    def say(self, text: str) -> None:
        """A short notice that something was done."""
        with self._client:
            ui.notify(text, type="positive", timeout=3500)

    def warn(self, text: str) -> None:
        """A notice that something did not go well; it stays until it is read."""
        with self._client:
            # Plain text: a notification shows no HTML unless it is told to.
            ui.notify(text, type="negative", multi_line=True, timeout=12000, close_button="Close")

    def go(self, path: str) -> None:
        """Open another page of the console."""
        with self._client:
            ui.navigate.to(path)

    def download(self, content: bytes, file_name: str, media_type: str) -> None:
        """Let the browser save a file."""
        with self._client:
            ui.download(content, file_name, media_type)

    def follow(
        self,
        topic: Hashable,
        source: Callable[[], AsyncIterator[Any]],
        show: Callable[[Any], None],
        on_error: Callable[[WapError], None] | None = None,
    ) -> Callable[[], None]:
        """Show every new value of a topic until the page closes; one stream serves all pages of the session.

        What is returned ends it before that. `on_error` gets an error that the control plane itself
        told, such as that a thing does not exist.
        """
        client = self._client

        def shown(value: Any) -> None:
            if client.is_deleted or not self.is_valid():
                return
            with client:
                show(value)

        def trouble(error: WapError | None) -> None:
            if client.is_deleted:
                return
            if error is not None and is_session_over(error):
                background_tasks.create(self._sessions.end(self.session), name="end of a console session")
                return
            with client:
                if error is not None and on_error is not None and not error.is_unreachable:
                    on_error(error)
                else:
                    self._show_trouble(error)

        leave = self.session.feeds.watch(topic, source, Watcher(_without_raising(shown), _without_raising(trouble)))
        client.on_delete(lambda: end_quietly(leave))
        return leave

    def shows_trouble_in(self, element: ui.html) -> None:
        """Where the frame tells whether what is seen is live."""
        self._trouble_shown = element
        self._show_trouble(None)

    def _show_trouble(self, error: WapError | None) -> None:
        if self._trouble_shown is None:
            return
        word = "Live" if error is None else "Reconnecting"
        dot = h("i", class_="dot " + ("good" if error is None else "caution"), aria_hidden="true")
        title = "What you see is up to date" if error is None else error.message
        change(
            self._trouble_shown, joined([h("span", dot, h("span", word), class_="live", title=title, role="status")])
        )

    def _leave(self) -> None:
        if not self._client.is_deleted:
            with self._client:
                ui.navigate.to(login_path(self._address))


class _ToldError(Exception):
    """A refusal that the page has shown."""


def address_of(request: Request) -> str:
    """The address that leads back to a page: its path and what follows the "?"."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def login_path(wanted: str) -> str:
    """The login page that leads back to `wanted`."""
    return f"/login?next={quote(wanted)}"


def is_session_over(error: WapError) -> bool:
    """True where the control plane does not know the token any more; a wrong password is another thing."""
    return error.code is grpc.StatusCode.UNAUTHENTICATED and error.field not in PASSWORD_FIELDS


def _without_raising(function: Callable[[Any], None]) -> Callable[[Any], None]:
    # One page that cannot be drawn must not end the stream that others share.
    def careful(value: Any) -> None:
        try:
            function(value)
        except Exception:
            log.exception("a page could not show a new value")

    return careful
