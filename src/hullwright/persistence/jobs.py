"""Jobs: work that outlives processes. Posting, leasing, cancelling, ending.

A job is open while queued or running. Jobs of one instance run one after the other, in the order of posting. A running job belongs to a
conductor for as long as that conductor's heartbeat holds (`conductors.py`); each lease raises the job's fence, and whoever writes for the
job proves that it still holds that fence.
Not for: TaskFlow's view of jobs; see `jobboard.py`.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hullwright.objects.builds import Job
from hullwright.objects.errors import LeaseLost, NotFound
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence import conductors as conductors_rows
from hullwright.persistence.database import clock, now
from hullwright.persistence.models.jobs import conductors, jobs

BOARD = "hullwright"  # the board of our own conductors
# Lower goes first. A person waits for a query's answer, and a delete frees room that builds may need.
RANK_QUERY, RANK_DELETE, RANK_DEFAULT, RANK_CLEANING = 0, 5, 10, 15

_open_states = tuple(OPEN_JOB_STATES)
_earlier = jobs.alias("earlier")
_is_first_of_its_instance = ~sa.exists().where(
    _earlier.c.instance_uuid == jobs.c.instance_uuid, _earlier.c.id < jobs.c.id, _earlier.c.state.in_(_open_states)
)
_JOB_COLUMNS = [jobs.c[name] for name in Job.__dataclass_fields__]


class JobNotFound(NotFound):
    """No such job."""

    message = "Build {id} could not be found."


def _job(row: RowMapping) -> Job:
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
    row = connection.execute(sa.select(*_JOB_COLUMNS).where(jobs.c.uuid == uuid)).mappings().first()
    if row is None:
        raise JobNotFound(id=uuid)
    return _job(row)


def latest(connection: Connection, instance_uuid: str, kind: str | None = None) -> Job | None:
    """The newest job of an instance, of one kind if given."""
    query = sa.select(*_JOB_COLUMNS).where(jobs.c.instance_uuid == instance_uuid).order_by(jobs.c.id.desc()).limit(1)
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    row = connection.execute(query).mappings().first()
    return None if row is None else _job(row)


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
    query = sa.select(*_JOB_COLUMNS).order_by(jobs.c.id.desc()).limit(limit)
    if instance_uuid is not None:
        query = query.where(jobs.c.instance_uuid == instance_uuid)
    if kinds:
        query = query.where(jobs.c.kind.in_(kinds))
    if states := tuple(states):
        query = query.where(jobs.c.state.in_(states))
    if before_id is not None:
        query = query.where(jobs.c.id < before_id)
    return [_job(row) for row in connection.execute(query).mappings()]


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
    begun = connection.execute(sa.update(jobs).where(ours, jobs.c.state.in_(_open_states)).values(**asked))
    return never_begun.rowcount + begun.rowcount


def forget(connection: Connection, uuid: str) -> None:
    """Remove a question's row once its answer is read, or nobody waits for it any more; one that is being answered goes with its answer."""
    if connection.execute(sa.delete(jobs).where(jobs.c.uuid == uuid, jobs.c.state != JobState.RUNNING)).rowcount == 0:
        connection.execute(sa.update(jobs).where(jobs.c.uuid == uuid).values(cancel_requested=True))


def forget_unwanted(connection: Connection, job: Job) -> None:
    """Remove a question that was answered when nobody waited for it any more."""
    connection.execute(sa.delete(jobs).where(jobs.c.id == job.id, jobs.c.cancel_requested.is_(True)))


def has_open(connection: Connection, instance_uuid: str, kind: str) -> bool:
    """Whether such a job is still to be done for the instance."""
    query = sa.select(sa.literal(1)).where(jobs.c.instance_uuid == instance_uuid, jobs.c.kind == kind, jobs.c.state.in_(_open_states))
    return connection.execute(query.limit(1)).first() is not None


# --- Leasing: for conductors -----------------------------------------------------------------------------------------


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


def leasable(connection: Connection, choice: Choice = ANY, *, board: str = BOARD) -> bool:
    """Whether `lease` would find a queued job; a cheap look without a transaction."""
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


def lease(connection: Connection, owner: str, limit: int, *, orphans: bool = False, choice: Choice = ANY, board: str = BOARD) -> list[Job]:
    """Take up to `limit` jobs for the conductor `owner`, inside a write transaction: queued ones, or those of conductors that died."""
    if limit < 1:
        return []
    # Held: a conductor whose lease has just ended must not renew it while its jobs are being taken.
    dead = conductors_rows.hold_lapsed(connection) if orphans else []
    return _take(connection, owner, _orphaned(limit, board, dead, choice) if orphans else _queued(connection, limit, board, choice))


def count_leased(connection: Connection, owner: str, *, leases_from: int) -> int:
    """How many of a conductor's jobs have been leased that often without getting further."""
    query = sa.select(sa.func.count()).where(jobs.c.owner == owner, jobs.c.state == JobState.RUNNING, jobs.c.leases >= leases_from)
    return int(connection.execute(query).scalar_one())


