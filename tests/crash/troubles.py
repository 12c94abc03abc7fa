"""What befalls a process at a boundary, and what the parent does about it: SIGKILL, a user's delete, a stall, an outage of the database, a
call that hangs.

A trouble says at which boundaries it can be, what happens in the process (`strikes.py`), what is done while it stands there, and what must
be true besides the invariants and the scenario's own end. Each run has a trouble of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa

from crash.databases import Databases, InDirectory, OnServer, OnServerEach
from crash.scenarios import Scenario
from hullwright.persistence import conductors
from hullwright.persistence.database import DatabaseUnavailable, read_clock
from hullwright.persistence.models.jobs import jobs, step_events
from support import picture
from support.house import ChildProcess
from support.postgres import PostgresServer

if TYPE_CHECKING:
    from crash.cases import Run

Options = Mapping[str, Mapping[str, Any]]
_OF_QUESTIONS = ("facts", "generation", "changed", "error", "checked_at", "last_seen_at", "silent_since", "silent_seconds")
_DRIVERS = ("virt.", "network.", "volume.", "image.")


class Trouble:
    """The base, and the plainest of them: the process is killed, and the next one goes on."""

    name: ClassVar[str] = "kill"
    strike: ClassVar[str] = "wrappers.kill"  # as the child's preamble names it
    prepare: ClassVar[str] = ""  # what the child does besides
    repeats: ClassVar[bool] = True  # whether the process that comes after may be met too

    @classmethod
    def databases(cls, _server: PostgresServer | None) -> Databases:
        """Where it is played. `server`: one that is shared."""
        return InDirectory()

    @classmethod
    def concerns(cls, _scenario: Scenario) -> bool:
        """Whether it can befall this scenario at all."""
        return True

    @classmethod
    def can_be_at(cls, _what: str, _where: str) -> bool:
        """Whether it can be at such a boundary."""
        return True

    def options(self, _at: int) -> Options:
        """Configuration besides the harness's own."""
        return {}

    def at_boundary(self, run: Run, process: ChildProcess, *, is_locked: bool) -> None:
        """The process stands at its boundary."""

    def at_rest(self, _run: Run) -> bool:
        """Nothing is left to do, and the process still runs. True: that is all."""
        return True

    def check(self, run: Run) -> None:
        """All processes have ended. Asserts how."""
        run.check()


class _OfConductors(Trouble):
    """What can only befall a process that holds jobs."""

    repeats = False

    @classmethod
    def concerns(cls, scenario: Scenario) -> bool:
        return (scenario.is_ordered or scenario.is_parallel) and not scenario.asks_api


class Delete(_OfConductors):
    """Nothing but the user's delete, at each boundary in turn: the process lives on and hears of it."""

    name = "delete"
    strike = "strikes.wait"

    @classmethod
    def concerns(cls, scenario: Scenario) -> bool:
        return scenario.deletes_where_struck  # a process that lives on needs no number that means the same in each run

    def at_boundary(self, run: Run, process: ChildProcess, *, is_locked: bool) -> None:
        run.wake()


class _LateWaker(_OfConductors):
    """Something wakes up when all is over. By then what it was doing is wrong, and not only late: what lives has been deleted."""

    def __init__(self) -> None:
        self._before: tuple[picture.Rows, list[dict[str, Any]]] | None = None

    def _remember(self, run: Run) -> None:
        self._before = picture.rows(run.house), run.effects()

    def check(self, run: Run) -> None:
        if self._before is None:
            run.check()
            return
        rows, effects = self._before
        now = picture.rows(run.house)
        changed = [
            f"{table} {key}: {row} became {now[table].get(key)}"
            for table, old in rows.items()
            for key, row in old.items()
            if _lasting(table, now[table].get(key)) != _lasting(table, row)
        ]
        assert changed == [], f"whoever woke up wrote {changed}"
        posted = {key: row for key, row in now["jobs"].items() if key not in rows["jobs"]}
        assert all(row["kind"] == "clean_host" for row in posted.values()), f"whoever woke up posted {posted}"
        theirs = {row["uuid"] for row in posted.values()}
        for table in now.keys() - {"jobs"}:
            new = [row for key, row in now[table].items() if key not in rows[table]]
            assert all(theirs & {row.get("job_uuid"), row.get("flow_uuid"), row.get("uuid")} for row in new), f"whoever woke up wrote {new}"
        acts = [line for line in run.effects() if line not in effects]
        assert acts == [], f"whoever woke up acted on a host: {acts}"
        run.check_deleted()


