"""The node's mongod kept as the goal says: started and stopped on order, started again by itself when it dies.

It asks nobody: with the control plane away, after a restart of the agent and after one of the machine it works the same.
One lock guards all that starts or ends mongod, so that an order and the restarting never meet.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import psutil

from agent.failure import FailureCode, NodeFailure
from agent.logs import Log
from agent.mongod import config, goal
from agent.mongod import log as mongod_log
from agent.mongod.client import MongodClient
from agent.mongod.distribution import ensure_distribution, find_binary
from agent.mongod.exit_codes import start_failure
from agent.mongod.goal import Goal
from agent.mongod.process import MongodProcess
from agent.mongod.restart_policy import NEEDED_BYTES, Death, Hold, RestartPolicy
from agent.mongod.settings import MongodSecrets, MongodSettings
from agent.mongod.shutdown import end, leave_in_order
from agent.settings import NodePaths
from agent.volume import ensure_volume

WATCH_SECONDS = 0.25
ANSWER_POLL_SECONDS = 0.05
# Who holds the port may be somebody else, who says nothing.
ANSWER_SECONDS = 2.0
Progress = Callable[[str], None]
log = Log(__name__)


class Supervisor:
    """At most one mongod. `changed` is called when something that a report tells may have changed."""

    def __init__(self, paths: NodePaths, changed: Callable[[], None]) -> None:
        self._paths, self._changed = paths, changed
        self._process = MongodProcess(paths)
        self._policy = RestartPolicy()
        self._lock = asyncio.Lock()
        self._client: MongodClient | None = None
        self.goal = goal.load(paths.goal)
        # One sentence when mongod should run and does not.
        self.problem = ""
        # It will not be started before something else changes; `problem` says what.
        self.gave_up = False
        # Restarts that nobody ordered, since the agent started.
        self.restarts = 0

    @property
    def pid(self) -> int:
        """Pid of the living mongod, else 0."""
        return self._process.pid

    @property
    def uptime(self) -> float:
        """Seconds since mongod was started, or adopted by this agent."""
        return self._process.uptime

    def client(self) -> MongodClient:
        """The connection to the running mongod. Raises MONGOD_UNREACHABLE when none runs."""
        if self.goal is None or not self.pid:
            raise NodeFailure(FailureCode.MONGOD_UNREACHABLE, "mongod does not run on this node", retryable=True)
        if self._client is None:
            self._client = MongodClient(self.goal.settings, self._paths.keyfile, self._paths.cluster_ca)
        return self._client

    async def close(self) -> None:
        """Leave mongod alone from now on; it keeps running."""
        await self._disconnect()

    async def start(self, settings: MongodSettings, secrets: MongodSecrets, progress: Progress) -> tuple[int, str]:
        """mongod runs with these settings and secrets and answers: its (pid, version). From then on it is the goal.

        A mongod that runs so already is left alone. Where it does not come up, the goal is what it was before.
        """
        async with self._lock:
            before = self.goal
            await ensure_volume(self._paths, settings.volume_id, progress, may_format=False)
            binary = await ensure_distribution(settings, self._paths.distributions, progress)
            if self.pid and not await self._suits(settings, secrets):
                await self._end(progress, ignore_quorum=False)
            if not self.pid:
                config.write_secrets(self._paths, secrets)
                config.write_config(self._paths, settings)
            self.goal = Goal(True, settings)
            goal.save(self._paths.goal, self.goal)
            if not self.pid:
                await self._disconnect()
                self._process.spawn(binary)
                log.info("mongod started on order", pid=self.pid)
            try:
                version = await self._answering(progress)
            except NodeFailure:
                self.goal = before
                goal.save(self._paths.goal, self.goal)
                raise
            self._all_is_well()
            return self.pid, version

    async def stop(self, progress: Progress, *, ignore_quorum: bool) -> int:
        """mongod is stopped in order and stays so: its exit code. Raises QUORUM_AT_RISK."""
        async with self._lock:
            code = await self._end(progress, ignore_quorum=ignore_quorum) if self.pid else 0
            if self.goal is not None:  # also where it was dead already, waiting to be started again
                self._want_stopped(self.goal)
            self._all_is_well()
            return code

    async def watch(self) -> None:
        """Keep mongod running as long as the goal says so. Never returns."""
        while True:
            async with self._lock:
                try:
                    if self.goal is not None and self.goal.running and not self._process.alive():
                        await self._mongod_is_dead(self.goal.settings)
                except Exception:
                    log.exception("the look after mongod failed")
            await asyncio.sleep(WATCH_SECONDS)

    async def _mongod_is_dead(self, settings: MongodSettings) -> None:
        if self._process.known:
            self._note_death(settings)
        decision = self._policy.decide(self._free_bytes(settings))
        if isinstance(decision, Hold):
            self._tell(decision.problem, gave_up=True)
        elif time.monotonic() >= decision.at:
            await self._start_again(settings)

    def _note_death(self, settings: MongodSettings) -> None:
        process = self._process
        code = process.exit_code()
        full = mongod_log.out_of_space(self._paths.mongod_log, process.log_offset)
        last = mongod_log.last_error(self._paths.mongod_log, self._paths.mongod_output, process.log_offset)
        failure = start_failure(code, out_of_space=full, last_error=last)
        self._policy.died(Death(time.monotonic(), process.uptime, full, self._free_bytes(settings)))
        log.error("mongod died", exit_code=code, uptime=round(process.uptime, 1), why=failure.message)
        process.forget()
        self._tell(f"mongod died and is started again: {failure.message}", gave_up=False)

    async def _start_again(self, settings: MongodSettings) -> None:
        try:
            await ensure_volume(self._paths, settings.volume_id, _silent, may_format=False)
            config.write_config(self._paths, settings)
            await self._disconnect()
            self._process.spawn(find_binary(settings, self._paths.distributions))
        except (NodeFailure, OSError) as failure:
            self._policy.died(Death(time.monotonic(), 0.0, False, max(NEEDED_BYTES, self._free_bytes(settings))))
            log.error("mongod cannot be started", why=str(failure))
            self._tell(f"mongod cannot be started: {failure}", gave_up=False)
            return
        self.restarts += 1
        log.info("mongod started again", pid=self.pid, restarts=self.restarts)
        self._changed()

    def answered(self) -> None:
        """mongod was seen to answer: what was wrong with it is over."""
        if self.problem and self.pid:
            self._tell("", gave_up=False)

    async def _suits(self, settings: MongodSettings, secrets: MongodSecrets) -> bool:
        """Whether the running mongod may stay; a new certificate is given to it without a restart."""
        if self.goal is None or self.goal.settings != settings:
            return False
        if config.same_secrets(self._paths, secrets):
            return True
        if not config.same_keyfile(self._paths, secrets):
            return False
        config.write_secrets(self._paths, secrets)
        await self.client().rotate_certificates()
        await self._disconnect()
        return True

    async def _end(self, progress: Progress, *, ignore_quorum: bool) -> int:
        if not ignore_quorum:
            await leave_in_order(self.client(), progress, ignore_quorum=False)
        if self.goal is not None:  # before it ends: after a crash in between it must not be started again
            self._want_stopped(self.goal)
        code = await end(self._process, progress)
        log.info("mongod stopped on order", exit_code=code)
        self._process.forget()
        await self._disconnect()
        return code

    async def _answering(self, progress: Progress) -> str:
        """The version of the mongod that was just started, when it answers."""
        assert self.goal is not None
        settings = self.goal.settings
        while True:
            if not self._process.alive():
                raise self._stillborn()
            if await _listens(settings.bind_ip, settings.port):
                with contextlib.suppress(NodeFailure, TimeoutError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        return await self.client().version()
            progress("mongod to answer")
            await asyncio.sleep(ANSWER_POLL_SECONDS)

    def _stillborn(self) -> NodeFailure:
        paths, since, code = self._paths, self._process.log_offset, self._process.exit_code()
        failure = start_failure(
            code,
            out_of_space=mongod_log.out_of_space(paths.mongod_log, since),
            last_error=mongod_log.last_error(paths.mongod_log, paths.mongod_output, since),
        )
        self._process.forget()
        return failure

    def _want_stopped(self, now: Goal) -> None:
        self.goal = Goal(False, now.settings)
        goal.save(self._paths.goal, self.goal)

    def _all_is_well(self) -> None:
        self._policy.reset()
        self._tell("", gave_up=False)

    def _tell(self, problem: str, *, gave_up: bool) -> None:
        if gave_up and not self.gave_up:
            log.error("mongod is not started any more", why=problem)
        self.problem, self.gave_up = problem, gave_up
        self._changed()

    def _free_bytes(self, settings: MongodSettings) -> int:
        try:
            return int(psutil.disk_usage(str(self._paths.volume(settings.volume_id))).free)
        except OSError:
            return NEEDED_BYTES  # the volume is away, which is another problem than a full one

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def _listens(host: str, port: int) -> bool:
    """Whether the port takes connections: much sooner known than by the driver, which looks twice a second."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _silent(_: str) -> None:
    """Nobody waits for this."""
