"""What the handlers of commands work on."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.mongod.supervisor import Supervisor
from agent.settings import NodePaths
from agent.telemetry.pace import Pace

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Node:
    """This node: where its files lie, its mongod, and how often both are sampled."""

    node_id: str
    paths: NodePaths
    mongod: Supervisor
    pace: Pace
