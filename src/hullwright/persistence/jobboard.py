"""TaskFlow's `JobBoard` interface on our table of jobs, so that jobs are posted, claimed and consumed as on any TaskFlow board.

Registered as the TaskFlow jobboard driver `hullwright`: `taskflow.jobs.backends.fetch(name, {"board": "hullwright", ...})`. Boards of one
database are told apart by their names; our conductors' board is `jobs.BOARD`. An owner's claims last while its heartbeat does (`beat`).
What the interface has no word for (fences, cancelling, jobs of one instance in order) is in `jobs.py`.
"""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from taskflow import exceptions, states
from taskflow.jobs import base
from taskflow.types import entity as entities

from hullwright.objects.builds import Job
from hullwright.objects.errors import LeaseLost
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence import conductors, jobs, leases
from hullwright.persistence.database import Database
from hullwright.persistence.models.jobs import conductors as conductors_table
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.persistence.wakeup import Wakeup

_RANKS = {
    base.JobPriority.VERY_HIGH: 0,
    base.JobPriority.HIGH: 5,
    base.JobPriority.NORMAL: 10,
    base.JobPriority.LOW: 15,
    base.JobPriority.VERY_LOW: 20,
}
_PRIORITIES = {rank: priority for priority, rank in _RANKS.items()}
_BATCH = 100


class SqlJob(base.Job):  # type: ignore[misc]
    """A job as TaskFlow sees it."""

    def __init__(self, board: SqlJobBoard, job: Job, backend: Any = None) -> None:
        super().__init__(
            board,
            job.kind,
            uuid=job.uuid,
            details=dict(job.inputs.get("details", job.inputs)),
            backend=backend,
            book_data=job.inputs.get("book"),
        )
        self._row = job

    @property
    def fence(self) -> int:
        """The fence that this job was claimed with, or had when it was listed."""
        return self._row.fence

    @property
    def last_modified(self) -> datetime.datetime:
        """When it last began or ended."""
        return _datetime(self._row.finished_at or self._row.started_at or self._row.created_at)

    @property
    def created_on(self) -> datetime.datetime:
        """When it was posted."""
        return _datetime(self._row.created_at)

    @property
    def state(self) -> str:
        """UNCLAIMED, CLAIMED or COMPLETE, looked up now."""
        return self._board.state_of(self.uuid)  # type: ignore[no-any-return]

    @property
    def priority(self) -> base.JobPriority:
        """As posted."""
        return self._board.priority_of(self.uuid)


