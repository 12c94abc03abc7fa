"""Taking an instance apart. A delete only ever goes on: no step here has an undo, and each finds its work done when it runs again."""

from __future__ import annotations

from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.leftovers import clean_now_or_later, release_volumes
from hullwright.flows.step import Step
from hullwright.objects.errors import HostNotFound, InstanceNotFound, UnexpectedDeletingTaskStateError
from hullwright.objects.states import PowerState, TaskState, VmState
from hullwright.persistence import actions, allocations, instances, jobs
from hullwright.persistence.database import now


class DestroyGuest(Step):
    """Leaves nothing of the guest on its host: domain, disks, config drive, console log.

    Reverts: nothing; the delete is tried again.
    """

    step_name = "destroy_guest"

    def execute(self, run: RunContext) -> None:
        """Destroy; a host that does not answer, or cannot, is cleaned when it can."""
        host = run.instance.host
        if host is not None:
            clean_now_or_later(run, host, lambda: run.virt(host).destroy(run.instance_uuid))

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


class LeaveHost(Step):
    """Takes the instance's network entries and volume connections off its host.

    Reverts: nothing; the delete is tried again.
    """

    step_name = "leave_host"

    def execute(self, run: RunContext) -> None:
        """Unplug and disconnect."""
        host = run.instance.host
        if host is None:
            return
        if run.spec.networks:
            clean_now_or_later(run, host, lambda: run.network.unplug(run.host_ref(host), run.instance_uuid))
        if run.spec.block_devices:
            clean_now_or_later(run, host, lambda: run.volume.disconnect(run.host_ref(host), run.instance_uuid))

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


class Release(Step):
    """Gives ports, addresses and volumes back.

    Reverts: nothing; the delete is tried again.
    """

    step_name = "release"

    def execute(self, run: RunContext) -> None:
        """Delete what the build made, free what the user gave."""
        if run.spec.block_devices:
            release_volumes(run)
        if run.spec.networks:
            run.network.deallocate(run.instance_uuid)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


class FinishDelete(Step):
    """Gives the resources back and writes vm_state DELETED; the row stays as record.

    Reverts: nothing; its writes stand or fall together.
    """

    step_name = "finish_delete"

    def execute(self, run: RunContext) -> None:
        """One transaction."""
        with run.transaction() as connection:
            allocations.release(connection, run.instance_uuid)
            actions.finish(connection, run.job.uuid, failed=False)
            try:
                instances.transition(
                    connection,
                    run.instance_uuid,
                    expected_task_state=(TaskState.DELETING,),
                    vm_state=VmState.DELETED,
                    task_state=None,
                    power_state=PowerState.NOSTATE,
                    host=None,
                    node=None,
                    terminated_at=now(),
                    deleted_at=now(),
                )
            except (InstanceNotFound, UnexpectedDeletingTaskStateError):
                pass  # an earlier run of this step, or another delete, was here

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


class CleanHost(Step):
    """Cleans up on a host that was silent, or could not, when it should have been: guest, network entries, half-made volumes.

    Reverts: nothing; the cleaning is tried again.
    """

    step_name = "clean_host"

    def execute(self, run: RunContext) -> None:
        """Clean, unless the instance lives there again meanwhile; what it has on another host is not touched.

        A job that names a volume instead is about that volume's bytes only.
        """
        host = str(run.job.inputs["host"])
        try:
            ref = run.host_ref(host)
        except HostNotFound:
            return  # it was unregistered, and took what was left with it
        if "instance_uuid" not in run.job.inputs:
            run.volume.clean(ref, [str(run.job.inputs["volume_id"])])
            return
        uuid = run.instance_uuid
        with run.db.read() as connection:
            try:
                instance = instances.get(connection, uuid, deleted=True)
            except InstanceNotFound:
                instance = None
            # Between two hosts it is on none, and what hosts share may be its next one's.
            is_being_built = jobs.has_open(connection, uuid, "build_instance")
        lives_on = instance.host if instance is not None else None
        if lives_on == host:
            return
        lives_elsewhere = lives_on is not None or is_being_built
        run.virt(host).destroy(uuid, lives_elsewhere=lives_elsewhere)
        run.network.unplug(ref, uuid)
        if lives_on is None:  # else its volumes' bytes are wanted, and hosts may share them
            # The next host may be making, just now, the very bytes that this one seems to have left.
            run.volume.disconnect(ref, uuid, discard=not (is_being_built and run.conf.volume.shared))
        if instance is not None and instance.spec.block_devices:
            # A connect that was cut off may have made bytes and said so to nobody; by now they may be on record elsewhere, or deleted.
            ids = [device.volume_id for device in instance.spec.block_devices]
            run.volume.clean(ref, ids, instance_uuid=uuid, lives_elsewhere=lives_elsewhere)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


class ReleaseVolumes(Step):
    """Deletes volumes that were to go with an instance and whose host could not delete them then.

    Reverts: nothing; it is tried again.
    """

    step_name = "release_volumes"

    def execute(self, run: RunContext) -> None:
        """Release; gone is done."""
        run.volume.release(run.instance_uuid, undo=bool(run.job.inputs.get("undo")))

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""
