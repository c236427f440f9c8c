"""What Prometheus asks a control plane: its own health on /metrics, and on /sd where all control planes are.

The fleet's series are not here: they go out by remote write, as they come in.
"""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client
from prometheus_client.exposition import ThreadingWSGIServer

# Addresses "host:port" of all control planes that are up.
Targets = Callable[[], Iterable[str]]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class ScrapePort:
    """Serves both over HTTP from threads of its own. `targets` is called in one of them."""

    def __init__(self, host: str, port: int, targets: Targets) -> None:
        self._targets = targets
        self._metrics: Any = prometheus_client.make_wsgi_app()
        self._server: WSGIServer = make_server(host, port, self._answer, ThreadingWSGIServer, _Silent)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="scrape", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return self._metrics(environ, start_response)  # type: ignore[no-any-return]
            case "/sd":
                return self._discovery(start_response)
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"ask /metrics or /sd\n"]

    def _discovery(self, start_response: StartResponse) -> Iterable[bytes]:
        """The form that http_sd_config of Prometheus reads."""
        try:
            targets = sorted(self._targets())
        except Exception:  # noqa: BLE001 - Prometheus keeps the last list when it gets none
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"the list of control planes cannot be read now\n"]
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([{"targets": targets, "labels": {"job": "wap"}}]).encode()]


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line for each scrape would fill the log."""
