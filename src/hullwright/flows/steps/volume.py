"""Volumes on their own, without an instance."""

from __future__ import annotations

from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.step import Step
from hullwright.objects.errors import VolumeNotFound
from hullwright.objects.volumes import Volume
from hullwright.persistence import volumes

_CREATING = "creating"


class MakeVolume(Step):
    """Makes a volume whose row is there with status creating; one with another status is its user's.

    Reverts: deletes what was made of it; the row stays with status error.
    """

    step_name = "make_volume"

    def execute(self, run: RunContext) -> None:
        """Make it; one that an earlier run has made is left alone."""
        volume = _being_made(run)
        if volume is None:
            return
        run.volume.create(volume)
        with run.transaction() as transaction:
            volumes.swap_status(transaction, volume.id, [_CREATING], "available")

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Delete the bytes of one that was not finished."""
        volume = _being_made(run)
        if volume is None:
            return
        run.volume.delete(volume.id)
        with run.transaction() as transaction:
            volumes.swap_status(transaction, volume.id, [_CREATING], "error")


def _being_made(run: RunContext) -> Volume | None:
    """The job's volume, while it is nobody's but the job's. Once it was available, its user may have it in use by now."""
    try:
        with run.db.read() as connection:
            volume = volumes.get(connection, str(run.job.inputs["volume_id"]))
    except VolumeNotFound:
        return None  # made, and deleted by its user
    return volume if volume.status == _CREATING else None


class RemoveVolume(Step):
    """Deletes a volume's bytes, then its row.

    Reverts: nothing; the delete is tried again.
    """

    step_name = "remove_volume"

    def execute(self, run: RunContext) -> None:
        """Delete; gone is done."""
        volume_id = str(run.job.inputs["volume_id"])
        run.volume.delete(volume_id)
        with run.transaction() as transaction:
            volumes.forget(transaction, volume_id)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""
