"""Our two ports and their TLS: the public API (and enrolment), and enrolled agents over mutual TLS.

Two, because gRPC asks either every peer of a port for a certificate or none. Both show one certificate under the
installation's authority, which is renewed while the ports stay open.
"""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc

from controlplane.domain.clock import Clock
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.fleet.authority import LISTENER_LIFE, Authority

MAX_MESSAGE = 4 * 1024 * 1024
MAX_METADATA = 16 * 1024
API_STREAMS = 100
# Streams per connection: an agent has Connect and Report open, and renews its certificate now and then.
AGENT_STREAMS = 8
CONNECTION_HOURS = 1

# Without the third option a frozen peer is noticed after 64 s instead of 8 s: HTTP/2's own ping timeout decides.
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Peers ping us every 5 s too; the default of 5 min between pings would end their connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # Both, or what lies between the soft and the hard limit is refused now and then.
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    # A second server on the port is an error, not a silent split of clients.
    ("grpc.so_reuseport", 0),
)
API_OPTIONS: tuple[tuple[str, Any], ...] = (*_OPTIONS, ("grpc.max_concurrent_streams", API_STREAMS))
AGENT_OPTIONS: tuple[tuple[str, Any], ...] = (
    *_OPTIONS,
    ("grpc.max_concurrent_streams", AGENT_STREAMS),
    # A stream outlives the certificate of its handshake; nobody stays on one connection for ever.
    ("grpc.max_connection_age_ms", CONNECTION_HOURS * 3_600_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
    # A connection without a stream is no agent at work.
    ("grpc.max_connection_idle_ms", 60_000),
)


class Listeners:
    """How to listen: with one certificate for all names by which we are dialled."""

    def __init__(self, authority: Authority, host: str, advertise: str) -> None:
        self._host = host
        names = [advertise, host, "127.0.0.1", "localhost"]
        self._certificate = ListenerCertificate(authority, names, authority.clock)

    def api(self, server: grpc.aio.Server, port: int) -> int:
        """Add the API port (TLS); the port that was bound."""
        return self._bind(server, port, "api_port", self._certificate.credentials(clients=False))

    def agents(self, server: grpc.aio.Server, port: int) -> int:
        """Add the agents' port (mutual TLS); the port that was bound."""
        return self._bind(server, port, "agent_port", self._certificate.credentials(clients=True))

    def _bind(self, server: grpc.aio.Server, port: int, field: str, credentials: grpc.ServerCredentials) -> int:
        address = f"{self._host}:{port}"
        try:
            bound = server.add_secure_port(address, credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            raise WapFailure(
                FailureCode.UNAVAILABLE,
                f"cannot listen on {address}: the port is taken or the address is not this machine's",
                field=field,
                given=address,
                allowed="a free port",
            )
        return bound


class ListenerCertificate:
    """The certificate of our ports; a new one is made at half life, for the next handshake, without a restart."""

    def __init__(self, authority: Authority, hosts: list[str], clock: Clock, life: timedelta = LISTENER_LIFE) -> None:
        self._authority, self._hosts, self._clock, self._life = authority, hosts, clock, life
        self._lock = threading.Lock()  # gRPC asks from its own threads
        self._issue()

    def _issue(self) -> None:
        self._pair = self._authority.issue_listener(self._hosts, self._life)
        self._renew_at = self._clock.now() + self._life / 2

    def credentials(self, *, clients: bool) -> grpc.ServerCredentials:
        """Credentials of a port; with `clients` only peers with an agent's certificate get through the handshake."""
        return grpc.dynamic_ssl_server_credentials(self._configuration(clients), self._fetcher(clients), clients)

    def _fetcher(self, clients: bool) -> Callable[[], Any]:
        """What gRPC asks before each handshake. None for no change: else every connection keeps a TLS context alive."""
        known = self._pair

        def fetch() -> Any:
            nonlocal known
            with self._lock:
                if self._clock.now() >= self._renew_at:
                    self._issue()
                if known is self._pair:
                    return None
                known = self._pair
            return self._configuration(clients)

        return fetch

    def _configuration(self, clients: bool) -> Any:
        roots = self._authority.ca_pem.encode() if clients else None
        return grpc.ssl_server_certificate_configuration([self._pair], roots)
