"""Jobs that cannot come to rest by themselves: given up, begun anew, taken from conductors that are gone. For reconciliation.

Each change is conditional, and takes the job from whoever thinks to have it: its next write is refused.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.states import OPEN_JOB_STATES, AttemptState, JobState
from hullwright.persistence import atoms
from hullwright.persistence.conductors import living
from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import attempts, jobs

_NOT_AT_REST = (*OPEN_JOB_STATES, JobState.STUCK)


def give_up(conn: Connection, uuid: str, why: str) -> str | None:
    """End a job that is not at rest as reverted, its attempts with it; answers the volume that it was about, if any."""
    here = sa.and_(jobs.c.uuid == uuid, jobs.c.state.in_(_NOT_AT_REST))
    inputs: dict[str, Any] = conn.execute(sa.select(jobs.c.inputs).where(jobs.c.uuid == uuid)).scalar() or {}
    conn.execute(sa.update(jobs).where(here).values(state=JobState.REVERTED, owner=None, error=why, finished_at=now()))
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
        .values(state=JobState.CANCELLED, owner=None, cancel_requested=True, finished_at=now())
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
