"""The last step of a build: the instance is active."""

from __future__ import annotations

from typing import Any

from hullwright.flows import host_failures
from hullwright.flows.context import RunContext
from hullwright.flows.step import Step
from hullwright.objects.errors import BuildTimedOut
from hullwright.objects.states import AttemptState, PowerState, TaskState, VmState
from hullwright.persistence import actions, allocations, attempts, instances
from hullwright.persistence.database import now


class Activate(Step):
    """Writes vm_state ACTIVE, closes the attempt and the action.

    Reverts: nothing; its writes stand or fall together, and the guard writes how the build ended.
    """

    step_name = "activate"

    def execute(self, run: RunContext, host: str, attempt: int) -> None:
        """One transaction; a delete that came first wins here."""
        try:
            self._activate(run, host, attempt)
        except BuildTimedOut:  # the time may have run out since the build was done
            with run.db.read() as connection:
                if not actions.is_finished(connection, run.job.uuid):
                    raise

    def _activate(self, run: RunContext, host: str, attempt: int) -> None:
        with run.transaction() as connection:
            if actions.is_finished(connection, run.job.uuid):
                return  # this step was here before the crash, and the guest is its user's since then
            instances.transition(
                connection,
                run.instance_uuid,
                expected_task_state=(TaskState.SPAWNING,),
                vm_state=VmState.ACTIVE,
                task_state=None,
                power_state=PowerState.RUNNING,
                launched_at=now(),
            )
            allocations.end_build(connection, run.instance_uuid)
            attempts.end(connection, run.job.uuid, attempt, AttemptState.SUCCEEDED)
            actions.finish(connection, run.job.uuid, failed=False)
            host_failures.clear(connection, host)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""
