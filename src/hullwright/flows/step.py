"""The base of all steps: a TaskFlow task whose outcome is always storable.

A step's `execute` looks before it creates, takes `run` (a `RunContext`) first, and returns JSON or None. Its `revert` takes `**kwargs`,
accepts that `execute` did nothing, a part, or all, treats "gone" as done, and does not raise for what a retry can mend. The docstring of a
step ends with `Reverts:` and what is undone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ClassVar

import orjson
from taskflow import task

from hullwright.objects.errors import BuildAbortException, HullwrightError, StepFailed, StoreUnavailable
from hullwright.persistence.database import DatabaseUnavailable

LOG = logging.getLogger(__name__)
_MAX_RESULT_BYTES = 65_536  # larger things are referred to, not carried


class Step(task.Task):  # type: ignore[misc]
    """One revertible piece of an operation."""

    TASK_EVENTS: ClassVar[tuple[str, ...]] = ()  # no notifier: steps are shared by all engines of a process
    step_name: ClassVar[str] = ""  # stored with open flows: never renamed

    def __init__(self) -> None:
        super().__init__(name=self.step_name)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method, guard in (("execute", _guarded_execute), ("revert", _guarded_revert)):
            if method in cls.__dict__:
                setattr(cls, method, guard(cls.__dict__[method]))


def _guarded_execute(execute: Callable[..., Any]) -> Callable[..., Any]:
    """What leaves `execute` is JSON of bounded size or one of our errors, because TaskFlow stores it and another process reads it."""

    @functools.wraps(execute)
    def guarded(self: Step, run: Any, **kwargs: Any) -> Any:
        try:
            with run.doing(self.name, undoing=False):
                result = execute(self, run=run, **kwargs)
            size_bytes = len(orjson.dumps(result))
        except DatabaseUnavailable as error:
            raise StoreUnavailable(error.text) from error  # the step goes on when the database is back; nothing is undone for that
        except HullwrightError as error:
            LOG.info("Job %s, step %s: %s: %s", run.job.uuid, self.name, type(error).__name__, error.text)
            raise
        except Exception as error:
            LOG.exception("Job %s, step %s failed", run.job.uuid, self.name)
            raise StepFailed(step=self.name, error=type(error).__name__, reason=str(error)) from None
        if size_bytes > _MAX_RESULT_BYTES:
            raise BuildAbortException(instance=run.job.instance_uuid, reason=f"{self.name} returned {size_bytes} bytes")
        return result

    return guarded


def _guarded_revert(revert: Callable[..., Any]) -> Callable[..., Any]:
    """An undo ignores a cancel, and says what it could not do in words that can be stored."""

    @functools.wraps(revert)
    def guarded(self: Step, run: Any, **kwargs: Any) -> Any:
        try:
            with run.doing(self.name, undoing=True):
                return revert(self, run=run, **kwargs)
        except DatabaseUnavailable as error:
            raise StoreUnavailable(error.text) from error
        except HullwrightError as error:
            LOG.error("Job %s: undo of step %s failed: %s", run.job.uuid, self.name, error.text)
            raise
        except Exception as error:
            LOG.exception("Job %s: undo of step %s failed", run.job.uuid, self.name)
            raise StepFailed(step=self.name, error=type(error).__name__, reason=str(error)) from None

    return guarded
