"""Reads what went wrong from TaskFlow's failures, live ones and those that were stored, and decides whose fault it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from taskflow.types.failure import Failure

from hullwright.objects import errors
from hullwright.objects.errors import (
    BuildCancelled,
    GuestNameTaken,
    GuestRefused,
    ImageCorrupt,
    NetworkRefused,
    Reschedulable,
    StepFailed,
    UnexpectedDeletingTaskStateError,
    VolumeElsewhere,
)

# What may come from the request, its image or network, or from our own code comes again on every host: if it counted, one user's image
# would have all of them quarantined. A corrupt image may be the store's.
_NOT_THE_HOSTS = (GuestNameTaken, GuestRefused, ImageCorrupt, NetworkRefused, StepFailed, VolumeElsewhere)


@dataclass(frozen=True, slots=True)
class Cause:
    """The first failure of an attempt or a flow."""

    step: str
    error: str  # class name
    message: str  # for administrators
    text_for_users: str
    hint: str
    code: int
    is_cancel: bool  # the user deleted the instance: nobody's fault
    is_hosts: bool  # counts against the host


def cause_of(flow_failures: Mapping[str, Failure | None] | None) -> Cause | None:
    """The failure to tell, if there is one. A cancel outranks what else failed because of it."""
    found = [(step, failure) for step, failure in (flow_failures or {}).items() if failure is not None]
    if not found:
        return None
    cancels = [pair for pair in found if pair[1].check(BuildCancelled, UnexpectedDeletingTaskStateError)]
    step, failure = (cancels or found)[0]
    name = next(iter(failure), "Error").rpartition(".")[2]  # a failure yields the names of its error's classes
    cls = errors.find(name) or errors.HullwrightError
    return Cause(
        step=step,
        error=name,
        message=failure.exception_str,
        text_for_users=errors.text_for_users(name, failure.exception_str),
        hint=cls.hint,
        code=cls.code,
        is_cancel=bool(cancels),
        is_hosts=bool(failure.check(Reschedulable)) and not failure.check(*_NOT_THE_HOSTS),
    )
