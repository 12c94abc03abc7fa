"""The waiting room: looks whether there is room for builds that wait for some, and wakes those that fit, the first in the queue first.

One per conductor, and all of them look: to wake a build twice does nothing. What one round chose for the builds before it counts as taken
for those behind, and so does what a build needs that was woken, by whomever, and is not placed yet: no more are woken than fit. Where the
first does not fit, smaller ones behind it may.
A look costs as much as there are different things waited for and builds under way to their place, however many wait. When hosts are very
many it is made less often, and when those things are very many, a look goes on where the one before it ended.
Not for: placing a build; it does that itself when it is leased, and goes back to its place when somebody else was quicker.
"""

from __future__ import annotations

import heapq
import logging
import time
from dataclasses import dataclass

from hullwright.conductor.loop import Loop
from hullwright.flows.context import Shared
from hullwright.objects.errors import NoValidHost
from hullwright.persistence import attempts, waits
from hullwright.persistence.database import DatabaseUnavailable
from hullwright.persistence.wakeup import Wakeup

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 0.25  # between two looks
SHARE = 10  # looks that took t seconds are at least t times this apart
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 1.0, 10.0  # a build that was woken, in vain, is left alone, longer each time
HOLD_SECONDS = 5.0  # of such a rest, in which those behind that wait for the same rest too: after that they may be luckier
_MANY = 500  # builds looked at in one round


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long a build is left alone that was woken."""

    seconds: float
    until: float  # monotonic

    def keeps_back(self, at: float) -> bool:
        """Whether those behind it that wait for the same are kept from passing it."""
        return at < min(self.until, self.until - self.seconds + HOLD_SECONDS)

    @staticmethod
    def after(last: _Rest | None) -> _Rest:
        seconds = FIRST_REST_SECONDS if last is None else min(2 * last.seconds, LONGEST_REST_SECONDS)
        return _Rest(seconds, time.monotonic() + seconds)


class WaitingRoom:
    """See the module."""

    def __init__(self, shared: Shared, wakeup: Wakeup) -> None:
        """`wakeup` tells conductors of builds that were woken."""
        self._shared = shared
        self._db = shared.db
        self._scheduler = shared.scheduler
        self._wakeup = wakeup
        self._rests: dict[int, _Rest] = {}  # by the id of a job that was woken
        self._looked_to = 0  # the id of the job at which the last round ended; 0 when it came to the end of the queue
        self._loop = Loop("waiting room", self._turn, LOOK_SECONDS)

    def start(self) -> None:
        """Begin to look."""
        self._loop.start()

    def stop(self) -> None:
        """Look no more."""
        self._loop.stop()

    def _turn(self) -> float:
        begun = time.monotonic()
        if self.look():
            self._wakeup.poke()
        return max(LOOK_SECONDS, SHARE * (time.monotonic() - begun))

    def look(self) -> int:
        """One round: wake those for whom there is room; answers how many."""
        with self._db.read() as connection:
            awaited = waits.awaited(connection)
        self._shared.has_waiters = bool(awaited)
        queue = [(each.first, each.what) for each in awaited] if any(each.has_sleepers for each in awaited) else []
        if queue:
            self._scheduler.refresh()
        begun = time.monotonic()
        self._rests = {key: rest for key, rest in self._rests.items() if rest.until > begun - LONGEST_REST_SECONDS}
        # By the first of their kind: whoever is further behind, and was not come to, has its turn when that one has.
        queue = [first for first in queue if first[0] > self._looked_to] or queue
        heapq.heapify(queue)
        number = woken = looked_at = 0
        while queue and looked_at < _MANY:
            number, what = heapq.heappop(queue)
            with self._db.read() as connection:
                waiter = waits.next_of(connection, what, number - 1)
                tried = {} if waiter is None else attempts.tried(connection, waiter.job_uuid)
            if waiter is None:
                continue
            rest = None if waiter.is_woken else self._rests.get(waiter.id)
            if rest is not None and rest.keeps_back(begun):
                continue
            looked_at += 1
            if rest is None or rest.until <= begun:
                if not self._has_room(waiter, tried):
                    continue  # what does not fit for the first of its kind does not for the others
                if not waiter.is_woken:
                    self._rests[waiter.id] = _Rest.after(rest)
                    with self._db.write() as connection:
                        woken += waits.wake(connection, waiter.id)
            heapq.heappush(queue, (waiter.id + 1, what))
        self._looked_to = number if queue else 0
        return woken

    def _has_room(self, waiter: waits.Waiter, tried: dict[str, str]) -> bool:
        """Whether there is room, which counts as taken then. When a filter fails, there is none, and the build rests: others go on."""
        try:
            self._scheduler.select(waiter.spec, tried, patient=True)
        except NoValidHost:
            return False
        except DatabaseUnavailable:
            raise
        except Exception:
            LOG.exception("Job %s: whether there is room for it could not be found out", waiter.job_uuid)
            self._rests[waiter.id] = _Rest.after(self._rests.get(waiter.id))
            return False
        return True
