"""ProjectService: the groups that clusters and permissions belong to."""

from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import project_pb2 as pb
from wap.control.v1.project_pb2_grpc import ProjectServiceServicer

from controlplane.api import calls
from controlplane.api.changes import change
from controlplane.api.services import Services
from controlplane.api.wire_clusters import project_to_wire
from controlplane.domain.cluster import check_name
from controlplane.domain.failure import not_found
from controlplane.store import clusters, projects
from controlplane.store.tables import Project


class Projects(ProjectServiceServicer):
    """Projects."""

    def __init__(self, services: Services) -> None:
        self._database, self._clock = services.database, services.clock

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Any) -> pb.CreateProjectResponse:
        """A project without clusters."""
        call, now = calls.current(), self._clock.now()
        name = check_name(request.name)

        def work(tx: Session) -> Project:
            project = projects.insert(tx, name, now)
            call.record(tx, now, f"project/{project.id}", after={"name": name}, project_id=project.id)
            return project

        return pb.CreateProjectResponse(project=project_to_wire(await change(self._database, work), 0))

    async def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
        """One project."""
        project_id = calls.current().project_id

        def work(tx: Session) -> pb.Project:
            found = projects.get(tx, project_id)
            if found is None:
                raise not_found("project", project_id)
            return project_to_wire(found, clusters.count_living(tx, found.id))

        return pb.GetProjectResponse(project=await self._database.read(work))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Any) -> pb.ListProjectsResponse:
        """All that the caller can see."""
        visible = calls.current().projects()

        def work(tx: Session) -> list[pb.Project]:
            counts = projects.cluster_counts(tx)
            return [project_to_wire(one, counts.get(one.id, 0)) for one in projects.list_all(tx, visible)]

        return pb.ListProjectsResponse(projects=await self._database.read(work))

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Any) -> pb.DeleteProjectResponse:
        """Only without clusters; the roles in it go with it."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> None:
            project = projects.lock(tx, request.project_id)
            if project is None:
                raise not_found("project", request.project_id)
            projects.delete(tx, project)
            call.record(tx, now, f"project/{project.id}", before={"name": project.name})

        await change(self._database, work)
        return pb.DeleteProjectResponse()
