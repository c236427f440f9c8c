"""Drivers as child processes: started, killed, frozen, and never left behind."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.operations.driver import Order

ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """One running driver."""

    order: Order
    child: "subprocess.Popen[str]"
    log: Path

    @classmethod
    def start(cls, order: Order, directory: Path) -> "Process":
        """Start it and return when it works."""
        log = directory / f"{order.executor_id}.log"
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto' / 'gen'}"}
        with log.open("a") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.operations.driver", order.to_json()],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, log.read_text()
        assert json.loads(line) == {"executor": order.executor_id}
        return cls(order, child, log)

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.child.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """The exit code."""
        return self.child.wait(seconds)

    def end(self) -> None:
        """Nothing is left of it, whatever it was doing."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