def _lasting(table: str, row: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A row without what is written when a host is asked how it is, which every conductor does by the clock."""
    return row if row is None or table != "hosts" else {name: value for name, value in row.items() if name not in _OF_QUESTIONS}


class Stall(_LateWaker):
    """SIGSTOP for longer than the lease, while another conductor takes the job over and finishes it; then SIGCONT."""

    name = "stall"
    strike = "strikes.stall"
    prepare = "strikes.share_images(); strikes.look_seldom(boundaries)"

    def __init__(self) -> None:
        super().__init__()
        self._stalled: _Stalled | None = None  # inside a transaction

    def options(self, _at: int) -> Options:
        return {"conductor": {"lease_seconds": 1.0}}

    def at_boundary(self, run: Run, process: ChildProcess, *, is_locked: bool) -> None:
        run.wait(process.is_stopped)
        run.wait(lambda: _has_lapsed(run))
        if is_locked:
            # It holds SQLite's lock: nobody can write before it wakes. It may commit what it has begun, and do nothing after it.
            self._stalled = _Stalled(process.pid, time.time(), frozenset(_owners(run)))
            process.terminate()
            process.go_on()
            return
        run.delete_if_due()
        run.act_meanwhile()
        with run.another_conductor():
            run.rest()
            run.check()
            run.delete_what_lives()
            run.rest()
        self._remember(run)
        log = run.log_of(process)
        process.go_on()
        # One that stood before it had a lease has none to lose: it takes its first.
        run.wait(lambda: process.poll() is not None or "lapsed" in log.read_text() or not _has_lapsed(run))

    def check(self, run: Run) -> None:
        super().check(run)
        if self._stalled is not None:
            begun = _begun_by_others(run, self._stalled.owners)
            acts = [line for line in run.effects() if line["pid"] == self._stalled.pid and line["at"] > self._stalled.woken_at]
            # Enlisted anew, it may take up a job before it heeds that it is to stop: that one is its own.
            late = [line for line in acts if not any(at <= line["at"] and line["uuid"] == uuid for at, uuid in begun)]
            assert late == [], "it acted after it woke"


@dataclass(frozen=True, slots=True)
class _Stalled:
    pid: int
    woken_at: float
    owners: frozenset[str]  # the ids that conductors had until then


def _owners(run: Run) -> list[str]:
    with run.house.db.read() as connection:
        return [row["id"] for row in conductors.list_all(connection)]


def _begun_by_others(run: Run, owners: Collection[str]) -> list[tuple[float, str]]:
    """When steps of an instance's jobs were done under other ids than those."""
    query = (
        sa.select(step_events.c.at, jobs.c.instance_uuid, jobs.c.inputs)
        .join(jobs, jobs.c.uuid == step_events.c.job_uuid)
        .where(step_events.c.owner.not_in(owners))
    )
    with run.house.db.read() as connection:
        return [(row.at, row.instance_uuid or row.inputs.get("instance_uuid")) for row in connection.execute(query)]


def _has_lapsed(run: Run) -> bool:
    with run.house.db.read() as connection:
        at = read_clock(connection)
        return all(row["expires_at"] < at for row in conductors.list_all(connection))


class Hang(_LateWaker):
    """A driver's call never comes back. It is given up at its deadline; when all is over it comes back after all."""

    name = "hang"
    strike = "strikes.hang"
    prepare = "strikes.share_images()"

    def __init__(self) -> None:
        super().__init__()
        self._is_met = False
        self._is_over = False

    @classmethod
    def concerns(cls, scenario: Scenario) -> bool:
        return super().concerns(scenario) and scenario.expect_hung is not None

    @classmethod
    def can_be_at(cls, what: str, where: str) -> bool:
        return what.partition(" ")[2].startswith(_DRIVERS) and where.endswith((".execute", ".revert"))

    def options(self, _at: int) -> Options:
        return {"conductor": {"step_timeout": 3.0, "step_timeouts": {}}}

    def at_boundary(self, run: Run, process: ChildProcess, *, is_locked: bool) -> None:
        self._is_met = True

    def at_rest(self, run: Run) -> bool:
        if not self._is_met or self._before is not None:
            return True
        if not self._is_over:
            run.delete_if_due()
            if not run.is_at_rest():
                return False
            self._is_over = True
            run.check_hung()
            run.delete_what_lives()
            return run.is_at_rest() and self.at_rest(run)
        self._remember(run)
        run.wake()
        run.wait(run.has_ended)
        return run.is_at_rest()


class _Outage(_OfConductors):
    """The database goes away and comes back; every other time it is away for longer than a lease."""

    @classmethod
    def concerns(cls, scenario: Scenario) -> bool:
        return super().concerns(scenario) and not scenario.deletes_where_struck and scenario.meanwhile is None

    def options(self, at: int) -> Options:
        return {"conductor": {"lease_seconds": 1.0 if at % 2 else 60.0}, "database": {"busy_timeout_seconds": 0.2}}

    strike = "strikes.wait"
    prepare = "strikes.look_seldom(boundaries)"

    def at_boundary(self, run: Run, process: ChildProcess, *, is_locked: bool) -> None:
        assert self.can_be_at("before commit", "") or not is_locked, "inside a transaction this cannot be"
        with run.away():
            run.wake()
            time.sleep(1.5 if run.case.at[0] % 2 else 0.5)
        run.wait(lambda: _answers(run))

    def check(self, run: Run) -> None:
        if not run.scenario.deletes_at:  # what a delete takes back depends on how far the build has come
            assert run.undone() == run.template.undone, "steps failed or were undone because the database was away"
        run.check()


def _answers(run: Run) -> bool:
    with contextlib.suppress(DatabaseUnavailable), run.house.db.read() as connection:
        connection.exec_driver_sql("SELECT 1")
        return True
    return False


class Locked(_Outage):
    """Another process holds SQLite's write lock."""

    name = "locked"

    @classmethod
    def can_be_at(cls, what: str, _where: str) -> bool:
        return what != "before commit"  # there the lock is our own


class Terminated(_Outage):
    """PostgreSQL cuts all connections and lets nobody in."""

    name = "terminated"

    @classmethod
    def databases(cls, server: PostgresServer | None) -> Databases:
        assert server is not None
        return OnServer(server.port)


class Stopped(_Outage):
    """PostgreSQL is stopped and started."""

    name = "stopped"

    @classmethod
    def databases(cls, _server: PostgresServer | None) -> Databases:
        return OnServerEach()


TROUBLES: dict[str, type[Trouble]] = {kind.name: kind for kind in (Trouble, Delete, Stall, Hang, Locked, Terminated, Stopped)}
Make = Callable[[], Trouble]
