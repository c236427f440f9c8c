"""Plans and operations over time: stages, and in them one line per step with what it does, waits for, or broke on."""

import time
from itertools import groupby

from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1.operation_pb2 import (
    OPERATION_STATE_CANCELLING,
    STEP_STATE_FAILED,
    STEP_STATE_PENDING,
    STEP_STATE_RUNNING,
    STEP_STATE_SKIPPED,
    STEP_STATE_SUCCEEDED,
    Operation,
    OperationState,
    Plan,
    PlannedStep,
    Step,
    StepState,
)

from console.client import is_resting
from console.design import ICONS
from console.parts.markup import Html, h, joined
from console.parts.words import count, elapsed, seconds, sentence, word

LOOKS = {
    STEP_STATE_PENDING: ("pending", "pending"),
    STEP_STATE_RUNNING: ("running", "retry"),
    STEP_STATE_SUCCEEDED: ("done", "check"),
    STEP_STATE_FAILED: ("failed", "cross"),
    STEP_STATE_SKIPPED: ("skipped", "skipped"),
}
"""State -> class of line and bar, icon."""


def timeline(operation: Operation) -> Html:
    """All steps by stage, with bars on one scale. Bars of running steps grow by themselves in the browser."""
    start = seconds(operation.start_time) or seconds(operation.create_time)
    end = seconds(operation.end_time) if is_resting(operation) else 0.0
    scale = _Scale(start, end or time.time())
    lines = [_whole(operation, scale, end)]
    for _, group in groupby(operation.steps, key=lambda step: (step.undo, step.plan.stage)):
        steps = list(group)
        lines.append(_stage(steps))
        lines += [_line(step, scale) for step in steps]
    rows = h("div", joined(lines), role="list", aria_label="Steps")
    return h(
        "div", rows, class_="timeline", data_from=start, data_to=end or None, data_server_now=round(time.time(), 2)
    )


def plan_steps(plan: Plan) -> Html:
    """What would be done: per stage its steps with the reason, what they wait for and what they risk."""
    stages = []
    for _, group in groupby(plan.steps, key=lambda step: step.stage):
        steps = list(group)
        note = "side by side" if len(steps) > 1 else ""
        title = h("div", h("span", steps[0].stage_title), h("span", note, class_="small muted"), class_="plan-stage")
        stages.append(h("li", title, h("ul", joined(_planned(step) for step in steps))))
    return h("ol", joined(stages), class_="plan")


def _planned(step: PlannedStep) -> Html:
    parts = [h("span", f"Why: {step.reason}")] if step.reason else []
    if step.waits_for:
        parts.append(h("span", f"Waits for {step.waits_for}"))
    risk = h("div", ICONS["alert"], h("span", step.risk), class_="risk") if step.risk else None
    return h("li", h("div", step.title), h("div", joined(parts), class_="small muted dotted"), risk)


class _Scale:
    def __init__(self, start: float, end: float) -> None:
        self._start = start
        self._whole = max(end - start, 0.5)
        self._end = end

    def bar(self, look: str, start: float, end: float) -> Html:
        left = 100 * (start - self._start) / self._whole
        width = 100 * ((end or self._end) - start) / self._whole
        place = f"left:{_within(left):.2f}%;width:{_within(width):.2f}%"
        return h("i", class_=look, style=place, data_start=start, data_end=end or None)


def _whole(operation: Operation, scale: _Scale, end: float) -> Html:
    looks = {"succeeded": ("done", "check"), "failed": ("failed", "cross"), "cancelled": ("skipped", "skipped")}
    name = word(OperationState.DESCRIPTOR, operation.state)
    look, icon = looks.get(name, ("running", "retry"))
    if operation.state == OPERATION_STATE_CANCELLING:
        name = "Cancelling"
    title = h("div", h("span", "Whole operation"), class_="step-title")
    told = h("div", operation.summary, class_="small muted") if operation.summary else None
    bar = scale.bar(look, seconds(operation.start_time), end) if operation.start_time.seconds else None
    time_spent = elapsed(operation.start_time, operation.end_time if end else Timestamp())
    return _row(look, icon, name, joined([title, told]), bar, time_spent, "whole")


def _stage(steps: list[Step]) -> Html:
    done = sum(step.state in (STEP_STATE_SUCCEEDED, STEP_STATE_SKIPPED) for step in steps)
    title = steps[0].plan.stage_title or f"Stage {steps[0].plan.stage}"
    undo = "Undo: " if steps[0].undo else ""
    text = count(len(steps), "step") if done == len(steps) else f"{done} of {len(steps)} steps"
    return h("div", h("span", undo + title), h("span", text, class_="small muted"), class_="stage", role="presentation")


def _line(step: Step, scale: _Scale) -> Html:
    look, icon = LOOKS.get(step.state, LOOKS[STEP_STATE_PENDING])
    attempt = h("span", f"attempt {step.attempt}", class_="tag") if step.attempt > 1 else None
    title = h("div", h("span", step.plan.title), attempt, class_="step-title", title=step.plan.reason or None)
    over = step.state in (STEP_STATE_SUCCEEDED, STEP_STATE_FAILED, STEP_STATE_SKIPPED)
    ended = seconds(step.end_time) if over else 0.0
    started = seconds(step.start_time)
    bar = scale.bar(look, started, ended) if started and step.state != STEP_STATE_PENDING else None
    spent = elapsed(step.start_time, step.end_time if ended else Timestamp()) if bar else h("span", "", class_="muted")
    return _row(look, icon, word(StepState.DESCRIPTOR, step.state), joined([title, _told(step)]), bar, spent)


def _told(step: Step) -> Html | None:
    if step.state == STEP_STATE_FAILED:
        return h("div", step.failure.message or step.detail, class_="small bad")
    if step.state == STEP_STATE_RUNNING and step.waiting_for:
        return h("div", f"Waiting for {step.waiting_for}", class_="small busy")
    return h("div", step.detail, class_="small muted") if step.detail else None


def _row(look: str, icon: str, state: str, text: Html, bar: Html | None, spent: Html, extra: str = "") -> Html:
    mark = h("span", ICONS[icon], class_="mark", title=sentence(state))
    spoken = h("span", f"{sentence(state)}: ", class_="offscreen")
    track = h("div", bar, class_="track", aria_hidden="true")
    body = h("div", spoken, text, class_="step-text")
    return h(
        "div",
        mark,
        body,
        track,
        h("div", spent, class_="spent"),
        class_=f"step {look} {extra}".strip(),
        role="listitem",
    )


def _within(percent: float) -> float:
    return min(100.0, max(0.0, percent))