def lease_again(connection: Connection, owner: str, driven: Collection[str], limit: int, *, board: str = BOARD) -> list[Job]:
    """Take up jobs that are the conductor's own by the record, and that it does not drive: the answer to a lease's commit was lost.

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
    rows = connection.execute(sa.select(*_JOB_COLUMNS).where(jobs.c.id.in_(ids)).order_by(jobs.c.rank, jobs.c.id))
    return [_job(row) for row in rows.mappings()]


def lease_one(connection: Connection, owner: str, uuid: str) -> Job | None:
    """Take one job that nobody drives, inside a write transaction; None when it has an owner or has ended."""
    living = conductors_rows.living(connection)
    is_free = sa.or_(jobs.c.state == JobState.QUEUED, sa.and_(jobs.c.state == JobState.RUNNING, jobs.c.owner.not_in(living)))
    taken = connection.execute(sa.update(jobs).where(jobs.c.uuid == uuid, is_free).values(**_taken_by(owner)))
    return get(connection, uuid) if taken.rowcount == 1 else None


def _taken_by(owner: str) -> dict[str, Any]:
    return {
        "state": JobState.RUNNING,
        "owner": owner,
        "fence": jobs.c.fence + 1,
        "leases": jobs.c.leases + 1,
        "started_at": sa.func.coalesce(jobs.c.started_at, now()),
    }


def absolve(connection: Connection, held: Iterable[Job]) -> None:
    """Take back the count of leases that were lost by a conductor which lives: these jobs have not crashed it."""
    one_less = {"leases": sa.case((jobs.c.leases > 0, jobs.c.leases - 1), else_=0)}
    for job in held:
        here = sa.and_(jobs.c.id == job.id, jobs.c.fence >= job.fence, jobs.c.state.in_(_open_states))
        connection.execute(sa.update(jobs).where(here).values(**one_less))


def blame(connection: Connection, job: Job, error: str) -> None:
    """Count a lease as one that got the job nowhere although its conductor lives; nothing when it is not ours any more."""
    ours = sa.and_(jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.fence == job.fence)
    connection.execute(sa.update(jobs).where(ours).values(leases=jobs.c.leases + 1, error=error))


def take_again(connection: Connection, job: Job) -> Job:
    """Raise the fence of a job that we hold, so that the thread which drove it so far can do nothing more.

    Raises: LeaseLost.
    """
    statement = sa.update(jobs).where(jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.fence == job.fence)
    if connection.execute(statement.values(fence=jobs.c.fence + 1)).rowcount != 1:
        raise LeaseLost(f"job {job.uuid}: fence {job.fence} is not {job.owner}'s any more")
    return get(connection, job.uuid)


# Every barrier of every step proves the lease: built once. None leaves a figure as it is.
_LEASED = (jobs.c.id == sa.bindparam("job_id"), jobs.c.owner == sa.bindparam("its_owner"), jobs.c.fence == sa.bindparam("its_fence"))
_HOLD = (
    sa.update(jobs)
    .where(*_LEASED)
    .values(
        seq=sa.func.coalesce(sa.bindparam("new_seq", type_=sa.Integer), jobs.c.seq),
        progress=sa.func.coalesce(sa.bindparam("new_progress", type_=sa.Integer), jobs.c.progress),
        # It got further than ever before: whoever drives it is not being crashed by it.
        leases=sa.case((sa.func.coalesce(sa.bindparam("new_progress", type_=sa.Integer), 0) > jobs.c.progress, 1), else_=jobs.c.leases),
    )
)
_HOLD_UNLESS_CANCELLED = _HOLD.where(jobs.c.cancel_requested.is_(False))


def hold(connection: Connection, job: Job, *, seq: int | None = None, progress: int | None = None, heed_cancel: bool = False) -> bool:
    """Prove, inside a write transaction, that `job`'s lease is still ours; nothing can take it over before the commit.

    Answers False when `heed_cancel` is set and its user asked to stop.

    Raises: LeaseLost.
    """
    values = {"job_id": job.id, "its_owner": job.owner, "its_fence": job.fence, "new_seq": seq, "new_progress": progress}
    if connection.execute(_HOLD_UNLESS_CANCELLED if heed_cancel else _HOLD, values).rowcount == 1:
        return True
    if heed_cancel and is_held(connection, job):
        return False
    raise LeaseLost(f"job {job.uuid}: fence {job.fence} is not {job.owner}'s any more")


def is_held(connection: Connection, job: Job) -> bool:
    """Whether the lease that `job` was handed out with is still in force."""
    query = sa.select(sa.literal(1)).where(
        jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.fence == job.fence, jobs.c.state == JobState.RUNNING
    )
    return connection.execute(query).first() is not None


def hold_still(connection: Connection, job: Job) -> bool:
    """Whether the lease is in force, inside a write transaction that changes nothing of the job: nothing can take it before the commit."""
    query = sa.select(sa.literal(1)).where(
        jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.fence == job.fence, jobs.c.state == JobState.RUNNING
    )
    return connection.execute(query.with_for_update(read=True)).first() is not None


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
    values = {"job_id": job.id, "its_owner": job.owner, "its_fence": job.fence} | changes
    if connection.execute(_release_with(tuple(changes)), values).rowcount != 1:
        raise LeaseLost(f"job {job.uuid}: fence {job.fence} is not {job.owner}'s any more")


@cache
def _release_with(columns: tuple[str, ...]) -> sa.Update:
    """The statement that changes these columns, built once."""
    return sa.update(jobs).where(*_LEASED, jobs.c.state == JobState.RUNNING).values({name: sa.bindparam(name) for name in columns})
