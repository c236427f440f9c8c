"""NodeService: the machines and their agents."""

from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import node_pb2 as pb
from wap.control.v1.node_pb2_grpc import NodeServiceServicer

from controlplane.api import calls
from controlplane.api.changes import change
from controlplane.api.requests import check_printable
from controlplane.api.services import Services
from controlplane.api.wire_clusters import node_to_wire
from controlplane.domain.failure import FailureCode, Refused, not_found
from controlplane.domain.node import AgentState
from controlplane.store import clusters, nodes

MAX_REASON = 500


class Nodes(NodeServiceServicer):
    """Nodes."""

    def __init__(self, services: Services) -> None:
        self._database, self._clock = services.database, services.clock
        self._ingest = services.monitoring.ingest

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        """One node, also when it is gone."""
        node = await self._database.read(lambda tx: _shown(tx, request.node_id))
        for loss in self._ingest.losses(node.id):
            node.telemetry_losses.add(reason=loss.reason, count=loss.count, on_node=loss.on_node)
        return pb.GetNodeResponse(node=node)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """By cluster and name."""
        call = calls.current()
        wanted = request.project_id or call.project_id
        visible = frozenset({wanted}) if wanted else call.projects()

        def work(tx: Session) -> list[pb.Node]:
            rows = nodes.list_nodes(
                tx,
                project_ids=visible,
                cluster_id=request.cluster_id,
                include_removed=request.include_removed,
            )
            return [node_to_wire(node, cluster) for node, cluster in rows]

        return pb.ListNodesResponse(nodes=await self._database.read(work))

    async def BanAgent(self, request: pb.BanAgentRequest, context: Any) -> pb.BanAgentResponse:
        """Sessions of the agent end within seconds; a second ban changes nothing."""
        call, now = calls.current(), self._clock.now()
        reason = check_printable("reason", request.reason, MAX_REASON)

        def work(tx: Session) -> pb.Node:
            node = nodes.get(tx, request.node_id)
            if node is None:
                raise not_found("node", request.node_id)
            if node.removed_at is not None:
                raise Refused(
                    FailureCode.CLUSTER_STATE,
                    f"node {node.name} is removed",
                    field="node_id",
                    given=node.id,
                    allowed="a node that is not removed",
                )
            before = {"agent_state": str(node.agent_state)}
            nodes.ban(tx, node.id, now)
            after = {"agent_state": str(AgentState.BANNED), "reason": reason}
            call.record(tx, now, f"node/{node.id}", before=before, after=after)
            tx.flush()
            return _shown(tx, node.id)

        return pb.BanAgentResponse(node=await change(self._database, work))


def _shown(tx: Session, node_id: str) -> pb.Node:
    node = nodes.get(tx, node_id)
    cluster = clusters.get(tx, node.cluster_id) if node is not None else None
    if node is None or cluster is None:
        raise not_found("node", node_id)
    return node_to_wire(node, cluster)
