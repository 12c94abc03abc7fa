"""Which jobs a conductor takes next, and which it leaves to others.

- Ordinary jobs fill the places that there are. A few more places are for urgent ones alone: deletes, and questions that people wait for.
- *Suspects*, which were leased several times without getting further while each conductor died, are taken one at a time: so that what
  crashes a conductor is found out without those that only happened to run beside it.
- Cleanings that were left to later come last and are few at a time: they go to the hosts that were silent, or hang.
- What this version of the code cannot load is left to conductors of another version, for a while at least.

Not for: running them; see `runner.py`.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Collection
from typing import Any

from sqlalchemy.engine import Connection

from hullwright.flows import leftovers
from hullwright.objects.builds import Job
from hullwright.persistence import conductors, jobs, leases
from hullwright.persistence.database import Database
from hullwright.persistence.leases import Choice
from hullwright.scheduler.select import Scheduler

LOG = logging.getLogger(__name__)
_URGENT_SHARE = 4  # one place more for each so many, at least one: for deletes, and as many again for questions
_NO_CLEANING = jobs.RANK_CLEANING - 1  # the rank of all that is more urgent
# Having lost one conductor makes nobody suspect: whatever it drove is taken up side by side, as fast as it can be.
_SUSPECT_LEASES = 3


def urgent_places(max_concurrent_jobs: int) -> int:
    """How many places there are for deletes alone, and as many again for questions alone."""
    return max(1, max_concurrent_jobs // _URGENT_SHARE)


class PassedOver:
    """Jobs that this version of the code cannot load, and that it does not take meanwhile. By uuid; touched by many threads."""

    def __init__(self, patience_seconds: float) -> None:
        """`patience_seconds`: how long one is left alone, for a conductor of another version to come and take it."""
        self._patience_seconds = patience_seconds
        self._until: dict[str, float] = {}  # monotonic

    def add(self, uuid: str) -> bool:
        """Leave a job alone for a while; False when it had its while before."""
        moment = time.monotonic()
        until = self._until.get(uuid)
        if until is not None and until > moment:  # it was being leased again just when it was noted
            return True
        self._until[uuid] = moment + self._patience_seconds
        return until is None

    def forget(self, uuid: str) -> None:
        """It has come to rest."""
        self._until.pop(uuid, None)

    def now(self) -> list[str]:
        """Those to be left alone."""
        moment = time.monotonic()
        return [uuid for uuid, until in list(self._until.items()) if until > moment]


class Intake:
    """Leases jobs for one conductor."""

    def __init__(self, db: Database, options: Any, scheduler: Scheduler, passed_over: PassedOver) -> None:
        """`options`: those of [conductor]. `scheduler` is told its turn among the living conductors."""
        self._db = db
        self._options = options
        self._scheduler = scheduler
        self._passed_over = passed_over
        # A count from which on a job is a suspect, the present lease included.
        self._suspect_leases = max(2, min(_SUSPECT_LEASES, options.max_leases))
        self._suspect: str | None = None  # the uuid of the one that is being driven
        self.look_for_orphans_at = 0.0  # monotonic

    def take(self, owner: str, driven: Collection[str], cleanings: int) -> list[Job]:
        """Lease what there is room for, for the conductor `owner`, which drives the jobs with the uuids `driven`; so many of them are
        cleanings that were left to later.

        Raises: DatabaseUnavailable.
        """
        room, rank_at_most = self._room(len(driven))
        if room < 1:
            return []
        room_for_cleanings = 0 if rank_at_most is not None else urgent_places(self._options.max_concurrent_jobs) - cleanings
        if rank_at_most is None and room_for_cleanings < 1:
            rank_at_most = _NO_CLEANING
        choice = Choice(rank_at_most, leases_below=self._suspect_leases - 1, passed_over=self._passed_over.now())
        if self._suspect is not None and self._suspect not in driven:
            self._suspect, self.look_for_orphans_at = None, 0.0  # the next one may be tried
        with self._db.read() as connection:
            is_something_queued = leases.can_take(connection, choice)
            looks_for_orphans = time.monotonic() >= self.look_for_orphans_at
            if looks_for_orphans:
                self._scheduler.turn = conductors.turn(connection, owner)
        if not (is_something_queued or looks_for_orphans):
            return []
        batch: list[Job] = []
        with self._db.write() as connection:
            if looks_for_orphans:
                conductors.shorten(connection, self._options.lease_seconds)
                batch = leases.take_lost(connection, owner, list(driven), room)
                suspects = dataclasses.replace(choice, leases_from=self._suspect_leases - 1, leases_below=None)
                if room > len(batch) and not leases.count_held(connection, owner, leases_from=self._suspect_leases):
                    found = leases.take(connection, owner, 1, orphans=True, choice=suspects)
                    batch += found or leases.take(connection, owner, 1, choice=suspects)
                batch += self._take(connection, owner, room - len(batch), room_for_cleanings, choice, orphans=True)
            room_for_cleanings -= sum(job.kind in leftovers.KINDS for job in batch)
            batch += self._take(connection, owner, room - len(batch), room_for_cleanings, choice, orphans=False)
        if looks_for_orphans:
            self.look_for_orphans_at = time.monotonic() + self._options.lease_seconds / 3
        for job in batch:
            if job.leases > 1:
                LOG.info("Taking up job %s (%s), lease %d", job.uuid, job.kind, job.leases)
            if job.leases >= self._suspect_leases:
                self._suspect = job.uuid
        return batch

    @staticmethod
    def _take(connection: Connection, owner: str, room: int, room_for_cleanings: int, choice: Choice, *, orphans: bool) -> list[Job]:
        """Others first, then cleanings, of which each may hang for long on its host: few at a time."""
        others = choice if choice.rank_at_most is not None else dataclasses.replace(choice, rank_at_most=_NO_CLEANING)
        batch = leases.take(connection, owner, room, orphans=orphans, choice=others)
        if choice.rank_at_most is None:
            cleanings = dataclasses.replace(choice, rank_from=jobs.RANK_CLEANING)
            batch += leases.take(connection, owner, min(room - len(batch), room_for_cleanings), orphans=orphans, choice=cleanings)
        return batch

    def _room(self, driven: int) -> tuple[int, int | None]:
        """How many more jobs may be driven, and how urgent they must be for that."""
        ordinary = self._options.max_concurrent_jobs
        urgent = urgent_places(ordinary)
        if driven < ordinary:
            return ordinary - driven, None
        if driven < ordinary + urgent:
            return ordinary + urgent - driven, jobs.RANK_DELETE
        return ordinary + 2 * urgent - driven, jobs.RANK_QUERY
