"""Step events and progress: what a build did, for people to read. Events are written by `session.py` only."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.builds import Progress, StepEvent
from hullwright.persistence.database import now
from hullwright.persistence.inserts import upsert
from hullwright.persistence.models.jobs import step_events, step_progress


def list_since(connection: Connection, job_uuid: str, seq: int = 0, limit: int = 10_000) -> list[StepEvent]:
    """Events after number `seq`, in order, without gaps."""
    query = (
        sa.select(step_events).where(step_events.c.job_uuid == job_uuid, step_events.c.seq > seq).order_by(step_events.c.seq).limit(limit)
    )
    return [StepEvent(**row) for row in connection.execute(query).mappings()]


def list_latest(connection: Connection, job_uuid: str, limit: int) -> list[StepEvent]:
    """The last events of a job, in order."""
    query = sa.select(step_events).where(step_events.c.job_uuid == job_uuid).order_by(step_events.c.seq.desc()).limit(limit)
    return [StepEvent(**row) for row in connection.execute(query).mappings()][::-1]


def count(connection: Connection, job_uuid: str, *, step: str, to_state: str) -> int:
    """How often a step, or with an empty name the flow, came to a state."""
    query = sa.select(sa.func.count()).where(
        step_events.c.job_uuid == job_uuid, step_events.c.step == step, step_events.c.to_state == to_state
    )
    return int(connection.execute(query).scalar_one())


def record_progress(connection: Connection, *, job_uuid: str, step: str, done: int, total: int, unit: str) -> None:
    """Keep the latest figure of a long step."""
    row = {"job_uuid": job_uuid, "step": step, "done": done, "total": total, "unit": unit, "at": now()}
    upsert(connection, step_progress, row, keys=("job_uuid", "step"), replace=("done", "total", "unit", "at"))


def list_progress(connection: Connection, job_uuid: str) -> list[Progress]:
    """The latest figures of a build's long steps."""
    rows = connection.execute(sa.select(step_progress).where(step_progress.c.job_uuid == job_uuid)).mappings()
    return [Progress(**row) for row in rows]
