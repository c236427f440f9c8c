"""The console as a server: FastAPI for the login and files, NiceGUI for the pages, uvicorn in the caller's event loop.

Three rules of the wiring hold here: own routes come before NiceGUI's, whose mount answers for every other path; uvicorn
must not take the process's signals, which belong to the program; the port is bound before uvicorn starts, because uvicorn
ends the process when it cannot.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator

import structlog
import uvicorn
from fastapi import FastAPI
from nicegui import core, ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from console import series
from console.design import BRAND, FAVICON, HEAD, STATIC
from console.frame import page
from console.pages import (
    access,
    alert,
    alert_rules,
    alerts,
    audit,
    cluster,
    clusters,
    create_cluster,
    fleet,
    login,
    logs,
    metrics,
    node,
    nodes,
    operation,
    operations,
    realtime,
    slow_queries,
)
from console.parts.markup import h, joined
from console.sessions import Sessions
from console.shield import Shield
from console.sockets import SocketGuard

GZIP_LEVEL = 5
"""Level 9 costs a third of a page's time for a few bytes."""

RECONNECT_SECONDS = 10.0
"""A page whose socket broke is kept so long for the browser to come back to it."""

HISTORY_MESSAGES = 200
"""Messages to a page that are kept until its browser has acknowledged them."""

STOP_SECONDS = 3

log = structlog.get_logger(__name__)


async def serve(
    *, endpoint: str, ca_pem: bytes | None, host: str, port: int, stop: asyncio.Event, started: asyncio.Event
) -> None:
    """Serve the console for the control plane at `endpoint` until `stop` is set; sets `started` once it listens.

    OSError where the address cannot be bound. Runs in the caller's event loop, beside whatever else runs there.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    sessions, app = _shared()
    sessions.connect(endpoint, ca_pem)
    server = _Server(app, started)
    stopping = asyncio.create_task(server.stop_when(stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        stopping.cancel()
        await sessions.close()
        listener.close()


def build(sessions: Sessions) -> ASGIApp:
    """The whole console as an ASGI app. NiceGUI keeps its state in the process, so one process has one console."""
    guard = SocketGuard(sessions)

    @contextlib.asynccontextmanager
    async def guarded(_: FastAPI) -> AsyncIterator[None]:
        guard.install()
        try:
            yield
        finally:
            guard.release()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=guarded)
    app.mount("/static", StaticFiles(directory=STATIC))
    login.register(app, sessions)
    series.register(app, sessions)
    _register_paths(app)
    _register_pages(sessions)
    ui.run_with(
        app,
        title="WAP",
        favicon=FAVICON,
        language="en-US",
        tailwind=False,
        storage_secret=None,  # nothing is kept in NiceGUI's storage: sessions are ours
        reconnect_timeout=RECONNECT_SECONDS,
        message_history_length=HISTORY_MESSAGES,
        binding_refresh_interval=None,
        gzip_middleware_factory=None,  # it must stand outside of the shield, which writes into pages
        show_welcome_message=False,
    )
    core.app.add_exception_handler(404, _not_found)
    core.app.add_exception_handler(Exception, _broken)
    return GZipMiddleware(Shield(app), compresslevel=GZIP_LEVEL)


@functools.cache
def _shared() -> tuple[Sessions, ASGIApp]:
    sessions = Sessions()
    return sessions, build(sessions)


def _register_paths(app: FastAPI) -> None:
    @app.get("/", response_class=RedirectResponse)
    async def home() -> Response:
        return RedirectResponse(login.HOME, status_code=303)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}


def _register_pages(sessions: Sessions) -> None:
    page(sessions, "/fleet", "Fleet", fleet.build)
    page(sessions, "/clusters", "Clusters", clusters.build)
    page(sessions, "/clusters/new", "Create cluster", create_cluster.build)
    page(sessions, "/clusters/{cluster_id}", "Cluster", cluster.build)
    page(sessions, "/clusters/{cluster_id}/metrics", "Metrics", metrics.build)
    page(sessions, "/clusters/{cluster_id}/realtime", "Real-time", realtime.build_cluster)
    page(sessions, "/operations", "Operations", operations.build)
    page(sessions, "/operations/{operation_id}", "Operation", operation.build)
    page(sessions, "/nodes", "Nodes and agents", nodes.build)
    page(sessions, "/nodes/{node_id}", "Node", node.build)
    page(sessions, "/nodes/{node_id}/realtime", "Real-time", realtime.build_node)
    page(sessions, "/logs", "Logs", logs.build)
    page(sessions, "/slow-queries", "Slow queries", slow_queries.build)
    page(sessions, "/alerts", "Alerts", alerts.build)
    page(sessions, "/alerts/{alert_id}", "Alert", alert.build)
    page(sessions, "/alert-rules", "Alert rules", alert_rules.build)
    page(sessions, "/audit", "Audit log", audit.build)
    page(sessions, "/access", "Access", access.build)


async def _not_found(request: Request, error: Exception) -> Response:
    return _plain(404, "There is no such page", "The address may be old, or mistyped.")


async def _broken(request: Request, error: Exception) -> Response:
    log.error("a page could not be built", path=request.url.path, exc_info=error)
    return _plain(500, "Something went wrong here", "The console's log says more.")


def _plain(status: int, title: str, text: str) -> Response:
    back = h("a", h("span", "To the clusters"), href=login.HOME, class_="button primary")
    card = h("main", BRAND, h("h1", title), h("p", text, class_="muted"), back, class_="card login-card")
    head = joined([h("title", f"{title} · WAP"), HEAD])
    body = h("body", h("div", card, class_="login"))
    return HTMLResponse("<!doctype html>" + h("html", h("head", head), body, lang="en"), status_code=status)


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp, listening: asyncio.Event) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,  # the program's logging stays as it is
                access_log=False,  # addresses of sockets carry the ids of pages
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
                ws_max_size=1024 * 1024,
            )
        )
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Leave the signals to the program."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._listening.set()

    async def stop_when(self, stop: asyncio.Event) -> None:
        """End the server when the program stops."""
        await stop.wait()
        self.should_exit = True
