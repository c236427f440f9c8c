"""`wap project`."""

from dataclasses import replace
from typing import Annotated

import typer
from wap.control.v1.project_pb2 import CreateProjectRequest, DeleteProjectRequest, ListProjectsRequest

from console.cli.command import Commands, YesOption
from console.cli.completion import project_names
from console.cli.confirm import confirm_name
from console.cli.session import Session, table
from console.cli.text import ago
from console.client.config import config_path, load_file, save

app = Commands("Projects: what clusters and permissions belong to.")

ProjectArgument = Annotated[str, typer.Argument(metavar="NAME", autocompletion=project_names)]


@app.command("create")
def create_project(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Make a project."""
    with session.client() as client:
        project = client.projects.CreateProject(CreateProjectRequest(name=name)).project
        session.answer(project, lambda: f"Project {project.name} created ({project.id}).")


@app.command("list")
def list_projects(session: Session) -> None:
    """List the projects that you can see; * marks the default."""
    with session.client() as client:
        reply = client.projects.ListProjects(ListProjectsRequest())
    rows = [
        (
            "*" if session.config.project in (p.name, p.id) else "",
            p.name,
            str(p.cluster_count),
            ago(p.create_time),
            p.id,
        )
        for p in reply.projects
    ]
    columns = ("", "NAME", ">CLUSTERS", "CREATED", "ID")
    session.answer(reply, lambda: table(columns, rows, empty="No projects yet: wap project create NAME"))


@app.command("use")
def use_project(session: Session, name: ProjectArgument) -> None:
    """Make a project the default of later commands."""
    with session.client() as client:
        project = client.project(name)
    path = config_path()
    save(replace(load_file(path), project=project.name), path)
    session.answer(project, lambda: f"Project {project.name} is the default now.")


@app.command("delete")
def delete_project(
    session: Session,
    name: ProjectArgument,
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="The name again, instead of typing it.")] = None,
    yes: YesOption = False,
) -> None:
    """Delete a project that has no clusters left."""
    with session.client() as client:
        project = client.project(name)
        if not yes:
            confirm_name(session, "project", project.name, confirm)
        client.projects.DeleteProject(DeleteProjectRequest(project_id=project.id))
    path = config_path()
    stored = load_file(path)
    if stored.project in (project.name, project.id):
        save(replace(stored, project=""), path)
    session.answer(project, lambda: f"Project {project.name} deleted.")
