"""The conductor as the API sees it: posts work, in the transaction that writes what the user asked for, and wakes somebody to do it.

Not for: doing the work. Nothing here knows a flow, a driver or TaskFlow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from hullwright.objects.builds import Job
from hullwright.objects.errors import Conflict, Unavailable, text_for_users
from hullwright.objects.instances import Instance
from hullwright.objects.states import OPEN_JOB_STATES, JobState, TaskState, VmState
from hullwright.objects.volumes import Volume
from hullwright.persistence import actions, idempotency_keys, instances, jobs, networks, server_groups, volumes
from hullwright.persistence.database import Database, now
from hullwright.persistence.idempotency_keys import KeyedRequest
from hullwright.persistence.wakeup import Wakeup

BUILD = "build_instance"
DELETE = "delete_instance"
START = "start_instance"
STOP = "stop_instance"
REBOOT = "reboot_instance"
CREATE_VOLUME = "create_volume"
DELETE_VOLUME = "delete_volume"
SWEEP_NETWORKS = "sweep_networks"
CONSOLE_LOG = "console_log"
EXPLAIN = "explain"

# From these a volume may be deleted; from any other somebody has it, or is at it.
DELETABLE = ("available", "error")

# What users call these jobs in a server's actions.
_ACTION_NAMES = {BUILD: "create", DELETE: "delete", START: "start", STOP: "stop", REBOOT: "reboot"}

_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.01, 0.25


class QueryTimedOut(Unavailable):
    """No conductor answered a question about a guest in time."""

    message = "No conductor answered within {seconds} seconds."
    is_for_users = True
    hint = "Check that a conductor runs and that it reaches the server's host."


class QueryFailed(Unavailable):
    """A conductor tried to answer and could not."""

    message = "{reason}"

    @property
    def text_for_users(self) -> str:
        """That of what the conductor met; `error` is the name of its class."""
        return text_for_users(str(self.fields["error"]), self.text)


class KeyTaken(Conflict):
    """Another request of the same project with the same key was quicker."""

    message = "A request with this Idempotency-Key was just made."


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request the work is for; it goes into the record of actions."""

    request_id: str
    project_id: str
    user_id: str


