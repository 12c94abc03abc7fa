"""Builds as the Build API reads them: jobs with their servers, and one small statement that says whether anything is new.

Not for: writing; jobs, attempts and events are written by the conductor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.builds import Job
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs, step_progress

_JOB = [jobs.c[name] for name in Job.__dataclass_fields__]
_SERVER = ("name", "project_id", "vm_state", "task_state", "host")


@dataclass(frozen=True, slots=True)
class Server:
    """What a build tells of its server."""

    id: str
    name: str
    project_id: str
    vm_state: str
    task_state: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class Pulse:
    """What changes when anything about a build does."""

    seq: int  # of the last step event
    state: str
    progress: int
    cancel_requested: bool
    progress_at: float  # when a long step last told how far it is; 0: none did


def _select() -> sa.Select[Any]:
    servers = [instances.c[name].label(f"server_{name}") for name in _SERVER]
    return sa.select(*_JOB, *servers).join(instances, instances.c.uuid == jobs.c.instance_uuid, isouter=True)


def _split(row: sa.RowMapping) -> tuple[Job, Server | None]:
    job = Job(**{name: row[name] for name in Job.__dataclass_fields__})
    if row["server_name"] is None or job.instance_uuid is None:
        return job, None
    return job, Server(job.instance_uuid, **{name: row[f"server_{name}"] for name in _SERVER})


def find(conn: Connection, id: str) -> tuple[Job, Server | None] | None:
    """The job with that uuid; else the newest build of the server with that uuid."""
    row = conn.execute(_select().where(jobs.c.uuid == id)).mappings().first()
    if row is None:
        theirs = sa.and_(jobs.c.instance_uuid == id, jobs.c.kind == "build_instance")
        row = conn.execute(_select().where(theirs).order_by(jobs.c.id.desc()).limit(1)).mappings().first()
    return None if row is None else _split(row)


def list_all(
    conn: Connection,
    *,
    project_id: str | None = None,
    server_id: str | None = None,
    kinds: Sequence[str] = (),
    states: Sequence[str] = (),
    waiting: bool = False,
    before_id: int | None = None,
    limit: int = 100,
) -> list[tuple[Job, Server | None]]:
    """Jobs with their servers, newest first. `project_id`: only of that project's servers; `waiting`: only those that
    wait for room; `before_id`: older than that row.
    """
    statement = _select().order_by(jobs.c.id.desc()).limit(limit)
    if project_id is not None:
        statement = statement.where(instances.c.project_id == project_id)
    if server_id is not None:
        statement = statement.where(jobs.c.instance_uuid == server_id)
    if kinds:
        statement = statement.where(jobs.c.kind.in_(kinds))
    if states:
        statement = statement.where(jobs.c.state.in_(states))
    if waiting:
        statement = statement.where(jobs.c.waits_for.is_not(None))
    if before_id is not None:
        statement = statement.where(jobs.c.id < before_id)
    return [_split(row) for row in conn.execute(statement).mappings()]


def pulse(conn: Connection, job_uuid: str) -> Pulse | None:
    """The build's pulse, or None when the job is gone; two look-ups by primary key."""
    told_at = sa.select(sa.func.max(step_progress.c.at)).where(step_progress.c.job_uuid == job_uuid).scalar_subquery()
    columns = (jobs.c.seq, jobs.c.state, jobs.c.progress, jobs.c.cancel_requested)
    row = conn.execute(sa.select(*columns, sa.func.coalesce(told_at, 0.0)).where(jobs.c.uuid == job_uuid)).first()
    return None if row is None else Pulse(*row)
