"""Where the CPU time of builds goes: each thread's CPU time between two marks is booked to what is innermost there, in this process.

Reading a thread's clock a few hundred times per build costs something too: the shares are what to read, not the sum.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from hullwright.conductor.client import ConductorClient
from hullwright.conductor.runner import Runner
from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.flows.step import Step
from hullwright.persistence.database import Database
from hullwright.persistence.session import FlowSession
from hullwright.scheduler.select import Scheduler

POSTING, ENGINE, STORE = "posting", "TaskFlow's engine", "what flows and steps have to be on record for"
STEPS, SCHEDULER, DRIVERS = "steps", "scheduler", "drivers (fake hosts)"
SQLALCHEMY, DATABASE, REST = "SQLAlchemy", "the database itself", "leasing, heartbeat, waking, the interpreter"
_DRIVERS = (FakeDriver, LocalNetworkDriver, LocalImageDriver, LocalVolumeDriver)


class Where:
    """CPU seconds by what they were spent on."""

    def __init__(self, db: Database) -> None:
        """Marks the code from now on; `db` is the database of the conductor that is measured."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._threads = threading.local()
        for owner, names, what in (
            (ConductorClient, ("create_servers",), POSTING),
            (Runner, ("run",), ENGINE),
            (FlowSession, ("flush", "_write", "save_flow", "save_atom"), STORE),
            (Scheduler, ("select",), SCHEDULER),
            (sa.engine.Connection, ("execute", "exec_driver_sql"), SQLALCHEMY),
            *((step, ("execute", "revert"), STEPS) for step in _steps()),
            *((driver, _public(driver), DRIVERS) for driver in _DRIVERS),
        ):
            for name in names:
                if name in owner.__dict__:
                    setattr(owner, name, self._marked(owner.__dict__[name], what))
        event.listen(db.engine, "before_cursor_execute", lambda *_: self._enter(DATABASE))
        event.listen(db.engine, "after_cursor_execute", lambda *_: self._leave())
        event.listen(db.engine, "handle_error", lambda *_: self._leave())

    def rows(self, cpu_seconds: float, builds: int) -> list[dict[str, object]]:
        """Milliseconds per build and shares of what the process used, largest first."""
        with self._lock:
            spent = dict(self.seconds)
        spent[REST] = max(0.0, cpu_seconds - sum(spent.values()))
        return [
            {"CPU time of": what, "ms/build": f"{seconds * 1000 / builds:.2f}", "share": f"{100 * seconds / cpu_seconds:.0f} %"}
            for what, seconds in sorted(spent.items(), key=lambda item: -item[1])
        ]

    def reset(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.seconds.clear()

    def _enter(self, what: str) -> None:
        at = time.thread_time()
        stack = self._threads.__dict__.setdefault("stack", [])
        if stack:
            self._book(stack[-1], at - self._threads.since)
        stack.append(what)
        self._threads.since = at

    def _leave(self) -> None:
        at = time.thread_time()
        self._book(self._threads.stack.pop(), at - self._threads.since)
        self._threads.since = at

    def _book(self, what: str, seconds: float) -> None:
        with self._lock:
            self.seconds[what] += seconds

    @contextlib.contextmanager
    def _within(self, what: str) -> Iterator[None]:
        self._enter(what)
        try:
            yield
        finally:
            self._leave()

    def _marked(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            with self._within(what):
                return function(*args, **kwargs)

        return marked


def _steps() -> Iterator[type[Step]]:
    todo = [Step]
    while todo:
        step = todo.pop()
        todo += step.__subclasses__()
        yield step


def _public(driver: type) -> tuple[str, ...]:
    return tuple(name for name, value in driver.__dict__.items() if inspect.isfunction(value) and not name.startswith("_"))
