"""What is put into a conductor's process before it starts: a stall at one of its points, or a wall clock that jumps.

A point is the moment before or after a call of a driver, before an effect inside of it, before a write transaction and after its
commit, and with `in_transactions` also before the commit. Points are counted from 1 in the threads that drive jobs; the stall is of the
whole process. There are none inside an image's transfer: the fake host's lock would keep all others out of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.fake_journal import Journal
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.persistence import jobs
from hullwright.persistence.database import Database
from support.boundaries import DRIVERS, _where


class Stall:
    """Counts points, tells them to a file, and stops the process at one."""

    def __init__(self, trace: str, at: int) -> None:
        """`at`: the number of the point, 0 for none."""
        self._trace = Path(trace)
        self._at = at
        self._number = 0
        self._lock = threading.Lock()
        self._db: Database | None = None
        self._muted = threading.local()

    def point(self, what: str, *, in_transaction: bool = False) -> None:
        """One point."""
        if not threading.current_thread().name.startswith("job-") or getattr(self._muted, "on", False):
            return
        with self._lock:
            self._number += 1
            is_here = self._number == self._at
            with self._trace.open("a") as trace:
                trace.write(f"{self._number}\t{what}\t{_where()}\n")
        if is_here:
            # On SQLite a stall inside a transaction would stop the whole world: no other thread of ours may be in one.
            writer = contextlib.nullcontext() if in_transaction or self._db is None else self._db._writer
            with writer:
                self._trace.with_suffix(".stalled").write_text(f"{what} {_where()}")
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(0.3)  # the signal may be another thread's to take: not until then are all of them stopped

    def around(self, owner: type, name: str) -> None:
        """Points before and after a method."""
        inner = owner.__dict__[name]

        @functools.wraps(inner)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.point(f"before {name}")
            answer = inner(*args, **kwargs)
            self.point(f"after {name}")
            return answer

        setattr(owner, name, wrapped)

    def mute(self, owner: type, name: str) -> None:
        """No points inside a method."""
        inner = owner.__dict__[name]

        @functools.wraps(inner)
        def muted(*args: Any, **kwargs: Any) -> Any:
            self._muted.on = True
            try:
                return inner(*args, **kwargs)
            finally:
                self._muted.on = False

        setattr(owner, name, muted)

    def around_transactions(self, *, in_transactions: bool) -> None:
        """Points before write transactions and after their commits."""
        inner = Database.write

        @contextlib.contextmanager
        def write(database: Database) -> Iterator[Any]:
            self._db = database
            self.point("before transaction")
            with inner(database) as connection:
                yield connection
                if in_transactions:
                    self.point("before commit", in_transaction=True)
            self.point("after commit")

        Database.write = write  # type: ignore[method-assign]


def stall(trace: str, at: int, *, in_transactions: bool = False) -> None:
    """Have this process stop itself at a point."""
    made = Stall(trace, at)
    made.around_transactions(in_transactions=in_transactions)
    made.mute(FakeDriver, "_transfer")
    for driver, contract in DRIVERS:
        for name in sorted(contract.__abstractmethods__ - {"close"}):
            made.around(driver, name)
    for name in ("make", "put", "change", "drop"):
        made.around(Journal, name)
    halfway = FakeHost.halfway

    def halfway_with_point(host: FakeHost, *args: Any, **kwargs: Any) -> None:
        made.point("halfway")
        halfway(host, *args, **kwargs)

    FakeHost.halfway = halfway_with_point  # type: ignore[method-assign]


def jump_clock(signal_file: str, seconds: float) -> None:
    """Have this process's wall clock be wrong by so many seconds from the moment on at which the file is there."""
    real, path = time.time, Path(signal_file)
    jumped = threading.Event()

    def wrong() -> float:
        return real() + (seconds if jumped.is_set() else 0.0)

    def watch() -> None:
        while not path.exists():
            time.sleep(0.02)
        jumped.set()

    threading.Thread(target=watch, daemon=True).start()
    time.time = wrong


def lose_answers(seed: int, probability: float) -> None:
    """Have this process lose its connection to the database at random: half of the time before a statement, half of the time after it.

    After a COMMIT it cannot know then that the transaction took place.
    """
    rng, inner = random.Random(seed), Database.__init__

    def cut(connection: Any) -> None:
        if rng.random() < probability / 2:
            connection.invalidate()
            raise sa.exc.OperationalError("", {}, Exception("the connection was cut"))

    def before(connection: Any, *_args: Any) -> None:
        cut(connection)

    def after(connection: Any, _cursor: Any, statement: str, *_args: Any) -> None:
        if statement == "COMMIT":
            cut(connection)

    def made(database: Database, *args: Any, **kwargs: Any) -> None:
        inner(database, *args, **kwargs)
        sa.event.listen(database.engine, "before_cursor_execute", before)
        sa.event.listen(database.engine, "after_cursor_execute", after)

    Database.__init__ = made  # type: ignore[method-assign]


def lose_answer_to_lease() -> None:
    """Have this process lose its connection right after the commit of its first lease: it has jobs that it knows nothing of."""
    inner, init, leased = jobs.lease, Database.__init__, threading.Event()

    def lease(*args: Any, **kwargs: Any) -> Any:
        taken = inner(*args, **kwargs)
        if taken and not hasattr(jobs, "was_cut"):
            leased.set()
        return taken

    def after(connection: Any, _cursor: Any, statement: str, *_args: Any) -> None:
        if statement == "COMMIT" and threading.current_thread() is threading.main_thread() and leased.is_set():
            leased.clear()
            jobs.was_cut = True  # type: ignore[attr-defined]
            connection.invalidate()
            raise sa.exc.OperationalError("", {}, Exception("the connection was cut"))

    def made(database: Database, *args: Any, **kwargs: Any) -> None:
        init(database, *args, **kwargs)
        sa.event.listen(database.engine, "after_cursor_execute", after)

    jobs.lease = lease
    Database.__init__ = made  # type: ignore[method-assign]
