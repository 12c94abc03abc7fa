"""Leases: which conductor drives a job. Taking queued jobs and those of the dead, proving that one is still ours, letting go of it.

A running job belongs to a conductor for as long as that conductor's heartbeat holds (`conductors.py`); each lease raises the job's fence,
and whoever writes for the job proves that it still holds that fence.
Not for: which jobs a conductor wants; see `conductor/intake.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.builds import Job
from hullwright.objects.errors import LeaseLost
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence import conductors as conductors_rows
from hullwright.persistence.database import clock, now
from hullwright.persistence.jobs import BOARD, COLUMNS, from_row
from hullwright.persistence.jobs import get as get_job
from hullwright.persistence.models.jobs import conductors, jobs

_earlier = jobs.alias("earlier")
_is_first_of_its_instance = ~sa.exists().where(
    _earlier.c.instance_uuid == jobs.c.instance_uuid, _earlier.c.id < jobs.c.id, _earlier.c.state.in_(OPEN_JOB_STATES)
)


# --- Taking ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the jobs that there are to be leased a conductor wants now."""

    rank_at_most: int | None = None  # only as urgent ones
    rank_from: int | None = None  # only as little urgent ones
    leases_from: int = 0  # only those whose count of leases is that high already
    leases_below: int | None = None
    passed_over: Collection[str] = ()  # uuids of those it does not want

    def wants(self) -> list[sa.ColumnElement[bool]]:
        """As conditions on `jobs`."""
        found = [jobs.c.leases >= self.leases_from] if self.leases_from else []
        if self.rank_at_most is not None:
            found.append(jobs.c.rank <= self.rank_at_most)
        if self.rank_from is not None:
            found.append(jobs.c.rank >= self.rank_from)
        if self.leases_below is not None:
            found.append(jobs.c.leases < self.leases_below)
        if self.passed_over:
            found.append(jobs.c.uuid.not_in(self.passed_over))
        return found


ANY = Choice()


def can_take(connection: Connection, choice: Choice = ANY, *, board: str = BOARD) -> bool:
    """Whether `take` would find a queued job; a cheap look without a transaction."""
    return connection.execute(_queued(connection, 1, board, choice)).first() is not None


def _queued(connection: Connection, limit: int, board: str, choice: Choice) -> sa.Select[Any]:
    is_due = jobs.c.not_before <= clock(connection)
    return (
        sa.select(jobs.c.id)
        .where(jobs.c.board == board, jobs.c.state == JobState.QUEUED, is_due, _is_first_of_its_instance, *choice.wants())
        .order_by(jobs.c.rank, jobs.c.id)
        .limit(limit)
    )


def _orphaned(limit: int, board: str, dead: Sequence[str], choice: Choice) -> sa.Select[Any]:
    is_orphan = sa.or_(jobs.c.owner.in_(dead), jobs.c.owner.not_in(sa.select(conductors.c.id)))
    return (
        sa.select(jobs.c.id)
        .where(jobs.c.board == board, jobs.c.state == JobState.RUNNING, is_orphan, *choice.wants())
        .order_by(jobs.c.rank, jobs.c.id)
        .limit(limit)
    )


def take(connection: Connection, owner: str, limit: int, *, orphans: bool = False, choice: Choice = ANY, board: str = BOARD) -> list[Job]:
    """Take up to `limit` jobs for the conductor `owner`, inside a write transaction: queued ones, or those of conductors that died."""
    if limit < 1:
        return []
    # Held: a conductor whose lease has just ended must not renew it while its jobs are being taken.
    dead = conductors_rows.hold_lapsed(connection) if orphans else []
    return _take(connection, owner, _orphaned(limit, board, dead, choice) if orphans else _queued(connection, limit, board, choice))


def count_held(connection: Connection, owner: str, *, leases_from: int) -> int:
    """How many of a conductor's jobs have been leased that often without getting further."""
    query = sa.select(sa.func.count()).where(jobs.c.owner == owner, jobs.c.state == JobState.RUNNING, jobs.c.leases >= leases_from)
    return int(connection.execute(query).scalar_one())


