"""Numbers every boundary of a process's effects, and lets something happen to the process at one of them. Runs inside the child process.

A boundary is the moment before or after: a call of a driver, a change on a fake host (one effect each), a database commit. They are
counted from 1 as the process crosses them, in executes and in reverts alike, and written to a trace: number, what, where.
What runs by the clock (heartbeats, questions to hosts) is not counted, so that a number means the same in every run.
What happens is a `Strike`: the process is killed, or what `crash/strikes.py` has.
Nothing of this is in the product: the wrappers are put around its classes when `install` is called.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from taskflow.engines.action_engine.scheduler import Scheduler

from hullwright.drivers.fake_journal import Journal
from hullwright.drivers.image.contract import ImageDriver
from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.drivers.network.contract import NetworkDriver
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.drivers.volume.contract import VolumeDriver
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.flows import context, leftovers
from hullwright.flows.step import Step
from hullwright.persistence.database import Database

DRIVERS = (
    (FakeDriver, VirtDriver),
    (LocalNetworkDriver, NetworkDriver),
    (LocalVolumeDriver, VolumeDriver),
    (LocalImageDriver, ImageDriver),
)
# Names of threads; what they do comes at times, not in order.
_BY_THE_CLOCK = ("heartbeat", "host-monitor", "facts-", "waiting room", "caretaker", "user-")


class Strike(Protocol):
    """What happens at a boundary."""

    def __call__(self, boundaries: Boundaries, what: str, *, is_locked: bool) -> None:
        """`is_locked`: a transaction of this thread is open."""


def kill(_boundaries: Boundaries, _what: str, *, is_locked: bool) -> None:
    """SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)


class Boundaries:
    """Counts, tells, strikes."""

    def __init__(
        self,
        trace: Path,
        at: int,
        strike: Strike,
        can_be_at: Callable[[str, str], bool],
        act_at: int = 0,
        act: Callable[[], None] | None = None,
    ) -> None:
        """`at`: the number of the boundary to strike at, 0 for none; where the order of boundaries differs from run to run, it is the first
        from there on where `can_be_at` (what, where) answers true. `act` is called at the first boundary from `act_at` on where no lock is
        held.
        """
        self.trace = trace
        self.databases: list[Database] = []  # that this process has written to
        self.has_struck = False
        self.struck_at = 0
        self._descriptor = os.open(trace, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._at = at
        self._strike = strike
        self._can_be_at = can_be_at
        self._act_at = act_at
        self._act = act
        self._lock = threading.RLock()
        self._number = 0
        self._muted = threading.local()

    def cross(self, what: str, *, is_locked: bool = False) -> None:
        """One boundary. `is_locked`: inside a transaction, where nothing else of this process may touch the database."""
        if threading.current_thread().name.startswith(_BY_THE_CLOCK) or getattr(self._muted, "on", False):
            return
        act = None
        with self._lock:
            self._number += 1
            where = _where()
            is_here = 0 < self._at <= self._number and not self.has_struck and self._can_be_at(what, where)
            os.write(self._descriptor, f"{self._number}\t{what}\t{where}\n".encode())
            if self._act_at and self._number >= self._act_at and not is_locked:
                act, self._act = self._act, None
            if is_here:
                self.has_struck, self.struck_at = True, self._number
        if act is not None:  # not under the lock: another thread may wait for that inside a transaction, which whoever acts would wait for
            self._muted.on = True
            act()
            self._muted.on = False
        if is_here:  # what takes long must not keep other threads from their boundaries
            self._strike(self, what, is_locked=is_locked)

    def act_no_more(self) -> None:
        """What this process would have done for somebody else has been done."""
        self._act = None

    def around(self, owner: type, name: str, what: Callable[..., str]) -> None:
        """Wrap a method: a boundary before and one after, also when it raises."""
        inner = owner.__dict__[name]

        @functools.wraps(inner)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            told = what(*args, **kwargs)
            self.cross(f"before {told}")
            try:
                return inner(*args, **kwargs)
            finally:
                self.cross(f"after {told}")

        setattr(owner, name, wrapped)

    def around_commits(self) -> None:
        """Wrap the door of all write transactions: before the commit the transaction is lost, after it only what the process knew."""
        inner = Database.write

        @contextlib.contextmanager
        def write(database: Database) -> Iterator[Any]:
            if database not in self.databases:
                self.databases.append(database)
            with inner(database) as connection:
                yield connection
                self.cross("before commit", is_locked=True)
            self.cross("after commit")

        Database.write = write  # type: ignore[method-assign]


def _where() -> str:
    """The step that is acting, as step.execute or step.revert; else the function of ours that is."""
    frame = sys._getframe(2)
    ours = ""
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Step) and frame.f_code.co_name in ("execute", "revert"):
            return f"{owner.step_name}.{frame.f_code.co_name}"
        module = frame.f_globals.get("__name__", "")
        if not ours and module.startswith("hullwright.") and not module.startswith(("hullwright.persistence", "hullwright.drivers")):
            ours = f"{module.removeprefix('hullwright.')}.{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return ours


def order_steps() -> None:
    """Have steps that may begin now begin by name. TaskFlow keeps them in a set, whose order is that of memory: another in each run."""
    inner = Scheduler.schedule

    def schedule(scheduler: Scheduler, atoms: Any) -> Any:
        return inner(scheduler, sorted(atoms, key=lambda atom: atom.name))

    Scheduler.schedule = schedule


def install(
    trace: str,
    at: int = 0,
    strike: Strike = kill,
    *,
    can_be_at: Callable[[str, str], bool] = lambda _what, _where: True,
    act_at: int = 0,
    act: Callable[[], None] | None = None,
    first_try_seconds: float = 0.05,
) -> Boundaries:
    """Wrap everything in this process. What is told or tried by the clock is done at once, so that it has a number too."""
    boundaries = Boundaries(Path(trace), at, strike, can_be_at, act_at, act)
    boundaries.around_commits()
    order_steps()
    for driver, contract in DRIVERS:
        for name in sorted(contract.__abstractmethods__ - {"close"}):
            kind = contract.__module__.split(".")[-2]
            boundaries.around(driver, name, lambda *_args, told=f"{kind}.{name}", **_kwargs: told)
    # Outside of the journal's lock: whoever stands still there must not keep others from the host.
    for name in ("make", "put", "change"):
        boundaries.around(Journal, name, lambda _journal, room, _key, _thing, operation: f"effect {operation or 'put'} ({room})")
    boundaries.around(Journal, "drop", lambda _journal, room, _key, operation: f"effect {operation or 'drop'} ({room})")
    context._PROGRESS_EVERY_SECONDS = 0.0
    leftovers.FIRST_TRY_SECONDS = first_try_seconds
    return boundaries
