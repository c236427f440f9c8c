"""The console in this process against a fake control plane over real gRPC and TLS; and people who look at its pages."""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from nicegui import Client, core, ui
from nicegui.functions.download import download
from nicegui.functions.navigate import Navigate
from nicegui.functions.notify import notify
from nicegui.testing import User
from nicegui.testing.general import nicegui_reset_globals, prepare_simulation
from nicegui.testing.user_navigate import UserNavigate
from starlette.types import ASGIApp

from console.app import build
from console.fake import FakeControl
from console.sessions import Sessions
from tests.waiting import eventually

ORIGIN = "http://console.test"
WITHIN = 10.0


@dataclass
class Console:
    """The console under test, its sessions, and the control plane behind it."""

    app: ASGIApp
    sessions: Sessions
    fake: FakeControl

    def browser(self, **headers: str) -> httpx.AsyncClient:
        """A browser with an empty cookie jar, showing pages of the console itself."""
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"origin": ORIGIN, **headers})

    async def person(self, username: str = "admin", password: str = "password") -> "Person":
        """Somebody who is logged in."""
        browser = self.browser()
        answer = await browser.post("/login", data={"username": username, "password": password})
        assert answer.status_code == 303, answer.text
        return Person(User(browser))


class Navigation(UserNavigate):
    """Remembers where the server sent the browser. The login is plain HTML, which the simulated browser cannot show."""

    def __init__(self, user: User) -> None:
        super().__init__(user)
        self.sent: list[str] = []

    def to(self, target: Any, new_tab: bool = False) -> None:
        """Follow, except to the login."""
        self.sent.append(target)
        if not target.startswith("/login"):
            super().to(target, new_tab)


class Person:
    """What one person does in one browser tab."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.navigation = Navigation(user)
        user.navigate = self.navigation

    @property
    def page(self) -> Client:
        """The page that is open."""
        assert self.user.client is not None
        return self.user.client

    @property
    def path(self) -> str:
        """Its address."""
        return self.user.back_history[-1]

    async def open(self, path: str) -> None:
        """Go to a page."""
        await self.user.open(path)

    def finds(self, text: str) -> bool:
        """True when this text is on the page now."""
        return self.user._sees(content=text) or self.user.notify.contains(text)

    def offers(self, mark: str) -> bool:
        """True when the button or field with this mark is on the page now."""
        return self.user._sees(marker=mark)

    def asks(self, mark: str) -> bool:
        """True when the dialog with this mark is open; a closed one is part of the page too."""
        element = next(iter(self.user.find(marker=mark).elements))
        assert element.parent_slot is not None
        dialog = element.parent_slot.parent
        assert isinstance(dialog, ui.dialog)
        return bool(dialog.value)

    async def is_asked(self, mark: str) -> None:
        """Wait until the dialog with this mark is open."""
        await eventually(lambda: self.offers(mark) and self.asks(mark), within=WITHIN)

    async def is_sent_to(self, path: str) -> None:
        """Wait until the server sends the browser there."""
        await eventually(lambda: path in self.navigation.sent, within=WITHIN)

    async def sees(self, *texts: str) -> None:
        """Wait until all of these stand on the page."""
        for text in texts:
            await eventually(functools.partial(self.finds, text), within=WITHIN)

    async def misses(self, text: str) -> None:
        """Wait until this does not stand on the page any more."""
        await eventually(lambda: not self.finds(text), within=WITHIN)

    async def click(self, mark: str) -> None:
        """Press a button as soon as it is there."""
        await self._marked(mark)
        self.user.find(marker=mark).click()

    async def type(self, mark: str, text: str) -> None:
        """Fill a field, or choose a value from its list."""
        await self._marked(mark)
        for element in self.user.find(marker=mark).elements:
            assert isinstance(element, ui.input | ui.number | ui.select)
            element.value = float(text) if isinstance(element, ui.number) else text
            for listener in element._event_listeners.values():
                if listener.type == "update:model-value" and "authorised" in repr(listener.handler):
                    assert listener.handler is not None
                    await listener.handler()

    async def _marked(self, mark: str) -> None:
        await eventually(lambda: self.offers(mark), within=WITHIN)

    async def arrives(self, start: str) -> str:
        """Wait until the browser is at an address that begins so, and return it."""
        await eventually(lambda: self.path.startswith(start), within=WITHIN)
        return self.path


@pytest.fixture
async def fake() -> AsyncIterator[FakeControl]:
    """A control plane whose operations take no time."""
    async with FakeControl(step_seconds=0.0) as running:
        yield running


@pytest.fixture
async def console(fake: FakeControl) -> AsyncIterator[Console]:
    """The console for that control plane."""
    async with running_console(fake, Sessions()) as running:
        yield running


@contextlib.asynccontextmanager
async def running_console(
    fake: FakeControl, sessions: Sessions, wrap: Callable[[ASGIApp], ASGIApp] | None = None
) -> AsyncIterator[Console]:
    """Start the console with these sessions, and leave NiceGUI as it was found."""
    os.environ["NICEGUI_USER_SIMULATION"] = "true"
    with nicegui_reset_globals():
        prepare_simulation()
        try:
            sessions.connect(fake.endpoint, fake.ca_pem)
            app = build(sessions)
            async with _lifespan(app):
                yield Console(app if wrap is None else wrap(app), sessions, fake)
                await sessions.close()
        finally:
            os.environ.pop("NICEGUI_USER_SIMULATION", None)
            ui.navigate, ui.notify, ui.download = Navigate(), notify, download
            # NiceGUI's reset would drop the modules of the pages that are listed here; others use them too.
            Client.page_routes.clear()
            core.app.user_middleware.clear()
            core.app.middleware_stack = None


@contextlib.asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """What a server does around the requests."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()

    async def serve() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, outbox.put)

    serving = asyncio.create_task(serve())
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await outbox.get()
        await serving
