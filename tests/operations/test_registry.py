"""Every kind of step has exactly one way to be done, and only waits can be dropped half way."""

import pytest

from controlplane.operations.steps import machines, mongodb, network, removal
from controlplane.operations.steps.registry import HANDLERS, INTERRUPTIBLE
from controlplane.planner.create import plan_create
from controlplane.planner.delete import plan_delete
from controlplane.planner.plan import Plan, StepKind
from tests.operations.world import SPEC


def test_every_kind_has_a_handler_of_its_own() -> None:
    assert set(HANDLERS) == set(StepKind)
    assert len(set(HANDLERS.values())) == len(HANDLERS)


@pytest.mark.parametrize("plan", [plan_create("demo", SPEC), plan_delete(SPEC), plan_delete(SPEC, undo=True)])
def test_every_step_of_a_plan_can_be_done(plan: Plan) -> None:
    assert {step.kind for _, _, step in plan.steps()} <= set(HANDLERS)


def test_every_kind_stands_in_a_plan() -> None:
    plans = (plan_create("demo", SPEC), plan_delete(SPEC))
    assert {step.kind for plan in plans for _, _, step in plan.steps()} == set(StepKind)


def test_no_step_that_asks_aws_for_something_is_dropped_half_way() -> None:
    """The effect of a request that is under way could come after the undo has looked."""
    asking = {kind for kind, handler in HANDLERS.items() if handler.__module__ in (network.__name__, removal.__name__)}
    asking |= {kind for kind, handler in HANDLERS.items() if handler in (machines.instance, machines.volume)}
    assert not asking & INTERRUPTIBLE


def test_every_wait_for_an_agent_can_be_dropped() -> None:
    waiting = {kind for kind, handler in HANDLERS.items() if handler.__module__ == mongodb.__name__}
    assert waiting | {StepKind.AGENT} == INTERRUPTIBLE
