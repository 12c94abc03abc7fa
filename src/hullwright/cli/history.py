"""Turns a build's step events into what a person reads: which step ran when, how long, how it ended, what was undone.

Pure: it knows the events of the Build API and neither the network nor the screen; see `watch` and `servers` for those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects.states import StepState

RETRY_LOOP = "reschedule"  # an atom like the steps; what it does is told by the attempts
_ENDED = {StepState.SUCCESS, StepState.FAILURE, StepState.REVERTED, StepState.REVERT_FAILURE, StepState.IGNORE}
_UNDOING = {StepState.REVERTING, StepState.REVERTED, StepState.REVERT_FAILURE}


@dataclass
class Run:
    """One doing or undoing of a step."""

    attempt: int  # 0: outside the retry loop
    step: str
    undo: bool
    state: str
    started_at: float
    ended_at: float | None = None
    host: str | None = None
    note: str = ""  # why it failed, or waits
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
        return f"undo {self.step}" if self.undo else self.step

    def seconds(self, now: float | None = None) -> float | None:
        """How long it took, or has taken until `now`."""
        end = self.ended_at if self.ended_at is not None else now
        return None if end is None else max(0.0, end - self.started_at)


@dataclass
class History:
    """The runs of one build, in the order in which they began."""

    runs: list[Run] = field(default_factory=list)
    flow_state: str = ""
    seq: int = 0  # of the last event

    def apply(self, event: Mapping[str, Any]) -> Run | None:
        """Take in one step event; the run that it changed. An event seen before changes nothing."""
        if event["seq"] <= self.seq:
            return None
        self.seq = event["seq"]
        step, state, at = event["step"], event["to_state"], event["at"]
        if not step:
            self.flow_state = state
        if not step or step == RETRY_LOOP:
            return None
        run = self._latest(event["attempt"], step)
        if state == StepState.RESUMED:
            if run is not None and run.state == StepState.WAITING:
                run.state, run.note = StepState.RUNNING, ""  # it looks again whether there is room
                run.waited_seconds += max(0.0, at - run.waits_since)
            elif run is not None:
                run.resumed += 1
                run.ended_at = None
            return run
        if state == StepState.WAITING and run is not None:
            run.state, run.note, run.waits_since = state, _wait(event.get("result")), at
            return run
        undo = state in _UNDOING
        if state in (StepState.RUNNING, StepState.REVERTING) and run is not None and run.ended_at is None and run.undo == undo:
            run.resumed += 1  # begun again where a crash cut it off
            return run
        if state in (StepState.RUNNING, StepState.REVERTING) or (run is None and state in _ENDED) or (undo and run and not run.undo):
            run = Run(event["attempt"], step, undo, state, at, host=event.get("host"))
            self.runs.append(run)
        if run is None:
            return None  # PENDING: nothing has happened yet
        run.host = event.get("host") or run.host
        if state in _ENDED and (run.ended_at is None or run.undo == undo):
            run.state, run.ended_at = state, at
            run.note = _note(event.get("result")) if state in (StepState.FAILURE, StepState.REVERT_FAILURE) else ""
        return run

    def apply_all(self, events: Iterable[Mapping[str, Any]]) -> History:
        """Take in several, in order."""
        for event in events:
            self.apply(event)
        return self

    def progress(self, step: str, done: int, total: int, unit: str, at: float) -> Run | None:
        """Take in how far a long step is."""
        run = next((run for run in reversed(self.runs) if run.step == step and not run.undo), None)
        if run is not None:
            run.done, run.total, run.unit, run.progress_at = done, total, unit, at
        return run

    def _latest(self, attempt: int, step: str) -> Run | None:
        return next((run for run in reversed(self.runs) if run.attempt == attempt and run.step == step), None)


def _wait(result: Any) -> str:
    """Until when it waits, and what for."""
    told = result if isinstance(result, Mapping) else {}
    parts = ("for room", f"until {told['until']}" if told.get("until") else "", f"({told['reason']})" if told.get("reason") else "")
    return " ".join(part for part in parts if part)


def _note(result: Any) -> str:
    """Error and message of a FAILURE's result."""
    if not isinstance(result, Mapping):
        return ""
    error, message = result.get("error") or "", result.get("message") or ""
    return f"{error}: {message}" if error and message else str(error or message)
