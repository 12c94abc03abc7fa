"""Jobs that cannot come to rest by themselves: given up, begun anew, taken from conductors that are gone. For reconciliation.

Each change is conditional, and takes the job from whoever thinks to have it: its next write is refused.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from taskflow import states as flow_states

from hullwright.objects.errors import Conflict
from hullwright.objects.states import OPEN_JOB_STATES, AttemptState, JobState
from hullwright.persistence import atoms
from hullwright.persistence import jobs as jobs_rows
from hullwright.persistence.conductors import living
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import atoms as atoms_table
from hullwright.persistence.models.jobs import attempts, jobs

_NOT_AT_REST = (*OPEN_JOB_STATES, JobState.STUCK)


def give_up(conn: Connection, uuid: str, why: str) -> str | None:
    """End a job that is not at rest as reverted, its attempts with it; answers the volume that it was about, if any."""
    here = sa.and_(jobs.c.uuid == uuid, jobs.c.state.in_(_NOT_AT_REST))
    inputs: dict[str, Any] = conn.execute(sa.select(jobs.c.inputs).where(jobs.c.uuid == uuid)).scalar() or {}
    conn.execute(sa.update(jobs).where(here).values(state=JobState.REVERTED, owner=None, waits_for=None, error=why, finished_at=now()))
    open_ones = sa.and_(attempts.c.job_uuid == uuid, attempts.c.state == AttemptState.RUNNING)
    conn.execute(sa.update(attempts).where(open_ones).values(state=AttemptState.FAILED, error="Error", reason=why, finished_at=now()))
    atoms.destroy_flow(conn, uuid)
    volume_id = inputs.get("volume_id")
    return None if volume_id is None else str(volume_id)


def begin_anew(conn: Connection, uuid: str) -> None:
    """Forget how far a job's flow was and queue it; its history stays."""
    atoms.destroy_flow(conn, uuid)
    here = sa.and_(jobs.c.uuid == uuid, jobs.c.state.in_(_NOT_AT_REST))
    fresh = {"state": JobState.QUEUED, "owner": None, "leases": 0, "not_before": 0.0, "finished_at": None, "cancel_requested": False}
    conn.execute(sa.update(jobs).where(here).values(**fresh))


def release(conn: Connection, uuid: str) -> None:
    """Put a stuck job back in the queue, to go on where it stood, with a fresh count of leases: an operator's decision.

    Raises: JobNotFound; Conflict when it is not stuck, its undo failed, or its instance is gone or has other work to wait for.
    """
    job = jobs_rows.get(conn, uuid)
    if job.state != JobState.STUCK:
        raise Conflict(reason=f"Job {uuid} is {job.state}, not stuck.")
    undo_failed = sa.select(atoms_table.c.name).where(atoms_table.c.flow_uuid == uuid, atoms_table.c.state == flow_states.REVERT_FAILURE)
    if step := conn.execute(undo_failed.limit(1)).scalar():
        raise Conflict(reason=f"Job {uuid} could not undo {step} and cannot go on: `hullwright doctor --fix` undoes it by other means.")
    if job.instance_uuid is not None:
        others = sa.select(jobs.c.kind).where(jobs.c.instance_uuid == job.instance_uuid, jobs.c.state.in_(OPEN_JOB_STATES))
        if other := conn.execute(others.limit(1)).scalar():
            raise Conflict(reason=f"Job {uuid} is left alone while its server has a {other} under way.")
        deleted_at = conn.execute(sa.select(instances.c.deleted_at).where(instances.c.uuid == job.instance_uuid)).first()
        if deleted_at is None or deleted_at[0] is not None:
            raise Conflict(reason=f"Job {uuid} has no server any more: `hullwright doctor --fix` gives it up.")
    fresh = {"state": JobState.QUEUED, "leases": 0, "error": None, "not_before": 0.0, "finished_at": None}
    parked_seconds = now() - (job.finished_at or now())  # its build time stood still meanwhile
    here = sa.and_(jobs.c.uuid == uuid, jobs.c.state == JobState.STUCK)
    conn.execute(sa.update(jobs).where(here).values(deadline_at=jobs.c.deadline_at + parked_seconds, **fresh))


def take_from(conn: Connection, uuid: str, owner: str) -> None:
    """Queue a job whose conductor is gone. Its count of leases stays: it may be what crashed the conductor."""
    here = sa.and_(jobs.c.uuid == uuid, jobs.c.state == JobState.RUNNING, jobs.c.owner == owner, jobs.c.owner.not_in(living(conn)))
    conn.execute(sa.update(jobs).where(here).values(state=JobState.QUEUED, owner=None))


def cancel(conn: Connection, uuid: str) -> bool:
    """End an open job that no living conductor drives; the one that does is asked to stop. Answers whether it has ended."""
    here = sa.and_(jobs.c.uuid == uuid, jobs.c.state.in_(OPEN_JOB_STATES))
    is_driven = sa.and_(jobs.c.state == JobState.RUNNING, jobs.c.owner.in_(living(conn)))
    ended = conn.execute(
        sa.update(jobs)
        .where(here, sa.not_(is_driven))
        .values(state=JobState.CANCELLED, owner=None, waits_for=None, cancel_requested=True, finished_at=now())
    )
    if ended.rowcount:
        atoms.destroy_flow(conn, uuid)  # nobody will go on with it
    else:
        conn.execute(sa.update(jobs).where(here).values(cancel_requested=True))
    return ended.rowcount > 0


def record(conn: Connection, row: dict[str, Any], result: Any) -> None:
    """Write down work that was done without a conductor, as a job that has ended. `row`: from `jobs.new_row`."""
    ended = {"state": JobState.DONE, "result": result, "progress": 100, "started_at": row["created_at"], "finished_at": now()}
    conn.execute(sa.insert(jobs), [row | ended])
