"""The connection to the control plane and how its refusals are read."""

import random
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agent.identity import Identity

# All three are needed: without the ping time-out of HTTP/2 itself a frozen peer is noticed only after a minute.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
# Each channel dials at once: the waiting between attempts is ours, with full jitter over the whole fleet.
FRESH = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
FIRST_SECONDS, MAX_SECONDS = 0.2, 15.0
# What reading from a stream gives at its orderly end.
EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Refusal:
    """What the server said: gRPC status and, where it gave one, the stable reason."""

    status: grpc.StatusCode
    reason: str
    message: str


def open_channel(identity: Identity) -> grpc.aio.Channel:
    """A channel with mutual TLS to the agents' port."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=identity.ca_pem.encode(),
        private_key=identity.key_pem.encode(),
        certificate_chain=identity.certificate_pem.encode(),
    )
    return grpc.aio.secure_channel(identity.agent_endpoint, credentials, options=[*KEEPALIVE, *FRESH])


def open_pinned_channel(endpoint: str, ca_pem: str) -> grpc.aio.Channel:
    """A channel for enrolment: no client certificate, and no authority trusted but the pinned one."""
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem.encode())
    return grpc.aio.secure_channel(endpoint, credentials, options=[*KEEPALIVE, *FRESH])


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Read google.rpc.ErrorInfo from the trailing metadata, if it is there."""
    reason = ""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
    return Refusal(error.code(), reason, (error.details() or "")[:300])


def full_jitter(attempt: int) -> float:
    """Seconds to wait before attempt 0, 1, 2, ...: uniform from zero, so that a fleet does not come back as one."""
    return random.uniform(0, min(MAX_SECONDS, FIRST_SECONDS * 2 ** min(attempt, 10)))
