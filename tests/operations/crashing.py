"""A process that dies at one boundary, without the process: everything the run still does is lost from there on.

What a dead process cannot do any more is reach another boundary, so all of them end the run that reaches them. Its
handlers that were under way may still have their effect, as a request that was sent has.
"""

import asyncio

from controlplane.operations.engine import Durable, Engine, Runner
from tests.waiting import eventually


class Crash(asyncio.CancelledError):
    """The end of the process, as far as the code that it passes can tell: nobody handles it, nothing is recorded."""


class Crashing:
    """Ends the runs of an engine at the boundary in `target`, and starts them again as another start would."""

    def __init__(self) -> None:
        self.target = ""
        # Steps that must not complete before their own boundaries have had their turn.
        self.to_come: set[str] = set()
        self.crashes: list[str] = []
        self._dead, self._active = False, 0
        self._runner: Runner | None = None
        self._engine: Engine | None = None

    def watch(self, runner: Runner, engine: Engine) -> Runner:
        """The runner for the engine to call."""
        self._runner, self._engine = runner, engine
        return self

    def boundary(self, name: str) -> None:
        """For `Tools.boundary`."""
        if name == self.target:
            self._dead = True
            self.crashes.append(name)
        when, _, step = name.partition(":")
        if self._dead or (when == "after" and step in self.to_come):
            raise Crash(name)

    async def run(self, operation_id: str, attempt: int, durable: Durable) -> str:
        """Implements engine.Runner."""
        assert self._runner is not None
        self._active += 1
        try:
            return await self._runner.run(operation_id, attempt, durable)
        finally:
            self._active -= 1

    async def gave_up(self, operation_id: str, attempt: int) -> None:
        """Implements engine.Runner."""
        assert self._runner is not None
        await self._runner.gave_up(operation_id, attempt)

    async def crashed(self) -> None:
        """Return when the process would be gone."""
        await eventually(lambda: self._dead and not self._active, within=30, every=0.01)

    async def start_again(self, target: str = "") -> None:
        """As a start of the same control plane does; it dies at `target`."""
        assert self._engine is not None
        self.target, self._dead = target, False
        await eventually(lambda: self._engine and self._engine.take_over([self._engine.executor_id]), within=10)
