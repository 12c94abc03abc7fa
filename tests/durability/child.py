"""What is put into a conductor's process before it starts: a stall at a boundary, a clock that jumps, a database whose answers are lost.

Not for: what a boundary is, and what stops a process at one; see `support/boundaries.py` and `crash/strikes.py`.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from crash import strikes
from hullwright.persistence import jobs, leases
from hullwright.persistence.database import Database
from support import boundaries


def stall(trace: str, at: int, *, in_transactions: bool = False) -> None:
    """Have this process stop itself at a boundary; one inside of a transaction counts only when asked for, else it is the next one."""
    strikes.share_images()

    def can_be_at(what: str, _where: str) -> bool:
        return in_transactions or what != "before commit"

    strikes.look_seldom(boundaries.install(trace, at, strikes.stall, can_be_at=can_be_at))


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
    inner, init, leased = leases.take, Database.__init__, threading.Event()

    def take(*args: Any, **kwargs: Any) -> Any:
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

    leases.take = take
    Database.__init__ = made  # type: ignore[method-assign]
