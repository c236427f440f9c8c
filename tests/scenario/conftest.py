"""The whole product on this machine: real control plane processes, real agents, real mongods, the EC2 sandbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from wap.control.v1 import project_pb2

from console.client import Client
from scripts.stack import Stack

PROJECT = "stories"


@pytest.fixture
def stack(tmp_path: Path, mongodb_dir: Path) -> Iterator[Stack]:
    """Sandbox up, no server yet; everything down again at the end."""
    world = Stack(tmp_path / "state")
    world.start_sandbox()
    yield world
    world.stop()


def logged_in(stack: Stack) -> Client:
    """An administrator's client of the last server, with the project made."""
    client = stack.client()
    client.login("admin", stack.admin_password())
    names = {project.name for project in client.projects.ListProjects(project_pb2.ListProjectsRequest()).projects}
    if PROJECT not in names:
        client.projects.CreateProject(project_pb2.CreateProjectRequest(name=PROJECT))
    return client
