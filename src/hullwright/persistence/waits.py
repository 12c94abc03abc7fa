"""The queue of builds that wait for room. They are jobs that are queued and not due: at the end of their patience, or sooner when somebody
who sees room for them wakes them. So a wait survives everything that a job survives, and no timer has to.

Places are in the order of the requests. A build's deadline stands still while it waits.
Not for: seeing room (`conductor/waiting_room.py`), nor deciding to wait (`flows/capacity.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.builds import Job
from hullwright.objects.instances import RequestSpec
from hullwright.objects.states import JobState
from hullwright.persistence import leases
from hullwright.persistence.database import clock, read_clock
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs

_waits = jobs.c.waits_for.is_not(None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a build stands in the queue."""

    number: int  # from 1
    of: int


class Awaited(NamedTuple):
    """Something that builds wait for."""

    first: int  # id of the foremost job that does
    what: str
    has_sleepers: bool  # not all of them were woken


@dataclass(frozen=True, slots=True)
class Waiter:
    """A build that waits."""

    id: int
    job_uuid: str
    waits_for: str
    spec: RequestSpec
    is_woken: bool  # it looks for room just now, or is about to


def until(connection: Connection, job: Job, seconds: float) -> float | None:
    """Until when a build may wait that has `seconds` for it from when it first did; None when that is over. Seconds since the epoch."""
    at = read_clock(connection)
    end = (job.waiting_since or at) + seconds
    return end if end > at else None


def begin(connection: Connection, job: Job, waits_for: str, end: float, seq: int) -> None:
    """Put a leased build into the queue, or back into it at its old place. `seq`: of the last event of its history.

    Raises: LeaseLost.
    """
    at = read_clock(connection)
    changes = {"waits_for": waits_for, "waiting_since": job.waiting_since or at, "seq": seq}
    if job.waits_for is None and job.deadline_at is not None:
        changes["deadline_at"] = job.deadline_at + max(0.0, end - at)
    leases.wait_for_room(connection, job, until=end, **changes)


def leave(connection: Connection, job: Job, seconds: float) -> Job:
    """Take a leased build that found room out of the queue; the time that it did not need to wait goes off its deadline again.

    Of a build that is not in the queue nothing is changed. Answers the job as it is now.
    """
    left = max(0.0, (job.waiting_since or 0.0) + seconds - read_clock(connection))
    statement = sa.update(jobs).where(jobs.c.id == job.id, _waits)
    taken = connection.execute(statement.values(waits_for=None, deadline_at=jobs.c.deadline_at - left)).rowcount
    deadline_at = job.deadline_at - left if taken and job.deadline_at is not None else job.deadline_at
    return dataclasses.replace(job, waits_for=None, deadline_at=deadline_at)


def is_behind(connection: Connection, job: Job, waits_for: str) -> bool:
    """Whether a build that was asked for before this one waits for the same; one whose server is being deleted waits for nothing."""
    before = (jobs.c.waits_for == waits_for, jobs.c.id < job.id, jobs.c.cancel_requested.is_(False))
    query = sa.select(sa.literal(1)).where(*before).limit(1)
    return connection.execute(query).first() is not None


def place(connection: Connection, job: Job) -> Place | None:
    """Where a build stands; None when it does not wait."""
    return places(connection, [job]).get(job.id)


def places(connection: Connection, some: Iterable[Job]) -> dict[int, Place]:
    """Where builds stand, by the id of the job; of those of `some` that wait. Reads the queue, and nothing when none of them waits."""
    wanted = {job.id for job in some if job.waits_for is not None}
    if not wanted:
        return {}
    queue = list(connection.execute(sa.select(jobs.c.id).where(_waits).order_by(jobs.c.id)).scalars())
    return {id_: Place(number, len(queue)) for number, id_ in enumerate(queue, 1) if id_ in wanted}


def awaited(connection: Connection) -> list[Awaited]:
    """The different things that are waited for, in the order of the foremost in the queue who wait for each."""
    first, asleep = sa.func.min(jobs.c.id), sa.func.max(sa.case((_sleeps(connection), 1), else_=0))
    rows = connection.execute(sa.select(first, jobs.c.waits_for, asleep).where(_waits).group_by(jobs.c.waits_for).order_by(first))
    return [Awaited(int(row[0]), str(row[1]), bool(row[2])) for row in rows]


def next_of(connection: Connection, waits_for: str, after: int) -> Waiter | None:
    """The first behind the job with id `after` that waits for this."""
    query = (
        sa.select(jobs.c.id, jobs.c.uuid, instances.c.spec, sa.case((_sleeps(connection), 1), else_=0))
        .join(instances, instances.c.uuid == jobs.c.instance_uuid)
        .where(jobs.c.waits_for == waits_for, jobs.c.id > after)
        .order_by(jobs.c.id)
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else Waiter(int(row[0]), row[1], waits_for, RequestSpec.from_dict(row[2]), is_woken=not row[3])


def _sleeps(connection: Connection) -> sa.ColumnElement[bool]:
    return sa.and_(jobs.c.state == JobState.QUEUED, jobs.c.not_before > clock(connection))


def wake(connection: Connection, job_id: int) -> bool:
    """Have a conductor look for room for it now; it keeps its place until it has some. False when it does not wait any more."""
    woken = sa.update(jobs).where(jobs.c.id == job_id, _waits, jobs.c.state == JobState.QUEUED).values(not_before=0.0)
    return connection.execute(woken).rowcount == 1
