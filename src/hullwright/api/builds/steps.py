"""A build's steps as the APIs tell them: each with its latest run and its latest undo. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hullwright.objects.builds import StepEvent
from hullwright.objects.history import History, Run


@dataclass(slots=True)
class Step:
    """One step of one attempt."""

    attempt: int  # 0: outside the retry loop
    name: str
    state: str
    host: str | None
    run: Run | None = None
    undo: Run | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is being done or undone."""
        latest = self.undo or self.run
        return latest is not None and latest.finished_at is None


def fold(events: Iterable[StepEvent]) -> list[Step]:
    """The steps in the order in which they began. A step that was undone without having run has no `run`."""
    steps: dict[tuple[int, str], Step] = {}
    for run in History().apply_all(events).runs:
        step = steps.setdefault((run.attempt, run.step), Step(run.attempt, run.step, run.state, run.host))
        step.state, step.host = run.state, run.host or step.host
        if run.is_undo:
            step.undo = run
        else:
            step.run = run
    return list(steps.values())
