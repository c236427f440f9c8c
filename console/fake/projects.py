"""ProjectService and NodeService of the fake."""

from typing import Any

from wap.control.v1 import node_pb2 as nd
from wap.control.v1 import project_pb2 as pb
from wap.control.v1.node_pb2_grpc import NodeServiceServicer
from wap.control.v1.project_pb2_grpc import ProjectServiceServicer
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN
from wap.type.v1.failure_pb2 import FAILURE_CODE_ALREADY_EXISTS, FAILURE_CODE_PROJECT_NOT_EMPTY

from console.fake.catalog import NAME, NAME_ALLOWED
from console.fake.gate import actor
from console.fake.refusals import Refused, invalid
from console.fake.world import World


class ProjectService(ProjectServiceServicer):
    """Projects by name."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Any) -> pb.CreateProjectResponse:
        """Only for administrators of everything."""
        actor().require("", ACCESS_ROLE_ADMIN)
        if not NAME.fullmatch(request.name):
            raise invalid("name", request.name, NAME_ALLOWED)
        if any(project.name == request.name for project in self._world.projects.values()):
            raise Refused(
                FAILURE_CODE_ALREADY_EXISTS, "There is a project of this name.", field="name", given=request.name
            )
        project = self._world.add_project(request.name)
        after = {"name": project.name}
        self._world.record(actor(), "CreateProject", f"project/{project.id}", project_id=project.id, after=after)
        return pb.CreateProjectResponse(project=self._counted(project))

    async def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
        """By id or name."""
        found = self._world.project_by(actor(), project_id=request.project_id, name=request.name)
        return pb.GetProjectResponse(project=self._counted(found))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Any) -> pb.ListProjectsResponse:
        """Those that the caller can see."""
        visible = [self._counted(one) for one in self._world.projects.values() if actor().sees(one.id)]
        return pb.ListProjectsResponse(projects=sorted(visible, key=lambda one: one.name))

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Any) -> pb.DeleteProjectResponse:
        """Only when no cluster is left."""
        project = self._world.project_by(actor(), project_id=request.project_id)
        actor().require(project.id, ACCESS_ROLE_ADMIN)
        left = len(self._world.live_clusters(project.id))
        if left:
            raise Refused(
                FAILURE_CODE_PROJECT_NOT_EMPTY,
                "The project still has clusters.",
                field="project_id",
                given=f"{left} clusters",
                allowed="a project without clusters",
            )
        del self._world.projects[project.id]
        self._world.record(actor(), "DeleteProject", f"project/{project.id}", project_id=project.id)
        return pb.DeleteProjectResponse()

    def _counted(self, project: pb.Project) -> pb.Project:
        project.cluster_count = len(self._world.live_clusters(project.id))
        return project


class NodeService(NodeServiceServicer):
    """Nodes by name."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def GetNode(self, request: nd.GetNodeRequest, context: Any) -> nd.GetNodeResponse:
        """One node."""
        return nd.GetNodeResponse(node=self._world.node_by(actor(), request.node_id))

    async def ListNodes(self, request: nd.ListNodesRequest, context: Any) -> nd.ListNodesResponse:
        """Removed nodes only when asked for."""
        found = [
            node
            for node in self._world.nodes.values()
            if actor().sees(node.project_id)
            and request.project_id in ("", node.project_id)
            and request.cluster_id in ("", node.cluster_id)
            and (request.include_removed or node.agent_state != nd.AGENT_STATE_REMOVED)
        ]
        return nd.ListNodesResponse(nodes=sorted(found, key=lambda node: node.name))

    async def BanAgent(self, request: nd.BanAgentRequest, context: Any) -> nd.BanAgentResponse:
        """The agent counts as gone from now on."""
        node = self._world.node_by(actor(), request.node_id)
        actor().require(node.project_id, ACCESS_ROLE_ADMIN)
        if not request.reason:
            raise invalid("reason", "", "one sentence")
        node.agent_state = nd.AGENT_STATE_BANNED
        for cluster in self._world.clusters.values():
            for member in cluster.members:
                if member.node_id == node.id:
                    member.agent_connected = False
        after = {"reason": request.reason}
        self._world.record(actor(), "BanAgent", f"node/{node.id}", project_id=node.project_id, after=after)
        return nd.BanAgentResponse(node=node)
