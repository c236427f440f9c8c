"""Carries an operation out: stage by stage, each stage a flat gather of single recorded steps.

begin -> stages -> finish, or, where that fails, undo -> end. A create that is cancelled, or that AWS cannot serve, is
undone by the delete recipe before it ends. A failed operation keeps its cluster, so that nothing else runs over a half
made change, until someone retries or abandons it. A retry first completes an undo that was left unfinished.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import structlog

from controlplane.domain.failure import FailureCode, FailureDetails, WapFailure
from controlplane.domain.operation import OperationKind, OperationState
from controlplane.operations import ending
from controlplane.operations.execution import Execution, FencedError
from controlplane.operations.step import CANCELLED, OK, Outcome, run_step
from controlplane.operations.tools import Tools
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.planner.plan import Plan, Stage, Step

log = structlog.get_logger(__name__)
Durable: TypeAlias = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class OperationRunner:
    """Runs operations for the engine."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self, operation_id: str, attempt: int, durable: Durable) -> str:
        """Carry the operation out from wherever it stands; its final state's name."""
        # Not recorded on purpose: each (re)start of the run, on whichever control plane, takes a new fencing number.
        execution = await Execution.claim(self._tools, operation_id, attempt)
        if isinstance(execution, OperationState):
            return execution
        bound = log.bind(operation=operation_id, cluster=execution.cluster_name, epoch=execution.epoch)
        bound.info("operation runs", kind=execution.kind, attempt=attempt)
        try:
            state = await _Run(execution, durable).to_its_end()
        except FencedError:
            raise
        except WapFailure as failure:
            state = await ending.break_off(execution, failure.details)
        except Exception:
            # Nothing may end without its operation knowing: a run that is over for the engine is over for people.
            log.exception("operation failed unexpectedly", operation=operation_id)
            state = await ending.break_off(execution, _unexpected("this operation"))
        bound.info("operation ended", state=state)
        return state

    async def gave_up(self, operation_id: str, attempt: int) -> None:
        """The engine will never run this attempt again: if the operation has not ended, it has failed."""
        execution = await Execution.claim(self._tools, operation_id, attempt)
        if not isinstance(execution, OperationState):
            log.error("the engine gave an operation up", operation=operation_id, attempt=attempt)
            await ending.break_off(execution, _unexpected("this operation, more often than is tried"))


def _unexpected(where: str) -> FailureDetails:
    return FailureDetails(
        FailureCode.INTERNAL, f"internal error in {where}; see the control plane's log", retryable=True
    )


class _Run:
    """One run of one operation, as far as it gets."""

    def __init__(self, execution: Execution, durable: Durable) -> None:
        self._execution, self._durable = execution, durable

    async def to_its_end(self) -> str:
        """The final state's name."""
        execution = self._execution
        unfinished = await self._durable("begin", lambda: ending.begin(execution))
        if unfinished:
            undone = await self._stages(plan_delete(execution.spec, undo=True))
            if undone != OK:
                return await self._end(undone, undone)
        outcome = await self._stages(_plan(execution))
        if outcome == OK:
            outcome = await self._durable("finish", lambda: ending.finish(execution))
        if outcome == OK:
            return OperationState.SUCCEEDED
        return await self._back_out(outcome)

    async def _back_out(self, outcome: Outcome) -> str:
        """Undo what has to be undone, and end."""
        execution = self._execution
        if execution.kind is not OperationKind.CREATE_CLUSTER:
            return await self._end(outcome, None)
        if outcome != CANCELLED and await self._durable("cancel-after-failure", execution.cancel_requested):
            outcome = CANCELLED
        if not _is_to_be_undone(outcome):
            return await self._end(outcome, None)
        await self._durable("undo-begin", lambda: ending.begin_undo(execution, outcome))
        return await self._end(outcome, await self._stages(plan_delete(execution.spec, undo=True)))

    async def _end(self, outcome: Outcome, undone: Outcome | None) -> str:
        state: str = await self._durable("end", lambda: ending.end(self._execution, outcome, undone))
        return state

    async def _stages(self, plan: Plan) -> Outcome:
        """OK, CANCELLED, or the failure that stopped it."""
        for number, stage in enumerate(plan.stages):
            undo = stage.steps[0].undo
            if not undo and await self._durable(f"cancel-before-{number}", self._execution.cancel_requested):
                return CANCELLED
            for outcome in await self._stage(stage):
                if outcome != OK:
                    return outcome
        return OK

    async def _stage(self, stage: Stage) -> list[Outcome]:
        def work(step: Step) -> Callable[[], Awaitable[Outcome]]:
            return lambda: run_step(self._execution, step)

        steps = (self._durable(step.name, work(step)) for step in stage.steps)
        # A step that raises does not leave its siblings running behind the end of the run.
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def _plan(execution: Execution) -> Plan:
    match execution.kind:
        case OperationKind.CREATE_CLUSTER:
            return plan_create(execution.cluster_name, execution.spec)
        case OperationKind.DELETE_CLUSTER:
            return plan_delete(execution.spec)


def _is_to_be_undone(outcome: Outcome) -> bool:
    """A create holds no data before its end: without machines from AWS, or without the wish, nothing may stay billed."""
    return outcome == CANCELLED or (isinstance(outcome, dict) and outcome["code"].startswith("CLOUD_"))
