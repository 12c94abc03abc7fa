"""The waiting room: looks whether there is room for builds that wait for some, and wakes those that fit, the first in the queue first.

One per conductor, and all of them look: to wake a build twice does nothing. What one round chose for the builds before it counts as taken
for those behind, so that no more are woken than fit; where the first does not fit, smaller ones behind it may.
A look costs as much as there are different things waited for, however many wait. When hosts are very many it is made less often.
Not for: placing a build; it does that itself when it is leased, and goes back to its place when somebody else was quicker.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from dataclasses import dataclass

from hullwright.flows.context import Shared
from hullwright.objects.errors import NoValidHost
from hullwright.persistence import attempts, waits
from hullwright.persistence.database import DatabaseUnavailable
from hullwright.persistence.wakeup import Wakeup

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 0.25  # between two looks
SHARE = 10  # looks that took t seconds are at least t times this apart
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 1.0, 60.0  # a build that was woken, in vain, is left alone, longer each time
_MANY = 500  # builds looked at in one round


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long a build is left alone that was woken."""

    seconds: float
    until: float  # monotonic

    @staticmethod
    def after(last: _Rest | None) -> _Rest:
        seconds = FIRST_REST_SECONDS if last is None else min(2 * last.seconds, LONGEST_REST_SECONDS)
        return _Rest(seconds, time.monotonic() + seconds)


class WaitingRoom:
    """See the module."""

    def __init__(self, shared: Shared, wakeup: Wakeup) -> None:
        """`wakeup` tells conductors of builds that were woken."""
        self._db = shared.db
        self._scheduler = shared.scheduler
        self._wakeup = wakeup
        self._rests: dict[int, _Rest] = {}  # by the id of a job that was woken
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waiting-room", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._stop.wait(pause):
            begun = time.monotonic()
            try:
                if self.look():
                    self._wakeup.poke()
            except DatabaseUnavailable as error:
                LOG.warning("Nobody looks for room: %s", error)
            except Exception:  # who waits must not wait for ever because of one look
                LOG.exception("The waiting room stumbled")
            pause = max(LOOK_SECONDS, SHARE * (time.monotonic() - begun))

    def look(self) -> int:
        """One round: wake those for whom there is room; answers how many."""
        with self._db.read() as connection:
            queue = waits.first_of_each(connection)
        if queue:
            self._scheduler.refresh()
        begun = time.monotonic()
        self._rests = {key: rest for key, rest in self._rests.items() if rest.until > begun - LONGEST_REST_SECONDS}
        heapq.heapify(queue)
        woken = 0
        for _ in range(_MANY):
            if not queue:
                break
            number, what = heapq.heappop(queue)
            with self._db.read() as connection:
                waiter = waits.next_of(connection, what, number - 1)
                tried = {} if waiter is None else attempts.tried(connection, waiter.job_uuid)
            if waiter is None:
                continue
            rest = self._rests.get(waiter.id)
            if rest is None or rest.until <= begun:
                if not self._has_room(waiter, tried):
                    continue  # what does not fit for the first of its kind does not for the others
                self._rests[waiter.id] = _Rest.after(rest)
                with self._db.write() as connection:
                    woken += waits.wake(connection, waiter.id)
            heapq.heappush(queue, (waiter.id + 1, what))
        return woken

    def _has_room(self, waiter: waits.Waiter, tried: dict[str, str]) -> bool:
        try:
            self._scheduler.select(waiter.spec, tried, patient=True)
        except NoValidHost:
            return False
        return True
