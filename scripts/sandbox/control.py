"""The sandbox's own calls, beside EC2's: faults, calls, inventory, instances, clock. A WSGI application before the shim.

GET, POST, DELETE /sandbox/faults; GET, DELETE /sandbox/calls; GET /sandbox/inventory; GET /sandbox/instances;
POST /sandbox/clock {"ahead_seconds": n}; GET /healthz.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from scripts.sandbox.faults import Fault, Faults
from scripts.sandbox.hypervisor import Hypervisor
from scripts.sandbox.modifications import Modifications
from scripts.sandbox.shim import Shim, StartResponse


class Control:
    """Answers what is for the sandbox itself, and hands on the rest."""

    def __init__(
        self,
        shim: Shim,
        hypervisor: Hypervisor,
        faults: Faults,
        modifications: Modifications,
        inventory: Callable[[], dict[str, Any]],
    ) -> None:
        self._shim, self._hypervisor, self._faults = shim, hypervisor, faults
        self._modifications, self._inventory = modifications, inventory

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if not environ["PATH_INFO"].startswith(("/sandbox/", "/healthz")):
            return self._shim(environ, start)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            return _json(start, self._answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
        except LookupError as error:
            return _json(start, {"error": str(error)}, "404 Not Found")
        except (ValueError, TypeError) as error:
            return _json(start, {"error": str(error)}, "400 Bad Request")

    def _answer(self, method: str, path: str, body: bytes) -> object:
        match method, path:
            case "POST", "/sandbox/faults":
                self._faults.add(Fault.parse(json.loads(body)))
                return self._faults.list()
            case "DELETE", "/sandbox/faults":
                self._faults.clear()
                return []
            case "GET", "/sandbox/faults":
                return self._faults.list()
            case "GET", "/sandbox/calls":
                return list(self._shim.calls)
            case "DELETE", "/sandbox/calls":
                self._shim.calls.clear()
                return []
            case "GET", "/sandbox/inventory":
                return self._inventory()
            case "GET", "/sandbox/instances":
                return self._hypervisor.report()
            case "POST", "/sandbox/clock":
                self._modifications.ahead = _ahead(json.loads(body))
                return {"ahead_seconds": self._modifications.ahead}
            case "GET", "/healthz":
                return {"ok": True}
        raise LookupError(f"no such call: {method} {path}")


def _ahead(value: Any) -> float:
    if not isinstance(value, dict) or set(value) != {"ahead_seconds"}:
        raise ValueError('the body must be {"ahead_seconds": number}')
    return float(value["ahead_seconds"])


def _json(start: StartResponse, value: object, status: str = "200 OK") -> list[bytes]:
    start(status, [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]
