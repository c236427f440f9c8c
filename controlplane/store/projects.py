"""Projects."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.domain import ids
from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store.database import take_turns
from controlplane.store.tables import Cluster, Grant, Project


def insert(tx: Session, name: str, now: datetime) -> Project:
    """A new project; ALREADY_EXISTS for a taken name."""
    take_turns(tx, "projects")
    if by_name(tx, name) is not None:
        raise Refused(
            FailureCode.ALREADY_EXISTS,
            f"there is already a project {name}",
            field="name",
            given=name,
            allowed="a name that no project has",
        )
    project = Project(id=ids.project_id(), name=name, created_at=now)
    tx.add(project)
    tx.flush()
    return project


def get(tx: Session, project_id: str) -> Project | None:
    """The project."""
    return tx.get(Project, project_id)


def lock(tx: Session, project_id: str) -> Project | None:
    """The project, which nobody else deletes or fills before this transaction ends."""
    return tx.get(Project, project_id, with_for_update=True)


def by_name(tx: Session, name: str) -> Project | None:
    """The project of that name."""
    return tx.scalar(select(Project).where(Project.name == name))


def list_all(tx: Session, project_ids: Collection[str] | None) -> Sequence[Project]:
    """Projects by name; None means all."""
    query = select(Project).order_by(Project.name)
    return tx.scalars(query if project_ids is None else query.where(Project.id.in_(project_ids))).all()


def cluster_counts(tx: Session) -> dict[str, int]:
    """Living clusters by project."""
    query = select(Cluster.project_id, func.count()).where(Cluster.state != ClusterState.DELETED)
    return {project_id: number for project_id, number in tx.execute(query.group_by(Cluster.project_id)).all()}


def delete(tx: Session, project: Project) -> None:
    """Remove an empty project and the roles in it."""
    count = cluster_counts(tx).get(project.id, 0)
    if count:
        raise Refused(
            FailureCode.PROJECT_NOT_EMPTY,
            f"project {project.name} has {count} clusters",
            field="project_id",
            given=project.id,
            allowed="a project without clusters",
        )
    for grant in tx.scalars(select(Grant).where(Grant.project_id == project.id)):
        tx.delete(grant)
    tx.delete(project)
