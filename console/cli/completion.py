"""Names for shell completion. Cheap or nothing: short deadlines, no retries, and silence when it fails."""

import contextlib
from collections.abc import Iterator

import stamina
from wap.control.v1.cluster_pb2 import ListClustersRequest
from wap.control.v1.project_pb2 import ListProjectsRequest

from console.client import Client, WapError
from console.client.config import ConfigError, load

DEADLINE = 1.0
"""Seconds; longer than this and the person has typed the name."""


def cluster_names(incomplete: str) -> list[str]:
    """Clusters of the default project where one is set, else of all projects."""
    try:
        project = load().project
        with _connection() as client:
            reply = client.clusters.ListClusters(ListClustersRequest(), timeout=DEADLINE)
    except (ConfigError, WapError):
        return []
    of_project = [one for one in reply.clusters if project in ("", one.project_name, one.project_id)]
    return sorted({one.name for one in of_project if one.name.startswith(incomplete)})


def project_names(incomplete: str) -> list[str]:
    """All projects that the logged-in user can see."""
    try:
        with _connection() as client:
            reply = client.projects.ListProjects(ListProjectsRequest(), timeout=DEADLINE)
    except (ConfigError, WapError):
        return []
    return [one.name for one in reply.projects if one.name.startswith(incomplete)]


@contextlib.contextmanager
def _connection() -> Iterator[Client]:
    config = load()
    if not (config.endpoint and config.token):
        raise ConfigError("not logged in")
    stamina.set_active(False)
    try:
        with Client(config.endpoint, ca_pem=config.ca_bytes(), token=config.token, client_name="wap-cli") as client:
            yield client
    finally:
        stamina.set_active(True)
