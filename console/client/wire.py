"""What every call carries and how a connection is made, the same for both clients."""

import ipaddress
import uuid
from collections.abc import Callable

import grpc

from console.client.errors import WapError

UNARY_DEADLINE = 30.0
"""Seconds that a single answer may take where the caller gives no timeout."""

READS = ("Get", "List", "Query", "Search", "Summarise")
"""How the names of calls begin that change nothing."""

READ_ATTEMPTS = 4
READ_WAIT_MAX = 2.0
"""Reads that find no control plane are tried this often, with full jitter up to so many seconds between tries."""

PLAINTEXT = "plaintext://"
"""Endpoint prefix for a connection without TLS; accepted for loopback addresses only, since tokens travel on it."""

PATIENCE = 60.0
"""Seconds that a wait goes on without a control plane: longer than a take-over (10 s) or a restart."""

WATCH_SPAN = 60.0
"""Seconds after which a watch is opened anew: a connection that died without a word is noticed by then."""

REOPEN_PAUSE = 0.5
"""Seconds between two tries to open a watch."""

Metadata = tuple[tuple[str, str | bytes], ...]


def new_request_id() -> str:
    """A fresh id for `x-request-id`: 32 hex digits."""
    return uuid.uuid4().hex


def metadata(request_id: str, token: str | None, extra: Metadata | None = None) -> Metadata:
    """Metadata of one call; the bearer token is left out where there is none."""
    bearer = (("authorization", f"Bearer {token}"),) if token else ()
    return (("x-request-id", request_id), *bearer, *(extra or ()))


def is_read(path: str) -> bool:
    """True for "/wap.control.v1.ClusterService/GetCluster" and other calls that are safe to repeat."""
    return path.rsplit("/", 1)[-1].startswith(READS)


def may_repeat(error: Exception) -> bool:
    """True for a failure that a repeated read may heal."""
    return isinstance(error, WapError) and error.is_unavailable


def channel_options(client_name: str) -> list[tuple[str, str | int]]:
    """gRPC options; a broken connection is tried again after 0.2 s at first and 5 s at most."""
    return [
        ("grpc.primary_user_agent", client_name),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ]


def target_and_credentials(endpoint: str, ca_pem: bytes | None) -> tuple[str, grpc.ChannelCredentials | None]:
    """gRPC target and TLS credentials (None: plaintext to this machine); WapError where the endpoint is unusable.

    Without `ca_pem` the certificate authorities that gRPC ships are trusted.
    """
    plaintext = endpoint.startswith(PLAINTEXT)
    target = endpoint.removeprefix(PLAINTEXT).removeprefix("https://").rstrip("/")
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise _unusable(endpoint, "The address of the control plane is not usable.", "host:port")
    if not plaintext:
        return target, grpc.ssl_channel_credentials(root_certificates=ca_pem)
    if not _is_loopback(host):
        raise _unusable(endpoint, "Without TLS anyone on the way could read the token.", "host:port, with TLS")
    return target, None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _unusable(endpoint: str, message: str, allowed: str) -> WapError:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    return WapError(invalid, "INVALID_ARGUMENT", message, field="endpoint", given=endpoint[:80], allowed=allowed)


class Watch:
    """The time rules of one wait: how long to go on, and which errors a new watch can heal."""

    def __init__(self, now: Callable[[], float], timeout: float | None, patience: float) -> None:
        self._now = now
        self._timeout = timeout
        self._patience = patience
        self._end = None if timeout is None else now() + timeout
        self._lost_since: float | None = None

    def span(self, operation_id: str) -> float:
        """Seconds that the next watch may last; TimeoutError when the time is up."""
        if self._end is None:
            return WATCH_SPAN
        left = self._end - self._now()
        if left <= 0:
            raise TimeoutError(f"operation {operation_id} was not over after {self._timeout:g} s; it goes on")
        return min(WATCH_SPAN, left)

    def reached(self) -> None:
        """The control plane has answered."""
        self._lost_since = None

    def pause_after(self, error: WapError) -> float:
        """Seconds to wait before the next watch; raises `error` where waiting does not help."""
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return 0.0
        if not error.is_unavailable:
            raise error
        if self._lost_since is None:
            self._lost_since = self._now()
        if self._now() - self._lost_since >= self._patience:
            raise error
        return REOPEN_PAUSE
