"""A conductor's lease on life: one row that is renewed by a timer, and that all its jobs hang on.

By this process's own clock a lease ends earlier than by the database's, so that an owner stops acting before others may begin. That clock
is no wall clock, which may be set, and it does not stand still while the machine sleeps.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hullwright.persistence import conductors
from hullwright.persistence.database import Database, DatabaseUnavailable

LOG = logging.getLogger(__name__)
_MARGIN = 0.8  # of the lease that we ourselves count on


class Heartbeat:
    """Enlists the conductor, keeps its lease, and enlists it anew under another id when the lease was lost."""

    def __init__(self, db: Database, lease_seconds: float, version: str, on_lost: Callable[[], None]) -> None:
        """`on_lost` is called after a lapsed lease was replaced: whatever was leased under the old id is not ours any more."""
        self._db = db
        self._lease_seconds = lease_seconds
        self._version = version
        self._on_lost = on_lost
        self._hostname = socket.gethostname()
        self._stop = threading.Event()
        self._good_until = 0.0  # by `_clock`
        self._thread = threading.Thread(target=self._beat_for_ever, name="heartbeat", daemon=True)
        self.id = ""

    def is_good(self, owner: str | None) -> bool:
        """Whether jobs leased under the id `owner` are still ours to act on."""
        return owner == self.id and _clock() < self._good_until

    def start(self) -> None:
        """Enlist, forget conductors of this machine whose process is gone, and begin to beat.

        Raises: DatabaseUnavailable.
        """
        with self._db.write() as connection:
            gone = conductors.retire_dead(connection, _is_gone)
        if gone:
            LOG.info("Found %d conductor(s) of this machine whose process is gone; their jobs are taken over", len(gone))
        self._enlist()
        self._thread.start()

    def _enlist(self) -> None:
        fresh, started = _new_id(), _clock()
        with self._db.write() as connection:
            conductors.enlist(
                connection,
                id=fresh,
                hostname=self._hostname,
                pid=os.getpid(),
                version=self._version,
                lease_seconds=self._lease_seconds,
            )
        self.id, self._good_until = fresh, started + self._lease_seconds * _MARGIN

    def _beat_for_ever(self) -> None:
        while not self._stop.wait(self._lease_seconds / 3):
            try:
                self._beat()
            except DatabaseUnavailable as error:  # the next beat tries again; meanwhile our own clock runs out
                LOG.warning("The heartbeat of conductor %s has to wait: %s", self.id, error)
            except Exception:  # without its heart a conductor would stand there for ever, doing nothing
                LOG.exception("The heartbeat of conductor %s failed", self.id)

    def _beat(self) -> None:
        started = _clock()
        with self._db.write() as connection:
            renewed = conductors.beat(connection, self.id, self._lease_seconds)
        if renewed:
            self._good_until = started + self._lease_seconds * _MARGIN
            return
        self._good_until = 0.0
        LOG.warning("The lease of conductor %s lapsed; its jobs are left to others", self.id)
        with self._db.write() as connection:
            conductors.retire(connection, self.id)
        self._enlist()
        self._on_lost()

    def stop(self) -> None:
        """Stop beating and retire: what is still leased is an orphan at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        with contextlib.suppress(DatabaseUnavailable), self._db.write() as connection:
            conductors.retire(connection, self.id)


def _clock() -> float:
    """Seconds that have really passed, those asleep included; from the machine's start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def _here() -> bytes:
    """Six bytes that stand for this run of this kernel and this namespace of process numbers: where a number means the same process.

    A host's name does not tell: containers, and machines made from one image, may share it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        namespace = os.stat("/proc/self/ns/pid")
    except OSError:
        return os.urandom(6)  # nobody's: leases alone tell who is gone
    return hashlib.sha256(b"%s %d %d" % (boot, namespace.st_dev, namespace.st_ino)).digest()[:6]


def _new_id() -> str:
    """A random UUID whose node, the last six bytes, says where its process is."""
    return str(uuid.UUID(bytes=os.urandom(10) + _here(), version=4))


def _is_gone(row: Mapping[str, Any]) -> bool:
    """Whether an enlisted conductor was a process of here that is no more. Of any other its lease tells."""
    return str(row["id"]).replace("-", "").endswith(_here().hex()) and not _is_same_process(row["pid"], row["started_at"])


def _is_same_process(pid: int, started_at: float) -> bool:
    """Whether the process that enlisted itself at that time may still be there; when another has its number, its lease tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    if fields[0] == "Z":
        return False  # killed, not yet reaped
    if pid != os.getpid():
        return True  # when it was born cannot be compared: the wall clock may have been set since
    # In a container a restarted conductor has the number of the one before it, which is ourselves now.
    boot = next(float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    born = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return born <= started_at + 2.0  # btime is rounded to a second
