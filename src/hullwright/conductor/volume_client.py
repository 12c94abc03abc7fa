"""Volumes' work as the API sees it: posts the job in the transaction that writes the volume, and wakes somebody to do it.

Not for: doing the work; see `flows`. Volumes that a build makes are made by the build.
"""

from __future__ import annotations

import contextlib
from typing import Any

from hullwright.objects.volumes import Volume
from hullwright.persistence import jobs, volumes
from hullwright.persistence.database import Database
from hullwright.persistence.wakeup import Wakeup

CREATE = "create_volume"
DELETE = "delete_volume"

# From these a volume may be deleted; from any other somebody has it, or is at it.
DELETABLE = ("available", "error")


class VolumeClient:
    """Posts jobs about volumes. Safe to use from many threads."""

    def __init__(self, db: Database, conf: Any) -> None:
        """Keep the parts."""
        self._db = db
        self._state_path = conf.state_path

    def create_volume(self, volume: Volume, request_id: str) -> str:
        """Write a volume (status creating) with the job that makes its bytes; answers the job's uuid."""
        with self._db.write() as conn:
            volumes.create(conn, volume)
            job = jobs.post(conn, kind=CREATE, instance_uuid=None, inputs={"volume_id": volume.id}, request_id=request_id)
        self._wake()
        return job

    def delete_volume(self, volume_id: str, request_id: str) -> str:
        """Set the status deleting and post the job that removes the bytes, then the row; answers the job's uuid.

        Raises: VolumeNotFound, VolumeInvalidState.
        """
        with self._db.write() as conn:
            volumes.swap_status(conn, volume_id, DELETABLE, "deleting")
            job = jobs.post(conn, kind=DELETE, instance_uuid=None, inputs={"volume_id": volume_id}, request_id=request_id)
        self._wake()
        return job

    def _wake(self) -> None:
        # Volumes are made rarely: a door of its own for each poke costs less than one to keep.
        with contextlib.closing(Wakeup(self._db, self._state_path)) as wakeup:
            wakeup.poke()
