"""Volumes on their own, without an instance."""

from __future__ import annotations

from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.step import Step
from hullwright.persistence import volumes


class MakeVolume(Step):
    """Makes a volume whose row is there with status creating.

    Reverts: deletes what was made of it; the row stays with status error.
    """

    step_name = "make_volume"

    def execute(self, run: RunContext) -> None:
        """Make it; one that is there already is left alone."""
        with run.db.read() as connection:
            volume = volumes.get(connection, run.job.inputs["volume_id"])
        run.volume.create(volume)
        with run.transaction() as transaction:
            volumes.set_status(transaction, volume.id, "available")

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Delete the bytes."""
        volume_id = str(run.job.inputs["volume_id"])
        run.volume.delete(volume_id)
        with run.transaction() as transaction:
            volumes.set_status(transaction, volume_id, "error")


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