class ConductorClient:
    """Posts jobs for conductors. One per process, safe to use from many threads."""

    def __init__(self, db: Database, conf: Any, wakeup: Wakeup) -> None:
        """`wakeup` tells idle conductors that there is something to do."""
        self._db = db
        self._conf = conf
        self._wakeup = wakeup

    def create_servers(self, batch: Sequence[Instance], asker: Asker, once: KeyedRequest | None = None) -> list[str]:
        """Write new instances with their builds in one transaction; answers the builds' job uuids.

        When this returns, the builds happen, whoever dies. `once`: the key under which this may be written only once.

        Raises: KeyTaken; nothing is written then.
        """
        build_timeout = self._conf.conductor.build_timeout
        deadline_at = now() + build_timeout if build_timeout else None
        posted = [
            jobs.new_row(
                kind=BUILD,
                instance_uuid=instance.uuid,
                inputs={"instance_uuid": instance.uuid},
                request_id=asker.request_id,
                deadline_at=deadline_at,
            )
            for instance in batch
        ]
        begun = [self._action(row, asker) for row in posted]
        with self._db.write() as conn:
            if once is not None:
                # First, so that of two that come at once the second waits here and has written nothing.
                uuids = [instance.uuid for instance in batch]
                if not idempotency_keys.remember(conn, once, uuids, batch[0].reservation_id):
                    raise KeyTaken
            instances.create_many(conn, batch)
            server_groups.add_members(conn, {each.uuid: each.spec.server_group for each in batch if each.spec.server_group})
            actions.start_rows(conn, begun)
            jobs.post_rows(conn, posted)
            if once is not None:
                idempotency_keys.forget_some(conn, once.keep_seconds)
        self._wakeup.poke()
        return [row["uuid"] for row in posted]

    def delete_server(self, uuid: str, asker: Asker) -> str | None:
        """Have an instance deleted, whatever it is doing: open work on it is told to stop. Answers the job's uuid.

        None when its delete is under way already; a delete that got stuck is begun anew.

        Raises: InstanceNotFound.
        """
        with self._db.write() as conn:
            # Jobs before the instance, as every step locks them: the other way round the two would deadlock.
            jobs.cancel_open(conn, uuid, spare_kinds=(DELETE,))
            if not instances.mark_deleting(conn, uuid):
                instances.get_row(conn, uuid)
                if jobs.has_open(conn, uuid, DELETE):
                    return None
            actions.finish_cancelled(conn, uuid)
            job_uuid = self._post(conn, DELETE, uuid, {}, asker, rank=jobs.RANK_DELETE)
        self._wakeup.poke()
        return job_uuid

    def start_server(self, uuid: str, asker: Asker) -> str:
        """Have a stopped guest started.

        Raises: InstanceNotFound, UnexpectedTaskStateError.
        """
        return self._change(uuid, START, asker, (VmState.STOPPED,), (None,), TaskState.POWERING_ON, {})

    def stop_server(self, uuid: str, asker: Asker) -> str:
        """Have a guest shut down.

        Raises: InstanceNotFound, UnexpectedTaskStateError.
        """
        return self._change(uuid, STOP, asker, (VmState.ACTIVE, VmState.ERROR), (None,), TaskState.POWERING_OFF, {})

    def reboot_server(self, uuid: str, asker: Asker, *, hard: bool) -> str:
        """Have a guest rebooted: asked to (soft), or switched off and on (hard).

        Raises: InstanceNotFound, UnexpectedTaskStateError.
        """
        if hard:
            vm_states: tuple[VmState, ...] = (
                VmState.ACTIVE,
                VmState.STOPPED,
                VmState.PAUSED,
                VmState.SUSPENDED,
                VmState.ERROR,
            )
            return self._change(
                uuid,
                REBOOT,
                asker,
                vm_states,
                (None, TaskState.REBOOTING, TaskState.REBOOTING_HARD),
                TaskState.REBOOTING_HARD,
                {"hard": True},
            )
        return self._change(uuid, REBOOT, asker, (VmState.ACTIVE,), (None,), TaskState.REBOOTING, {"hard": False})

    def create_volume(self, volume: Volume, request_id: str) -> str:
        """Write a volume (status creating) and have its bytes made; answers the job's uuid. A build makes its own."""
        with self._db.write() as conn:
            volumes.create(conn, volume)
            job_uuid = jobs.post(conn, kind=CREATE_VOLUME, instance_uuid=None, inputs={"volume_id": volume.id}, request_id=request_id)
        self._wakeup.poke()
        return job_uuid

    def delete_volume(self, volume_id: str, request_id: str) -> str:
        """Set a volume's status to deleting, and have the bytes removed, then the row; answers the job's uuid.

        Raises: VolumeNotFound, VolumeInvalidState.
        """
        with self._db.write() as conn:
            volumes.swap_status(conn, volume_id, DELETABLE, "deleting")
            job_uuid = jobs.post(conn, kind=DELETE_VOLUME, instance_uuid=None, inputs={"volume_id": volume_id}, request_id=request_id)
        self._wakeup.poke()
        return job_uuid

    def delete_network(self, network_id: str, request_id: str) -> str:
        """Delete a network's record, and have what hosts have of it taken away; answers the job's uuid.

        Raises: NetworkNotFound, NetworkInUse.
        """
        with self._db.write() as conn:
            networks.delete(conn, network_id)
            job_uuid = jobs.post(conn, kind=SWEEP_NETWORKS, instance_uuid=None, inputs={}, request_id=request_id)
        self._wakeup.poke()
        return job_uuid

    def query(self, kind: str, instance_uuid: str, args: Mapping[str, Any], timeout_seconds: float, request_id: str | None = None) -> Any:
        """Ask something about a guest that only its host knows, and wait for the answer.

        Raises: QueryTimedOut, QueryFailed.
        """
        inputs = {"instance_uuid": instance_uuid, **args}
        # A question is no part of the instance's queue: it must not wait behind a build, so it names the instance in its inputs only.
        with self._db.write() as conn:
            job_uuid = jobs.post(conn, kind=kind, instance_uuid=None, inputs=inputs, request_id=request_id, rank=jobs.RANK_QUERY)
        self._wakeup.poke()
        try:
            job = self._wait(job_uuid, timeout_seconds)
        finally:
            # What a console says may be secret and is nobody else's business: it does not stay.
            with self._db.write() as conn:
                jobs.forget(conn, job_uuid)
        if job.state != JobState.DONE:
            raise QueryFailed(error=(job.result or {}).get("error"), reason=job.error or f"The question ended {job.state}.")
        return job.result

    def _wait(self, job_uuid: str, timeout_seconds: float) -> Job:
        """The job once it has ended.

        Raises: QueryTimedOut.
        """
        deadline = time.monotonic() + timeout_seconds
        pause = _FIRST_POLL_SECONDS
        while time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
            with self._db.read() as conn:
                job = jobs.get(conn, job_uuid)
            if job.state not in OPEN_JOB_STATES:
                return job
        raise QueryTimedOut(seconds=timeout_seconds)

    def _change(
        self,
        uuid: str,
        kind: str,
        asker: Asker,
        vm_states: Sequence[VmState],
        task_states: Sequence[TaskState | None],
        to: TaskState,
        inputs: Mapping[str, Any],
    ) -> str:
        with self._db.write() as conn:
            instances.transition(conn, uuid, expected_vm_state=vm_states, expected_task_state=task_states, task_state=to)
            job_uuid = self._post(conn, kind, uuid, inputs, asker)
        self._wakeup.poke()
        return job_uuid

    def _post(
        self,
        conn: Connection,
        kind: str,
        uuid: str,
        inputs: Mapping[str, Any],
        asker: Asker,
        rank: int = jobs.RANK_DEFAULT,
    ) -> str:
        row = jobs.new_row(
            kind=kind,
            instance_uuid=uuid,
            inputs={"instance_uuid": uuid, **inputs},
            request_id=asker.request_id,
            rank=rank,
        )
        jobs.post_rows(conn, [row])
        actions.start_rows(conn, [self._action(row, asker)])
        return str(row["uuid"])

    @staticmethod
    def _action(job: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        return actions.new_row(
            instance_uuid=job["instance_uuid"],
            action=_ACTION_NAMES[job["kind"]],
            request_id=asker.request_id,
            project_id=asker.project_id,
            user_id=asker.user_id,
            job_uuid=job["uuid"],
        )
