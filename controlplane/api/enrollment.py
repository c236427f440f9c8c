"""EnrollmentService: a one-time token and a certificate request in, an identity out."""

import re
import time
from collections import OrderedDict
from typing import Any

import structlog
from sqlalchemy.orm import Session
from wap.agent.v1 import stream_pb2, stream_pb2_grpc

from controlplane.api.errors import abort
from controlplane.domain import ids
from controlplane.domain.clock import Clock
from controlplane.domain.failure import FailureCode, Refused, WapFailure
from controlplane.fleet.authority import Authority
from controlplane.fleet.certificates import Leaf, check_request, fingerprint
from controlplane.fleet.reports import plain
from controlplane.store import audit, nodes
from controlplane.store.database import Database
from controlplane.store.tables import Node

# Attempts per address: a whole cluster may boot behind one address, a guesser gets nowhere against 256 bits.
ATTEMPTS_PER_SECOND, ATTEMPTS_BURST = 2.0, 200.0
ADDRESSES_KEPT = 10_000
NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
log = structlog.get_logger(__name__)


class EnrollmentService(stream_pb2_grpc.EnrollmentServiceServicer):
    """Served without client certificates, since who enrols has none yet."""

    def __init__(self, database: Database, clock: Clock, authority: Authority, agent_endpoint: str) -> None:
        self._database, self._clock, self._authority = database, clock, authority
        self._agent_endpoint = agent_endpoint
        self._allowances: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def Enroll(self, request: stream_pb2.EnrollRequest, context: Any) -> stream_pb2.EnrollResponse:
        """One answer for every bad token, whatever is wrong with it; the audit has the exact reason."""
        request_id = ids.request_id()
        peer = context.peer()
        try:
            self._throttle(peer)
            key = check_request(request.csr_pem)  # before the token is spent: a bad request must not cost it
            leaf = await self._spend(request, fingerprint(key), peer, request_id)
        except Exception as error:  # noqa: BLE001 - the edge of the call
            await abort(context, error, request_id)
        log.info("agent enrolled", node=request.node_id)
        return stream_pb2.EnrollResponse(
            certificate_pem=leaf.pem, ca_pem=self._authority.ca_pem, agent_endpoint=self._agent_endpoint
        )

    async def _spend(self, request: stream_pb2.EnrollRequest, key: str, peer: str, request_id: str) -> Leaf:
        # Nothing that is no id gets into a certificate; the refusal is the same as for a token that is wrong.
        node_id = request.node_id if NODE_ID.fullmatch(request.node_id) else ""
        leaf = self._authority.issue_agent(node_id or "nobody", request.csr_pem)

        def work(tx: Session) -> WapFailure | None:
            now = self._clock.now()
            reason = nodes.spend_join(tx, node_id, request.join_token, key, now) if node_id else "no node id"
            if reason is None:
                nodes.set_certificate(tx, node_id, leaf.serial, leaf.expires)
                _take_names(tx.get_one(Node, node_id), request)
            shown = node_id or plain(request.node_id, 64)
            audit.record(
                tx,
                now=now,
                actor=f"agent:{shown}",
                action="agent.join_refused" if reason else "agent.enrolled",
                resource=f"node/{shown}",
                after={"reason": reason} if reason else {"serial": leaf.serial},
                request_id=request_id,
                peer=peer,
                outcome=FailureCode.JOIN_REFUSED if reason else "ok",
            )
            return Refused(FailureCode.JOIN_REFUSED, "the join token is not valid for this node") if reason else None

        refusal = await self._database.write(work)
        if refusal is not None:
            raise refusal
        return leaf

    def _throttle(self, peer: str) -> None:
        address = peer.rpartition(":")[0]
        now = time.monotonic()
        allowance, measured = self._allowances.pop(address, (ATTEMPTS_BURST, now))
        allowance = min(ATTEMPTS_BURST, allowance + (now - measured) * ATTEMPTS_PER_SECOND)
        self._allowances[address] = (allowance - 1, now) if allowance >= 1 else (allowance, now)
        if len(self._allowances) > ADDRESSES_KEPT:
            self._allowances.popitem(last=False)
        if allowance < 1:
            raise Refused(FailureCode.TOO_MANY_ATTEMPTS, "too many attempts to enrol from this address", retryable=True)


def _take_names(node: Node, request: stream_pb2.EnrollRequest) -> None:
    node.agent_version, node.host_name = plain(request.agent_version, 255), plain(request.host_name, 255)
