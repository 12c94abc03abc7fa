"""Jobs: work that outlives processes. Posting, finding, cancelling, forgetting.

A job is open while queued or running. Jobs of one instance run one after the other, in the order of posting.
Not for: who drives a job, and how it ends; see `leases.py`. Not for TaskFlow's view of jobs; see `jobboard.py`.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hullwright.objects.builds import Job
from hullwright.objects.errors import NotFound
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import jobs

BOARD = "hullwright"  # the board of our own conductors
# Lower goes first. A person waits for a query's answer, and a delete frees room that builds may need.
RANK_QUERY, RANK_DELETE, RANK_DEFAULT, RANK_CLEANING = 0, 5, 10, 15

_is_question = jobs.c.rank == sa.literal_column(str(RANK_QUERY))  # no parameter: else the index of those that were answered goes unused
_UNREAD_MAX = 100  # removed at once

COLUMNS = [jobs.c[name] for name in Job.__dataclass_fields__]


class JobNotFound(NotFound):
    """No such job."""

    message = "Build {id} could not be found."


def from_row(row: RowMapping) -> Job:
    """The record of a row."""
    return Job(**row)


def new_row(
    *,
    kind: str,
    instance_uuid: str | None,
    inputs: Mapping[str, Any],
    request_id: str | None = None,
    rank: int = RANK_DEFAULT,
    not_before: float = 0.0,
    uuid: str | None = None,
    board: str = BOARD,
    deadline_at: float | None = None,
) -> dict[str, Any]:
    """A row for `post_rows`. `inputs` are JSON and hold no secrets: they are stored and shown."""
    return {
        "uuid": uuid or str(uuids.uuid4()),
        "board": board,
        "kind": kind,
        "instance_uuid": instance_uuid,
        "inputs": dict(inputs),
        "state": JobState.QUEUED,
        "request_id": request_id,
        "rank": rank,
        "not_before": not_before,
        "created_at": now(),
        "deadline_at": deadline_at,
    }


def post_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Post several jobs with one statement. Poke the conductors (`Wakeup.poke`) after the transaction."""
    connection.execute(sa.insert(jobs), list(rows))


def post(connection: Connection, **fields: Any) -> str:
    """Post one job, see `new_row`; answers its uuid."""
    row = new_row(**fields)
    post_rows(connection, [row])
    return str(row["uuid"])


def get(connection: Connection, uuid: str) -> Job:
    """One job.

    Raises: JobNotFound.
    """
    row = connection.execute(sa.select(*COLUMNS).where(jobs.c.uuid == uuid)).mappings().first()
    if row is None:
        raise JobNotFound(id=uuid)
    return from_row(row)


def latest(connection: Connection, instance_uuid: str, kind: str | None = None) -> Job | None:
    """The newest job of an instance, of one kind if given."""
    query = sa.select(*COLUMNS).where(jobs.c.instance_uuid == instance_uuid).order_by(jobs.c.id.desc()).limit(1)
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    row = connection.execute(query).mappings().first()
    return None if row is None else from_row(row)


def list_jobs(
    connection: Connection,
    *,
    instance_uuid: str | None = None,
    kinds: Sequence[str] = (),
    states: Iterable[JobState] = (),
    before_id: int | None = None,
    limit: int = 100,
) -> list[Job]:
    """Jobs, newest first."""
    query = sa.select(*COLUMNS).order_by(jobs.c.id.desc()).limit(limit)
    if instance_uuid is not None:
        query = query.where(jobs.c.instance_uuid == instance_uuid)
    if kinds:
        query = query.where(jobs.c.kind.in_(kinds))
    if states := tuple(states):
        query = query.where(jobs.c.state.in_(states))
    if before_id is not None:
        query = query.where(jobs.c.id < before_id)
    return [from_row(row) for row in connection.execute(query).mappings()]


def cancel_open(connection: Connection, instance_uuid: str, *, spare_kinds: Sequence[str] = ("delete_instance",)) -> int:
    """Ask the instance's open jobs to stop; one that was never leased ends at once. Answers how many were open."""
    ours = sa.and_(jobs.c.instance_uuid == instance_uuid, jobs.c.kind.not_in(spare_kinds))
    never_begun = connection.execute(
        sa.update(jobs)
        .where(ours, jobs.c.state == JobState.QUEUED, jobs.c.started_at.is_(None))
        .values(state=JobState.CANCELLED, cancel_requested=True, finished_at=now())
    )
    # What waits for a while, or for room, has nothing to wait for any more.
    asked = {"cancel_requested": True, "not_before": 0.0}
    begun = connection.execute(sa.update(jobs).where(ours, jobs.c.state.in_(OPEN_JOB_STATES)).values(**asked))
    return never_begun.rowcount + begun.rowcount


def forget(connection: Connection, uuid: str) -> None:
    """Remove a question's row once its answer is read, or nobody waits for it any more; one that is being answered goes with its answer."""
    if connection.execute(sa.delete(jobs).where(jobs.c.uuid == uuid, jobs.c.state != JobState.RUNNING)).rowcount == 0:
        connection.execute(sa.update(jobs).where(jobs.c.uuid == uuid).values(cancel_requested=True))


def forget_unwanted(connection: Connection, job: Job) -> None:
    """Remove a question that was answered when nobody waited for it any more."""
    connection.execute(sa.delete(jobs).where(jobs.c.id == job.id, jobs.c.cancel_requested.is_(True)))


def list_unread(connection: Connection, before: float) -> list[int]:
    """The ids of questions that were answered before that time and are still there: who asked died, or could not remove them.

    At most a hundred. One that is stuck is none of them: it has no answer, and its evidence is for an operator.
    """
    answered = sa.and_(_is_question, jobs.c.finished_at < before, jobs.c.state != JobState.STUCK)
    return list(connection.execute(sa.select(jobs.c.id).where(answered).limit(_UNREAD_MAX)).scalars())


def forget_unread(connection: Connection, ids: Sequence[int]) -> None:
    """Remove these questions with their answers."""
    connection.execute(sa.delete(jobs).where(jobs.c.id.in_(ids)))


def has_open(connection: Connection, instance_uuid: str, kind: str) -> bool:
    """Whether such a job is still to be done for the instance."""
    query = sa.select(sa.literal(1)).where(jobs.c.instance_uuid == instance_uuid, jobs.c.kind == kind, jobs.c.state.in_(OPEN_JOB_STATES))
    return connection.execute(query.limit(1)).first() is not None
