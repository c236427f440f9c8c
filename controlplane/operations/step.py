"""One step to its end: its row says that it runs, its handler acts, its row says what came of it."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar

import structlog

from controlplane.domain.failure import FailureCode, FailureDetails, WapFailure
from controlplane.operations.execution import Execution, FencedError, StepRun
from controlplane.operations.steps.registry import HANDLERS, INTERRUPTIBLE
from controlplane.planner.plan import Step
from controlplane.store.operations import failure_to_json

log = structlog.get_logger(__name__)
# OK, CANCELLED, or a failure as JSON: a value that replays the same wherever the operation is carried on.
Outcome: TypeAlias = str | dict[str, Any]
OK, CANCELLED = "ok", "cancelled"
CANCEL_LOOK_SECONDS = 2.0
T = TypeVar("T")


async def run_step(execution: Execution, step: Step) -> Outcome:
    """Run one step to its end. May run twice, and after any crash."""
    run = StepRun(execution, step)
    if not await run.begin():
        return OK
    execution.tools.boundary(f"before:{step.name}")
    try:
        detail = await _handle(run)
    except FencedError:
        raise
    except _Interrupted:
        await run.skip("cancelled")
        return CANCELLED
    except WapFailure as failure:
        details = failure.details
    except Exception:
        log.exception("step failed unexpectedly", operation=execution.operation_id, step=step.name)
        details = FailureDetails(
            FailureCode.INTERNAL, f"internal error in step {step.name}; see the control plane's log", retryable=True
        )
    else:
        execution.tools.boundary(f"after:{step.name}")
        await run.succeed(detail)
        return OK
    await run.fail(details)
    return failure_to_json(details)


class _Interrupted(Exception):
    """Someone asked to cancel while the step waited."""


async def _handle(run: StepRun) -> str:
    """Run the handler, again after failures that may pass; interruptible steps end early when cancel is asked for."""
    handler, persistence = HANDLERS[run.step.kind], run.tools.persistence
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + persistence.total, persistence.first_pause
    while True:
        run.tries += 1
        try:
            if run.step.kind in INTERRUPTIBLE and not run.step.undo:
                return await _interruptible(run, handler(run))
            return await handler(run)
        except WapFailure as failure:
            if not failure.details.retryable or loop.time() + pause > deadline:
                raise
            await run.waiting(f"another try after: {failure.details.message}")
        # Between two tries nothing is under way, so that any step may end here.
        rest = asyncio.sleep(pause * random.uniform(0.5, 1.0))
        await (rest if run.step.undo else _interruptible(run, rest))
        await run.waiting(run.step.waits_for)
        pause = min(pause * 2, persistence.longest_pause)


async def _interruptible(run: StepRun, waiting: Awaitable[T]) -> T:
    """What `waiting` gives; _Interrupted, with `waiting` dropped, as soon as someone asks to cancel."""
    work = asyncio.ensure_future(waiting)
    try:
        with run.tools.database.bus.subscribe(f"operation/{run.execution.operation_id}") as changes:
            while not work.done():
                if await run.execution.cancel_requested():
                    raise _Interrupted
                watch = asyncio.ensure_future(changes.wait(CANCEL_LOOK_SECONDS))
                await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
                watch.cancel()
        return work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)  # it has let go before anybody goes on
