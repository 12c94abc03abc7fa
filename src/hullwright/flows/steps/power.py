"""Switching guests on and off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.failures import cause_of
from hullwright.flows.step import Step
from hullwright.objects.errors import Conflict, InstanceNotFound, UnexpectedTaskStateError
from hullwright.objects.instances import Fault
from hullwright.objects.states import PowerState, TaskState, VmState
from hullwright.persistence import actions, faults, instances
from hullwright.persistence.database import now

_SWITCHING = (TaskState.POWERING_ON, TaskState.POWERING_OFF, TaskState.REBOOTING, TaskState.REBOOTING_HARD)


class PowerGuard(Step):
    """Stands before the switching, so that its undo is the last word.

    Reverts: clears task_state, records the fault and closes the action; vm_state stays what it was.
    """

    step_name = "power_guard"

    def execute(self, run: RunContext) -> None:
        """Nothing."""

    def revert(self, run: RunContext, flow_failures: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Say that it failed."""
        cause = cause_of(flow_failures)
        with run.transaction() as connection:
            if actions.is_finished(connection, run.job.uuid):
                return
            actions.finish(connection, run.job.uuid, failed=True)
            try:
                instances.transition(connection, run.instance_uuid, expected_task_state=_SWITCHING, task_state=None)
            except (UnexpectedTaskStateError, InstanceNotFound):
                return
            if cause is not None:
                message, details = f"{cause.error}: {cause.text_for_users}", f"{cause.error}: {cause.message}"
                fault = Fault(run.instance_uuid, cause.code, message, details, run.instance.host, cause.step, cause.hint, now())
                faults.record(connection, fault)


class SwitchPower(Step):
    """Has the guest running, shut off, or started anew, as the job's kind says.

    Reverts: nothing; a guest half-way is brought on by the next request, and power states are synchronised with the hypervisor.
    """

    step_name = "switch_power"

    def execute(self, run: RunContext) -> None:
        """Switch; a guest that is in the wanted state already is left alone."""
        host = run.instance.host
        if host is None:
            raise Conflict(reason=f"Instance {run.instance_uuid} has no host.")
        if run.instance.vm_state == VmState.ERROR and run.instance.launched_at is None:  # the remains of a build that got stuck
            raise Conflict(reason=f"Instance {run.instance_uuid} was never built to its end.")
        hypervisor = run.virt(host)
        match run.job.kind:
            case "start_instance":
                hypervisor.power_on(run.instance_uuid)
            case "stop_instance":
                timeout_seconds = 0.0 if run.job.inputs.get("force") else run.conf.compute.shutdown_timeout_seconds
                hypervisor.power_off(run.instance_uuid, timeout_seconds)
            case "reboot_instance":
                hypervisor.reboot(run.instance_uuid, hard=bool(run.job.inputs.get("hard")))

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


class RecordPower(Step):
    """Writes the new vm_state and closes the action.

    Reverts: nothing; its writes stand or fall together.
    """

    step_name = "record_power"

    def execute(self, run: RunContext) -> None:
        """One transaction."""
        stopped = run.job.kind == "stop_instance"
        with run.transaction() as connection:
            if actions.is_finished(connection, run.job.uuid):
                return
            instances.transition(
                connection,
                run.instance_uuid,
                expected_task_state=_SWITCHING,
                vm_state=VmState.STOPPED if stopped else VmState.ACTIVE,
                power_state=PowerState.SHUTDOWN if stopped else PowerState.RUNNING,
                task_state=None,
            )
            actions.finish(connection, run.job.uuid, failed=False)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""
