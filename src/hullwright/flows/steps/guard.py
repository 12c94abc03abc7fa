"""The first step of a build: it does nothing, and its undo says that the build failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.failures import Cause, cause_of
from hullwright.flows.step import Step
from hullwright.objects.builds import Attempt
from hullwright.objects.errors import InstanceNotFound, MaxRetriesExceeded, UnexpectedTaskStateError, text_for_users
from hullwright.objects.instances import Fault
from hullwright.objects.placement import PlacementReport
from hullwright.objects.states import TaskState, VmState
from hullwright.persistence import actions, attempts, faults, instances
from hullwright.persistence.database import now

_BUILDING = (TaskState.SCHEDULING, TaskState.NETWORKING, TaskState.SPAWNING, None)
_UNDONE = Cause("", "Error", "The build was undone.", "The build was undone.", "", 500, is_cancel=False, is_hosts=False)


class Guard(Step):
    """Stands before everything else, so that its undo is the last word.

    Reverts: writes vm_state ERROR and the fault; when the user deleted the instance meanwhile, only closes the action.
    """

    step_name = "guard"

    def execute(self, run: RunContext) -> None:
        """Nothing."""

    def revert(self, run: RunContext, flow_failures: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Write how the build ended."""
        cause = cause_of(flow_failures) or _UNDONE
        with run.transaction() as connection:
            if actions.is_finished(connection, run.job.uuid):
                return
            actions.finish(connection, run.job.uuid, failed=True)
            if cause.is_cancel:
                return
            try:
                instances.transition(
                    connection,
                    run.instance_uuid,
                    expected_task_state=_BUILDING,
                    vm_state=VmState.ERROR,
                    task_state=None,
                    host=None,
                    node=None,
                )
            except (UnexpectedTaskStateError, InstanceNotFound):
                return  # deleted meanwhile: delete wins, and a fault would be noise
            faults.record(connection, _fault(run.instance_uuid, cause, attempts.list_for(connection, run.job.uuid)))


def _fault(instance_uuid: str, cause: Cause, made: list[Attempt]) -> Fault:
    """What its user and an admin are told: every attempt in order, each with its step and error. What names a host is for admins."""
    placed = [attempt for attempt in made if attempt.host is not None]
    # What ended the build may have come after the last placed attempt: no host left, or none fits.
    is_told = bool(placed) and cause.step == placed[-1].step and placed[-1].number == made[-1].number
    after, details_after = ("", "") if is_told else (cause.text_for_users, cause.message)
    if not placed:
        message, details = after, details_after
    elif len(placed) == 1 and is_told:
        message, details = f"{cause.error}: {cause.text_for_users}", _tell_admins(placed[0])
    else:
        message = MaxRetriesExceeded(reason=" ".join([*map(_tell_users, placed), after]).strip()).text
        details = MaxRetriesExceeded(reason=" ".join([*map(_tell_admins, placed), details_after]).strip()).text
    named = PlacementReport.from_dict(made[-1].report).by_name() if made and made[-1].host is None and made[-1].report else ""
    if named:
        details += f" {named}"
    if cause.hint:
        details += f" Hint: {cause.hint}"
    return Fault(
        instance_uuid=instance_uuid,
        code=500 if cause.code < 400 else cause.code,
        message=message,
        details=details,
        host=placed[-1].host if placed else None,
        step=cause.step,
        hint=cause.hint,
        created_at=now(),
    )


def _tell_users(attempt: Attempt) -> str:
    return _tell(attempt, "", text_for_users(attempt.error, attempt.reason or ""))


def _tell_admins(attempt: Attempt) -> str:
    return _tell(attempt, f" on host {attempt.host}", attempt.reason or "")


def _tell(attempt: Attempt, place: str, reason: str) -> str:
    return f"Attempt {attempt.number}{place} failed at {attempt.step}: {attempt.error}: {reason}".rstrip(".") + "."
