"""The retry loop of a build: whether a failed attempt is followed by another."""

from __future__ import annotations

from typing import Any, ClassVar

from taskflow import retry
from taskflow.types.failure import Failure

from hullwright.objects.errors import (
    BuildAbortException,
    BuildCancelled,
    ImageNotFound,
    NetworkNotFound,
    NoValidHost,
    PortNotFound,
    UnexpectedDeletingTaskStateError,
    UnexpectedTaskStateError,
    VolumeNotFound,
)

# Where another host would not help. Checked by class name, because after a restart a failure has no live exception.
FINAL_ERRORS = (
    BuildAbortException,
    BuildCancelled,
    NoValidHost,
    UnexpectedDeletingTaskStateError,
    UnexpectedTaskStateError,
    # What the build is made of is gone, wherever it would be made.
    ImageNotFound,
    NetworkNotFound,
    PortNotFound,
    VolumeNotFound,
)


class Reschedule(retry.Retry):  # type: ignore[misc]
    """Provides the attempt's number, from 1. After a failure: another attempt, or everything is undone.

    Hosts that were tried are read from the attempts table, never from the history that TaskFlow keeps: it does not survive a reload whole.
    """

    default_provides: ClassVar[str] = "attempt"

    def __init__(self) -> None:
        super().__init__(name="reschedule")

    def execute(self, history: Any, max_attempts: int, **kwargs: Any) -> int:
        """The number of the attempt that begins. `max_attempts` is named for `on_failure`: TaskFlow gives it what this method asks for."""
        return len(history) + 1

    def on_failure(self, history: Any, max_attempts: int, **kwargs: Any) -> str:
        """A pure function of the history: TaskFlow asks again after a restart, and holds its lock meanwhile."""
        failures: list[Failure] = [] if not history else [found for found in history[-1][1].values() if found is not None]
        # Never REVERT: it would leave the steps outside the loop as they are.
        if any(found.check(*FINAL_ERRORS) for found in failures) or len(history) >= max_attempts:
            return str(retry.REVERT_ALL)
        return str(retry.RETRY)