class SqlJobBoard(base.JobBoard):  # type: ignore[misc]
    """A board on a database."""

    def __init__(self, name: str, conf: Mapping[str, Any], persistence: Any = None) -> None:
        """`conf`: `db` (a `Database`) or `connection` (a URL); `state_path` for wake-ups; `lease_seconds` (15) for owners' heartbeats."""
        super().__init__(name, conf)
        self._persistence = persistence
        self._db: Database | None = conf.get("db")
        self._own_db = self._db is None
        self._wakeup: Wakeup | None = None
        self._lease_seconds = float(conf.get("lease_seconds", 15.0))

    # --- Connecting --------------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether `connect` was called."""
        return self._wakeup is not None

    def connect(self) -> None:
        """Open the database, if it was given as a URL, and listen for wake-ups."""
        if self._db is None:
            self._db = Database(self._conf["connection"])
        self._wakeup = Wakeup(self._db, self._conf.get("state_path", "var"))
        self._wakeup.listen()

    def close(self) -> None:
        """Stop listening; a database opened here is closed."""
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None
        if self._own_db and self._db is not None:
            self._db.close()
            self._db = None

    @property
    def db(self) -> Database:
        """The database.

        Raises: taskflow.exceptions.JobFailure before `connect`.
        """
        if self._db is None:
            raise exceptions.JobFailure("The jobboard is not connected")
        return self._db

    # --- Looking -----------------------------------------------------------------------------------------------------------

    @property
    def job_count(self) -> int:
        """How many jobs are open."""
        query = sa.select(sa.func.count()).where(jobs_table.c.board == self.name, jobs_table.c.state.in_(OPEN_JOB_STATES))
        with self.db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def iterjobs(self, only_unclaimed: bool = False, ensure_fresh: bool = False) -> Iterator[SqlJob]:
        """Open jobs, most urgent first, then in order of posting; every look is fresh."""
        query = sa.select(jobs_table.c.uuid).where(jobs_table.c.board == self.name, jobs_table.c.state.in_(OPEN_JOB_STATES))
        query = query.order_by(jobs_table.c.rank, jobs_table.c.id)
        with self.db.read() as connection:
            uuids = list(connection.execute(query).scalars())
        for uuid in uuids:
            with self.db.read() as connection:
                job = jobs.get(connection, uuid)
            if job.state in OPEN_JOB_STATES and not (only_unclaimed and self.state_of(uuid) != states.UNCLAIMED):
                yield SqlJob(self, job, self._persistence)

    def wait(self, timeout: float | None = None) -> Iterator[SqlJob]:
        """Wait until there are open jobs.

        Raises: taskflow.exceptions.NotFound when the time is over and there is none.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.job_count == 0:
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0 or self._wakeup is None:
                raise exceptions.NotFound(f"No jobs were posted within {timeout} seconds")
            self._wakeup.wait(min(left, 1.0))
        return self.iterjobs()

    def state_of(self, uuid: str) -> str:
        """UNCLAIMED, CLAIMED or COMPLETE."""
        with self.db.read() as connection:
            job = jobs.get(connection, uuid)
            if job.state == JobState.QUEUED:
                return str(states.UNCLAIMED)
            if job.state == JobState.RUNNING:
                living = self._living(connection, job.owner)
                return str(states.CLAIMED if living else states.UNCLAIMED)
        return str(states.COMPLETE)

    @staticmethod
    def _living(connection: Any, owner: str | None) -> bool:
        return connection.execute(conductors.living(connection).where(conductors_table.c.id == owner)).first() is not None

    def priority_of(self, uuid: str) -> base.JobPriority:
        """As posted."""
        with self.db.read() as connection:
            rank = connection.execute(sa.select(jobs_table.c.rank).where(jobs_table.c.uuid == uuid)).scalar()
        return _PRIORITIES.get(rank if rank is not None else 10, base.JobPriority.NORMAL)

    def find_owner(self, job: SqlJob) -> str | None:
        """Who claims it; None when nobody does."""
        with self.db.read() as connection:
            found = jobs.get(connection, job.uuid)
            return found.owner if found.state == JobState.RUNNING and self._living(connection, found.owner) else None

    # --- Changing ----------------------------------------------------------------------------------------------------------

    def post(
        self, name: str, book: Any = None, details: Mapping[str, Any] | None = None, priority: base.JobPriority = base.JobPriority.NORMAL
    ) -> SqlJob:
        """Post a job; it is durable when this returns."""
        inputs: dict[str, Any] = {"details": dict(details or {})}
        if book is not None:
            inputs["book"] = {"uuid": book.uuid, "name": book.name}
        with self.db.write() as connection:
            uuid = jobs.post(
                connection, kind=name, instance_uuid=None, inputs=inputs, rank=_RANKS[base.JobPriority.convert(priority)], board=self.name
            )
            job = jobs.get(connection, uuid)
        if self._wakeup is not None:
            self._wakeup.poke()
        return SqlJob(self, job, self._persistence)

    def claim(self, job: SqlJob, who: str) -> None:
        """Raises: taskflow.exceptions.UnclaimableJob when somebody else has it or it has ended."""
        with self.db.write() as connection:
            self._enlist(connection, who)
            taken = leases.take_one(connection, who, job.uuid)
        if taken is None:
            raise exceptions.UnclaimableJob(f"Job {job.uuid} is claimed by {self.find_owner(job)} or has ended")
        job._row = taken

    def consume(self, job: SqlJob, who: str) -> None:
        """The work is done. Raises: taskflow.exceptions.JobFailure when `who` does not hold it."""
        self._leave(job, who, lambda connection, held: leases.end(connection, held, JobState.DONE))

    def abandon(self, job: SqlJob, who: str) -> None:
        """Somebody else may go on. Raises: taskflow.exceptions.JobFailure when `who` does not hold it."""
        self._leave(job, who, lambda connection, held: leases.give_back(connection, held))

    def trash(self, job: SqlJob, who: str) -> None:
        """It cannot be done: parked as stuck, for operators. Raises: taskflow.exceptions.JobFailure when `who` does not hold it."""
        why = f"trashed by {who}"
        self._leave(job, who, lambda connection, held: leases.end(connection, held, JobState.STUCK, error=why, progress=held.progress))

    def _leave(self, job: SqlJob, who: str, act: Any) -> None:
        with self.db.write() as connection:
            held = jobs.get(connection, job.uuid)
            if held.owner != who or held.fence != job.fence:
                raise exceptions.JobFailure(f"Job {job.uuid} is not {who}'s; it is {held.owner}'s")
            try:
                act(connection, held)
            except LeaseLost as error:
                raise exceptions.JobFailure(str(error)) from error
        if self._wakeup is not None:
            self._wakeup.poke()

    # --- Owners ------------------------------------------------------------------------------------------------------------

    def register_entity(self, entity: entities.Entity) -> None:
        """Enlist an owner, so that its claims last while it beats."""
        with self.db.write() as connection:
            self._enlist(connection, entity.name)

    def beat(self, who: str) -> bool:
        """Renew all of an owner's claims with one statement; False when they have lapsed."""
        with self.db.write() as connection:
            return conductors.beat(connection, who, self._lease_seconds)

    def _enlist(self, connection: Any, who: str) -> None:
        if connection.execute(sa.select(conductors_table.c.id).where(conductors_table.c.id == who)).first() is None:
            conductors.enlist(
                connection,
                id=who,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                version=conductors.JOBBOARD_VERSION,
                lease_seconds=self._lease_seconds,
            )
        elif not self._living(connection, who):
            conductors.retire(connection, who)
            self._enlist(connection, who)


def _datetime(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