def take_lost(connection: Connection, owner: str, driven: Collection[str], limit: int, *, board: str = BOARD) -> list[Job]:
    """Take up jobs that are the conductor's own by the record, and that it does not drive: the answer to a lease's commit was lost, or
    the job ended its thread (then `blame` has counted it).

    `driven`: uuids of those that it does drive.
    """
    mine = sa.and_(jobs.c.board == board, jobs.c.state == JobState.RUNNING, jobs.c.owner == owner, jobs.c.uuid.not_in(driven))
    lost = sa.select(jobs.c.id).where(mine).order_by(jobs.c.rank, jobs.c.id).limit(limit)
    return _take(connection, owner, lost, leases=jobs.c.leases)  # nobody has died of them


def _take(connection: Connection, owner: str, candidates: sa.Select[Any], **changes: Any) -> list[Job]:
    if connection.dialect.name == "postgresql":
        candidates = candidates.with_for_update(skip_locked=True, of=jobs)
    ids = list(connection.execute(candidates).scalars())
    if not ids:
        return []
    connection.execute(sa.update(jobs).where(jobs.c.id.in_(ids)).values(**(_taken_by(owner) | changes)))
    rows = connection.execute(sa.select(*COLUMNS).where(jobs.c.id.in_(ids)).order_by(jobs.c.rank, jobs.c.id))
    return [from_row(row) for row in rows.mappings()]


def take_one(connection: Connection, owner: str, uuid: str) -> Job | None:
    """Take one job that nobody drives, inside a write transaction; None when it has an owner or has ended."""
    living = conductors_rows.living(connection)
    is_free = sa.or_(jobs.c.state == JobState.QUEUED, sa.and_(jobs.c.state == JobState.RUNNING, jobs.c.owner.not_in(living)))
    taken = connection.execute(sa.update(jobs).where(jobs.c.uuid == uuid, is_free).values(**_taken_by(owner)))
    return get_job(connection, uuid) if taken.rowcount == 1 else None


def _taken_by(owner: str) -> dict[str, Any]:
    return {
        "state": JobState.RUNNING,
        "owner": owner,
        "fence": jobs.c.fence + 1,
        "leases": jobs.c.leases + 1,
        "started_at": sa.func.coalesce(jobs.c.started_at, now()),
    }


# --- Holding -----------------------------------------------------------------------------------------------------------

# What each barrier of each step asks is built once.
_LEASED = (jobs.c.id == sa.bindparam("job_id"), jobs.c.owner == sa.bindparam("its_owner"), jobs.c.fence == sa.bindparam("its_fence"))
_HELD = sa.select(sa.literal(1)).where(*_LEASED, jobs.c.state == JobState.RUNNING)
_HOLD = (
    sa.update(jobs)
    .where(*_LEASED)
    .values(
        # None leaves a figure as it is.
        seq=sa.func.coalesce(sa.bindparam("new_seq", type_=sa.Integer), jobs.c.seq),
        progress=sa.func.coalesce(sa.bindparam("new_progress", type_=sa.Integer), jobs.c.progress),
        # It got further than ever before: whoever drives it is not being crashed by it.
        leases=sa.case((sa.func.coalesce(sa.bindparam("new_progress", type_=sa.Integer), 0) > jobs.c.progress, 1), else_=jobs.c.leases),
    )
)
_HOLD_UNLESS_CANCELLED = _HOLD.where(jobs.c.cancel_requested.is_(False))


def _leased(job: Job) -> dict[str, Any]:
    """The values of `_LEASED`."""
    return {"job_id": job.id, "its_owner": job.owner, "its_fence": job.fence}


def _lost(job: Job) -> LeaseLost:
    return LeaseLost(f"job {job.uuid}: fence {job.fence} is not {job.owner}'s any more")


