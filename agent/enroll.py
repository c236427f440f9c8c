"""Becoming known: the join token from the boot script and a key made here, for a certificate."""

import asyncio
import socket
import time
from dataclasses import replace

import grpc
from wap.agent.v1 import stream_pb2, stream_pb2_grpc

from agent import identity as identities
from agent.channel import full_jitter, open_pinned_channel, refusal_of
from agent.identity import Identity
from agent.logs import Log
from agent.release import AGENT_VERSION
from agent.settings import AgentConfig, NodePaths, spend_token

ATTEMPT_SECONDS = 10.0
# The server may answer otherwise later; every other answer is final.
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
log = Log(__name__)


class EnrollmentRefusedError(Exception):
    """The control plane does not let this node in; trying again with the same token cannot help."""


async def ensure_enrolled(paths: NodePaths, config: AgentConfig) -> Identity:
    """The stored identity, or a new one; waits for the control plane as long as it is away."""
    identity = identities.load(paths.identity)
    if identity is None:
        identity = Identity(identities.new_key())
        # Kept before the first attempt: a repeat after a crash asks with the same key.
        identities.save(paths.identity, identity)
    if not identity.enrolled:
        identity = await _enroll(identity, config)
        identities.save(paths.identity, identity)
    if config.join_token:
        spend_token(paths.config, config)
    return identity


async def _enroll(identity: Identity, config: AgentConfig) -> Identity:
    if not config.join_token:
        raise EnrollmentRefusedError(
            "this node has no identity and no join token: it was banned, or its boot script did not give one; "
            "replace the node"
        )
    request = stream_pb2.EnrollRequest(
        join_token=config.join_token,
        node_id=config.node_id,
        csr_pem=identities.signing_request(identity.key_pem, config.node_id),
        agent_version=AGENT_VERSION,
        host_name=socket.gethostname(),
    )
    attempt = 0
    while True:
        try:
            async with open_pinned_channel(config.enroll_endpoint, config.ca_pem) as channel:
                stub = stream_pb2_grpc.EnrollmentServiceStub(channel)
                reply = await stub.Enroll(request, timeout=ATTEMPT_SECONDS)
            break
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            if refusal.status not in PASSING:
                raise EnrollmentRefusedError(
                    f"the control plane refused to enrol this node: {refusal.reason or refusal.status.name}: "
                    f"{refusal.message}"
                ) from None
            log.warning("enrolment has to wait", status=refusal.status.name, message=refusal.message, attempt=attempt)
        await asyncio.sleep(full_jitter(attempt))
        attempt += 1
    log.info("enrolled", node=config.node_id, agent_endpoint=reply.agent_endpoint)
    return replace(
        identity,
        certificate_pem=reply.certificate_pem,
        ca_pem=reply.ca_pem,
        agent_endpoint=reply.agent_endpoint,
        obtained_at=time.time(),
    )
