"""Loop: has something done again and again in a thread of a conductor, for as long as the conductor lives.

A database that is away is waited for; nothing that goes wrong in one turn ends the turns to come.
Not for: jobs, which are durable and somebody's to answer for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from hullwright.persistence.database import DatabaseUnavailable

LOG = logging.getLogger(__name__)
_END_SECONDS = 5.0  # how long `stop` waits for the turn that is under way


class Loop:
    """One thread."""

    def __init__(self, name: str, turn: Callable[[], float], pause_seconds: float) -> None:
        """`turn` answers how many seconds to wait for the next one; `pause_seconds` before the first, and after one that failed."""
        self._turn = turn
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more turns."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        pause = self._pause_seconds
        while not self._stop.wait(pause):
            pause = self._pause_seconds
            try:
                pause = self._turn()
            except DatabaseUnavailable as error:
                LOG.warning("The %s waits for the database: %s", self._thread.name, error)
            except Exception:
                LOG.exception("The %s stumbled", self._thread.name)
