"""A new certificate in time: at half of its life, give or take a tenth, so that a fleet does not ask at one moment."""

import random
import time
from dataclasses import replace

from wap.agent.v1 import stream_pb2, stream_pb2_grpc

from agent import identity as identities
from agent.identity import Identity

CALL_SECONDS = 10.0
HALF, SPREAD = 0.5, 0.1
RETRY_SECONDS, MIN_RETRY_SECONDS = 60.0, 0.5


def seconds_until_due(identity: Identity) -> float:
    """Seconds from now; not positive when it is due already."""
    ends = identity.certificate.not_valid_after_utc.timestamp()
    life = ends - identity.obtained_at
    share = HALF * random.uniform(1 - SPREAD, 1 + SPREAD)
    return identity.obtained_at + life * share - time.time()


def retry_seconds(identity: Identity) -> float:
    """Seconds until a renewal that failed is tried again: a minute, and sooner where little is left."""
    left = identity.certificate.not_valid_after_utc.timestamp() - time.time()
    return random.uniform(0.5, 1.0) * min(RETRY_SECONDS, max(MIN_RETRY_SECONDS, left / 10))


async def renew(stub: "stream_pb2_grpc.AgentServiceAsyncStub", identity: Identity, node_id: str) -> Identity:
    """A new key and its certificate; the old ones stay good until the new ones are used. Raises AioRpcError."""
    key = identities.new_key()
    request = stream_pb2.RenewCertificateRequest(csr_pem=identities.signing_request(key, node_id))
    reply = await stub.RenewCertificate(request, timeout=CALL_SECONDS)
    return replace(
        identity,
        key_pem=key,
        certificate_pem=reply.certificate_pem,
        ca_pem=reply.ca_pem,
        obtained_at=time.time(),
    )