def hold(connection: Connection, job: Job, *, seq: int | None = None, progress: int | None = None, heed_cancel: bool = False) -> bool:
    """Prove, inside a write transaction, that `job`'s lease is still ours; nothing can take it over before the commit.

    Answers False when `heed_cancel` is set and its user asked to stop.

    Raises: LeaseLost.
    """
    values = _leased(job) | {"new_seq": seq, "new_progress": progress}
    if connection.execute(_HOLD_UNLESS_CANCELLED if heed_cancel else _HOLD, values).rowcount == 1:
        return True
    if heed_cancel and is_held(connection, job):
        return False
    raise _lost(job)


def is_held(connection: Connection, job: Job) -> bool:
    """Whether the lease that `job` was handed out with is still in force."""
    return connection.execute(_HELD, _leased(job)).first() is not None


def prove(connection: Connection, job: Job) -> None:
    """Prove the lease inside a write transaction that changes nothing of the job: nothing can take it before the commit.

    Raises: LeaseLost.
    """
    if connection.execute(_HELD.with_for_update(read=True), _leased(job)).first() is None:
        raise _lost(job)


def absolve(connection: Connection, held: Iterable[Job]) -> None:
    """Take back the count of leases that were lost by a conductor which lives: these jobs have not crashed it."""
    one_less = {"leases": sa.case((jobs.c.leases > 0, jobs.c.leases - 1), else_=0)}
    for job in held:
        here = sa.and_(jobs.c.id == job.id, jobs.c.fence >= job.fence, jobs.c.state.in_(OPEN_JOB_STATES))
        connection.execute(sa.update(jobs).where(here).values(**one_less))


def blame(connection: Connection, job: Job, error: str) -> None:
    """Count a lease as one that got the job nowhere although its conductor lives; nothing when it is not ours any more."""
    connection.execute(sa.update(jobs).where(*_LEASED).values(leases=jobs.c.leases + 1, error=error), _leased(job))


def raise_fence(connection: Connection, job: Job) -> Job:
    """Raise the fence of a job that we hold, so that the thread which drove it so far can do nothing more.

    Raises: LeaseLost.
    """
    if connection.execute(sa.update(jobs).where(*_LEASED).values(fence=jobs.c.fence + 1), _leased(job)).rowcount != 1:
        raise _lost(job)
    return get_job(connection, job.uuid)


# --- Letting go --------------------------------------------------------------------------------------------------------


def end(connection: Connection, job: Job, state: JobState, *, result: Any = None, error: str | None = None, progress: int = 100) -> None:
    """Bring a leased job to rest.

    Raises: LeaseLost.
    """
    _release(connection, job, state=state, result=result, error=error, progress=progress, finished_at=now(), owner=None, waits_for=None)


def give_back(connection: Connection, job: Job, *, not_before: float = 0.0, error: str | None = None) -> None:
    """Return a leased job to the queue, to be gone on with not before that time. It crashed nobody: its count of leases starts anew.

    Raises: LeaseLost.
    """
    _release(connection, job, state=JobState.QUEUED, not_before=not_before, error=error, owner=None, leases=0)


def pass_on(connection: Connection, job: Job, error: str) -> None:
    """Return a leased job, which we cannot load, to the queue for a conductor that can; as it was, so that its user can cancel it still.

    Raises: LeaseLost.
    """
    begun = {} if job.seq else {"started_at": None}  # nothing of it was ever written
    _release(connection, job, state=JobState.QUEUED, error=error, owner=None, leases=0, **begun)


def wait_for_room(connection: Connection, job: Job, *, until: float, **changes: Any) -> None:
    """Return a leased build to the queue until there is room or `until` has come; see `waits.py`, which says what else changes.

    Raises: LeaseLost.
    """
    _release(connection, job, state=JobState.QUEUED, not_before=until, owner=None, leases=0, **changes)


def _release(connection: Connection, job: Job, **changes: Any) -> None:
    if connection.execute(_release_with(tuple(changes)), _leased(job) | changes).rowcount != 1:
        raise _lost(job)


@cache
def _release_with(columns: tuple[str, ...]) -> sa.Update:
    """The statement that changes these columns, built once."""
    return sa.update(jobs).where(*_LEASED, jobs.c.state == JobState.RUNNING).values({name: sa.bindparam(name) for name in columns})
