"""Folds a build's step events into what was done: which step ran when, how long, how it ended, what was undone. Pure.

Not for: the screen, nor the form of an answer; the command and the Build API make of it what they show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects.builds import StepEvent
from hullwright.objects.states import StepState

RETRY_LOOP = "reschedule"  # an atom like the steps, and has events; what it does is told by the attempts
_BEGUN = {StepState.RUNNING, StepState.REVERTING}
_ENDED = {StepState.SUCCESS, StepState.FAILURE, StepState.REVERTED, StepState.REVERT_FAILURE, StepState.IGNORE}
_UNDOING = {StepState.REVERTING, StepState.REVERTED, StepState.REVERT_FAILURE}
_FAILED = {StepState.FAILURE, StepState.REVERT_FAILURE}


@dataclass(slots=True)
class Run:
    """One doing or undoing of a step: begun, perhaps taken up again after crashes, ended. Waiting for room is a part of it."""

    attempt: int  # 0: outside the retry loop
    step: str
    is_undo: bool
    state: str
    started_at: float
    finished_at: float | None = None
    host: str | None = None
    error: str | None = None  # class name
    message: str | None = None
    note: str = ""  # for people: why it failed, or waits
    waits_since: float = 0.0
    waited_seconds: float = 0.0  # for room
    resumed: int = 0  # how often a conductor took it up again after a crash
    done: int = 0  # of a long step
    total: int = 0
    unit: str = ""
    progress_at: float = 0.0

    @property
    def title(self) -> str:
        """The step's name; an undo says so."""
        return f"undo {self.step}" if self.is_undo else self.step

    def seconds(self, now: float | None = None) -> float | None:
        """How long it took, or has taken until `now`."""
        end = self.finished_at if self.finished_at is not None else now
        return None if end is None else max(0.0, end - self.started_at)


@dataclass(slots=True)
class History:
    """The runs of one build, in the order in which they began."""

    runs: list[Run] = field(default_factory=list)
    flow_state: str = ""
    seq: int = 0  # of the last event

    def apply(self, event: StepEvent) -> Run | None:
        """Take in one event; the run that it changed. An event seen before changes nothing."""
        if event.seq <= self.seq:
            return None
        self.seq = event.seq
        if not event.step:
            self.flow_state = event.to_state
        if not event.step or event.step == RETRY_LOOP:
            return None
        run = self._latest(event.attempt, event.step)
        if run is not None and event.to_state in (StepState.RESUMED, StepState.WAITING):
            _interrupt(run, event)
            return run
        state, is_undo = event.to_state, event.to_state in _UNDOING
        if run is not None and state in _BEGUN and run.finished_at is None and run.is_undo == is_undo:
            return run  # begun again where a crash cut it off; RESUMED counted it
        # A beginning that was not told is no later than the end.
        if state in _BEGUN or (state in _ENDED and (run is None or run.is_undo != is_undo)):
            run = Run(event.attempt, event.step, is_undo, state, event.at)
            self.runs.append(run)
        if run is None:
            return None  # PENDING: nothing has happened yet
        run.host = event.host or run.host
        if state in _ENDED:
            _end(run, event)
        return run

    def apply_all(self, events: Iterable[StepEvent]) -> History:
        """Take in several, in order."""
        for event in events:
            self.apply(event)
        return self

    def progress(self, step: str, done: int, total: int, unit: str, at: float) -> Run | None:
        """Take in how far a long step is."""
        run = next((run for run in reversed(self.runs) if run.step == step and not run.is_undo), None)
        if run is not None:
            run.done, run.total, run.unit, run.progress_at = done, total, unit, at
        return run

    def _latest(self, attempt: int, step: str) -> Run | None:
        return next((run for run in reversed(self.runs) if run.attempt == attempt and run.step == step), None)


def _interrupt(run: Run, event: StepEvent) -> None:
    """It waits for room, looks again whether there is some, or is taken up again after a crash."""
    if event.to_state == StepState.WAITING:
        run.state, run.note, run.waits_since = event.to_state, _wait(event.result), event.at
    elif run.state == StepState.WAITING:  # nothing had crashed
        run.state, run.note = StepState.RUNNING, ""
        run.waited_seconds += max(0.0, event.at - run.waits_since)
    else:
        run.resumed += 1
        run.finished_at = None


def _end(run: Run, event: StepEvent) -> None:
    run.state, run.finished_at, run.note = event.to_state, event.at, ""
    if event.to_state in _FAILED and isinstance(event.result, Mapping):
        run.error, run.message = event.result.get("error") or None, event.result.get("message") or None
        run.note = ": ".join(part for part in (run.error, run.message) if part)


def _wait(result: Any) -> str:
    """Until when it waits, and what for."""
    told = result if isinstance(result, Mapping) else {}
    parts = ("for room", f"until {told['until']}" if told.get("until") else "", f"({told['reason']})" if told.get("reason") else "")
    return " ".join(part for part in parts if part)
