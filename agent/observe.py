"""What the agent sees of its node: asked of mongod and the machine, told with every heartbeat and at once on a change."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import psutil
from wap.agent.v1 import report_pb2

from agent.clock import ServerClock
from agent.failure import FailureCode, NodeFailure
from agent.logs import Log
from agent.mongod.view import ReplicaSetView
from agent.node import Node

# Often while something is going on, seldom while all is well; what is told of a lost primary is at most this old.
BUSY_SECONDS, IDLE_SECONDS = 1.0, 3.0
# mongod counts as not answering after this long; a start may take longer, recovery even minutes.
ANSWER_SECONDS = 3.0
# Changes sooner after another are told together.
GATHER_SECONDS = 0.1
log = Log(__name__)


class Observer:
    """Keeps one current view of mongod; `report` adds the machine's figures."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._node: Node | None = None
        self._busy: Callable[[], bool] = lambda: False
        self._view: ReplicaSetView | None = None
        self._version, self._trouble = "", ""
        # The run of mongod that has answered, and whether it still does.
        self._answered_pid, self._answers = 0, False
        self._told = b""
        self._news = asyncio.Event()
        self._look_now = asyncio.Event()
        psutil.cpu_percent()  # the first call only sets the mark to measure from

    def look(self) -> None:
        """Something may have changed: look now."""
        self._look_now.set()

    def news(self) -> asyncio.Event:
        """Is set at the next change. Take it before the report, so that no change falls in between."""
        return self._news

    async def watch(self, node: Node, busy: Callable[[], bool]) -> None:
        """Look at mongod from time to time. Never returns."""
        self._node, self._busy = node, busy
        while True:
            self._look_now.clear()
            try:
                await self._ask(node)
            except Exception:
                log.exception("the look at mongod failed")
            self._tell_changes()
            try:
                async with asyncio.timeout(BUSY_SECONDS if self._unsettled() else IDLE_SECONDS):
                    await self._look_now.wait()
                    await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass

    def report(self) -> report_pb2.NodeReport:
        """The node as it is now."""
        report = self._lasting()
        report.time.FromDatetime(datetime.now(UTC))
        memory = psutil.virtual_memory()
        report.cpu_percent = psutil.cpu_percent()
        report.memory_total_bytes, report.memory_used_bytes = memory.total, memory.total - memory.available
        self._add_disk(report)
        view = self._view
        if view is not None and view.itself is not None:
            report.lag_seconds = view.lag_seconds(view.itself)
            for member, seen in zip(report.members, view.members, strict=True):
                member.lag_seconds = view.lag_seconds(seen)
        return report

    async def _ask(self, node: Node) -> None:
        pid = node.mongod.pid
        if not pid:
            self._view, self._answers, self._trouble = None, False, ""
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                client = node.mongod.client()
                if pid != self._answered_pid:
                    self._version = await client.version()
                self._view = await client.view()
        except (NodeFailure, TimeoutError, OSError) as failure:
            self._view = None
            self._answers = isinstance(failure, NodeFailure) and failure.code != FailureCode.MONGOD_UNREACHABLE
            self._trouble = failure.message if self._answers and isinstance(failure, NodeFailure) else ""
            return
        self._answered_pid, self._answers, self._trouble = pid, True, ""
        node.mongod.answered()

    def _tell_changes(self) -> None:
        lasting = self._lasting().SerializeToString(deterministic=True)
        if lasting != self._told:
            self._told = lasting
            news, self._news = self._news, asyncio.Event()
            news.set()

    def _unsettled(self) -> bool:
        node = self._node
        if node is None or node.mongod.goal is None or self._busy():
            return True
        return node.mongod.goal.running and (self._view is None or not self._view.settled)

    def _lasting(self) -> report_pb2.NodeReport:
        """The report without what changes all the time."""
        report = report_pb2.NodeReport(mongod_state=report_pb2.MONGOD_STATE_ABSENT, problem=self._clock.problem)
        node = self._node
        if node is None or node.mongod.goal is None:
            return report
        mongod, goal = node.mongod, node.mongod.goal
        report.mongod_state = self._state(node)
        problems = (mongod.problem, self._trouble, _silence(report.mongod_state), self._clock.problem)
        report.problem = "; ".join(problem for problem in problems if problem)
        report.mongod_pid, report.mongod_restarts = mongod.pid, mongod.restarts
        report.mongodb_version = self._version if mongod.pid else goal.settings.version
        report.replica_set = goal.settings.replica_set
        if self._view is not None and mongod.pid:
            report.member_state = self._view.itself.state if self._view.itself is not None else ""
            for member in self._view.members:
                report.members.add(host=member.host, state=member.state, healthy=member.healthy)
        return report

    def _state(self, node: Node) -> report_pb2.MongodState.ValueType:
        mongod, goal = node.mongod, node.mongod.goal
        if goal is None:
            return report_pb2.MONGOD_STATE_ABSENT
        if not mongod.pid:
            if not goal.running:
                return report_pb2.MONGOD_STATE_STOPPED
            return report_pb2.MONGOD_STATE_FAILED if mongod.gave_up else report_pb2.MONGOD_STATE_RESTARTING
        if self._answers:
            return report_pb2.MONGOD_STATE_RUNNING
        known = mongod.pid == self._answered_pid
        return report_pb2.MONGOD_STATE_UNRESPONSIVE if known else report_pb2.MONGOD_STATE_RESTARTING

    def _add_disk(self, report: report_pb2.NodeReport) -> None:
        goal = self._node.mongod.goal if self._node is not None else None
        if self._node is None or goal is None:
            return
        try:
            usage = psutil.disk_usage(str(self._node.paths.volume(goal.settings.volume_id)))
        except OSError:
            return
        report.disk_total_bytes, report.disk_used_bytes = usage.total, usage.total - usage.free


def _silence(state: report_pb2.MongodState.ValueType) -> str:
    return "mongod does not answer" if state == report_pb2.MONGOD_STATE_UNRESPONSIVE else ""
