"""Nodes: one machine each, with instance, data volume, address and agent."""

from dataclasses import dataclass
from enum import StrEnum


class AgentState(StrEnum):
    """How the control plane sees an agent."""

    WAITING = "WAITING"
    CONNECTED = "CONNECTED"
    SILENT = "SILENT"
    BANNED = "BANNED"
    REMOVED = "REMOVED"


@dataclass(frozen=True)
class Slot:
    """A place for one member in a cluster: fixed when the cluster is planned.

    `name` is unique in the cluster ("rs0-1"); `zone` is the wish, the node may end elsewhere when the zone is full.
    """

    name: str
    node_id: str
    replica_set: str
    index: int
    zone: str
