"""Instance actions: what was asked of an instance, by whom, and how it ended. The steps are in `events`, by the action's job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.builds import Action
from hullwright.objects.states import JobState
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instance_actions
from hullwright.persistence.models.jobs import jobs

_COLUMNS = [instance_actions.c[name] for name in Action.__dataclass_fields__]
# Each build asks these.
_of_job = instance_actions.c.job_uuid == sa.bindparam("its_job")
_FINISHED_AT = sa.select(instance_actions.c.finished_at).where(_of_job)
_FINISH = (
    sa.update(instance_actions)
    .where(_of_job, instance_actions.c.finished_at.is_(None))
    .values(finished_at=sa.bindparam("finished_at"), message=sa.bindparam("message"))
)


def new_row(*, instance_uuid: str, action: str, request_id: str, project_id: str, user_id: str, job_uuid: str | None) -> dict[str, Any]:
    """A row for `start_rows`. An action without a job was done at once and is finished already."""
    started = now()
    return {
        "instance_uuid": instance_uuid,
        "action": action,
        "request_id": request_id,
        "project_id": project_id,
        "user_id": user_id,
        "job_uuid": job_uuid,
        "started_at": started,
        "finished_at": None if job_uuid else started,
    }


def start_rows(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record several actions with one statement."""
    conn.execute(sa.insert(instance_actions), list(rows))


def start(conn: Connection, **fields: Any) -> None:
    """Record one action, see `new_row`."""
    start_rows(conn, [new_row(**fields)])


def finish(conn: Connection, job_uuid: str, failed: bool) -> None:
    """Record how the job's action ended; a second time changes nothing."""
    conn.execute(_FINISH, {"its_job": job_uuid, "finished_at": now(), "message": "Error" if failed else None})


def close_open(conn: Connection, instance_uuid: str) -> None:
    """Record that whatever was open of an instance came to nothing. For reconciliation."""
    here = (instance_actions.c.instance_uuid == instance_uuid, instance_actions.c.finished_at.is_(None))
    conn.execute(sa.update(instance_actions).where(*here).values(finished_at=now(), message="Error"))


def hand_over(conn: Connection, instance_uuid: str, action: str, job_uuid: str) -> None:
    """Give an instance's open actions of that name to a job that goes on with them. For reconciliation."""
    here = (instance_actions.c.instance_uuid == instance_uuid, instance_actions.c.finished_at.is_(None))
    conn.execute(sa.update(instance_actions).where(*here, instance_actions.c.action == action).values(job_uuid=job_uuid))


def finish_cancelled(conn: Connection, instance_uuid: str) -> None:
    """Close the actions of the instance's jobs that were cancelled before anybody began them: nobody else would."""
    cancelled = sa.select(jobs.c.uuid).where(jobs.c.instance_uuid == instance_uuid, jobs.c.state == JobState.CANCELLED)
    conn.execute(
        sa.update(instance_actions)
        .where(
            instance_actions.c.instance_uuid == instance_uuid,
            instance_actions.c.finished_at.is_(None),
            instance_actions.c.job_uuid.in_(cancelled),
        )
        .values(finished_at=now(), message="Error")
    )


def is_finished(conn: Connection, job_uuid: str) -> bool:
    """Whether a job's action was closed. A last step asks, so that running it again after a crash changes nothing."""
    return conn.scalar(_FINISHED_AT, {"its_job": job_uuid}) is not None


def get(conn: Connection, instance_uuid: str, request_id: str) -> Action | None:
    """The action that a request began."""
    query = (
        sa.select(*_COLUMNS)
        .where(instance_actions.c.instance_uuid == instance_uuid, instance_actions.c.request_id == request_id)
        .order_by(instance_actions.c.id)
        .limit(1)
    )
    row = conn.execute(query).mappings().first()
    return None if row is None else Action(**row)


def list_for(
    conn: Connection,
    instance_uuid: str,
    *,
    limit: int | None = None,
    before_id: int | None = None,
    since: float | None = None,
    before: float | None = None,
) -> list[Action]:
    """An instance's actions, newest first.

    `since`, `before`: seconds since the epoch; by when the action was last touched.
    """
    touched = sa.func.coalesce(instance_actions.c.finished_at, instance_actions.c.started_at)
    query = sa.select(*_COLUMNS).where(instance_actions.c.instance_uuid == instance_uuid)
    if before_id is not None:
        query = query.where(instance_actions.c.id < before_id)
    if since is not None:
        query = query.where(touched >= since)
    if before is not None:
        query = query.where(touched <= before)
    query = query.order_by(instance_actions.c.id.desc())
    if limit is not None:
        query = query.limit(limit)
    return [Action(**row) for row in conn.execute(query).mappings()]
