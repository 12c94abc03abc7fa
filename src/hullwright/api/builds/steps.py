"""Folds a build's events into its steps: when each began and ended, how it ended, and whether it was undone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hullwright.objects.builds import StepEvent
from hullwright.objects.states import StepState

# The retry loop is an atom like the steps and has events; what it does is told by the attempts.
RETRY_LOOP = "reschedule"

_BEGINS = (StepState.RUNNING, StepState.RESUMED)
_ENDS = (StepState.SUCCESS, StepState.FAILURE)
_UNDO_ENDS = (StepState.REVERTED, StepState.REVERT_FAILURE)


@dataclass(slots=True)
class Span:
    """One doing or undoing: begun, perhaps taken up again after crashes, ended. Waiting for room is a part of it."""

    state: str
    started_at: float
    finished_at: float | None = None
    error: str | None = None  # class name
    message: str | None = None
    resumed: int = 0  # how often it was taken up again


@dataclass(slots=True)
class Step:
    """One step of one attempt."""

    attempt: int  # 0: outside the retry loop
    name: str
    state: str
    host: str | None
    run: Span | None = None
    undo: Span | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is being done or undone."""
        span = self.undo or self.run
        return span is not None and span.finished_at is None


def fold(events: Iterable[StepEvent]) -> list[Step]:
    """The steps in the order in which they began. A step that was undone without having run has no `run`."""
    steps: dict[tuple[int, str], Step] = {}
    for event in events:
        if not event.step or event.step == RETRY_LOOP:
            continue
        key = (event.attempt, event.step)
        if key not in steps:
            steps[key] = Step(event.attempt, event.step, event.to_state, event.host)
        _apply(steps[key], event)
    return list(steps.values())


def _apply(step: Step, event: StepEvent) -> None:
    step.host = event.host or step.host
    state = event.to_state
    if state == StepState.RESUMED:
        span = step.undo or step.run
        if step.state == StepState.WAITING and step.run is not None:
            step.state = step.run.state = StepState.RUNNING  # it looks again whether there is room; nothing had crashed
        elif span is not None:
            span.resumed += 1
            span.finished_at = None
        return  # the state of the step is what it was
    step.state = state
    if state in _BEGINS:
        if step.run is not None and step.run.finished_at is None:
            return  # begun again where a crash cut it off; RESUMED counted it
        step.run = Span(state, event.at)
    elif state == StepState.WAITING and step.run is not None:
        step.run.state = state
    elif state in _ENDS:
        _end(step.run or _begun(step, "run", event), event)
    elif state == StepState.REVERTING:
        if step.undo is None or step.undo.finished_at is not None:
            step.undo = Span(state, event.at)
    elif state in _UNDO_ENDS:
        _end(step.undo or _begun(step, "undo", event), event)


def _begun(step: Step, which: str, event: StepEvent) -> Span:
    """A span whose beginning was not told: it began no later than now."""
    span = Span(event.to_state, event.at)
    setattr(step, which, span)
    return span


def _end(span: Span, event: StepEvent) -> None:
    span.state, span.finished_at = event.to_state, event.at
    outcome: Any = event.result
    if event.to_state in (StepState.FAILURE, StepState.REVERT_FAILURE) and isinstance(outcome, dict):
        span.error = outcome.get("error") or None
        span.message = outcome.get("message") or None
