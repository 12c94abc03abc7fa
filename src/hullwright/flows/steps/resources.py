"""What survives a reschedule: ports with their addresses, and new volumes."""

from __future__ import annotations

from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.leftovers import release_volumes
from hullwright.flows.step import Step


class Reserve(Step):
    """Has the ports and volume attachments that were asked for, under the ids chosen with the request.

    Reverts: deletes ports and volumes that the build made, frees those that the user gave.
    """

    step_name = "reserve"

    def execute(self, run: RunContext) -> None:
        """Allocate; what is there already is found by its id."""
        spec = run.spec
        if spec.networks:
            run.network.allocate(spec.instance_uuid, spec.project_id, spec.networks)
        if spec.block_devices:
            run.volume.reserve(spec.instance_uuid, spec.project_id, spec.user_id, spec.block_devices)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Give everything back."""
        spec = run.spec
        if spec.block_devices:
            release_volumes(run, undo=True)
        if spec.networks:
            run.network.deallocate(spec.instance_uuid)
