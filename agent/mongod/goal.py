"""What must run on this node, on disk: the agent keeps to it with the control plane away. No secrets in it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.files import remove, write_private
from agent.mongod.settings import MongodSettings


@dataclass(frozen=True)
class Goal:
    """A mongod with these settings, running or stopped."""

    running: bool
    settings: MongodSettings


def load(path: Path) -> Goal | None:
    """The goal, or None when nothing was asked of this node yet."""
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    return Goal(stored["running"], MongodSettings(**stored["settings"]))


def save(path: Path, goal: Goal | None) -> None:
    """Keep it, or forget it where it is None."""
    if goal is None:
        remove(path)
    else:
        write_private(path, json.dumps(asdict(goal), indent=2))
