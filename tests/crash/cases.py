"""Runs one case: a copy of a furnished house, processes that meet a trouble where the case says, another one that finishes, and the checks.

A case costs a few hundred milliseconds of CPU: houses are copied in memory, processes are forked, conductors look for work often.
Over 400 lines: a case and its run are of one piece, and each trouble is in `troubles`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from crash.children import ask_api
from crash.databases import Databases, InDirectory
from crash.scenarios import MARKER, SCENARIOS, Facts
from crash.troubles import TROUBLES, Trouble
from hullwright.drivers import fake_journal
from hullwright.objects.states import VmState
from hullwright.persistence.database import DatabaseUnavailable
from hullwright.persistence.models.jobs import jobs, step_events
from support import invariants
from support.conductor_process import serve
from support.house import ChildProcess, House, _forks

_CASE_SECONDS = 120.0
_POLL_SECONDS = 0.02
_OPTIONS: dict[str, dict[str, Any]] = {
    # A lease that never lapses by the clock: the next conductor of this machine sees that the process is gone.
    "conductor": {"lease_seconds": 60.0, "poll_interval": 0.02, "retry_interval": 0.1, "max_leases": 30},
    "compute": {"report_interval": 3600.0},
    "database": {},
}
_UNDONE = ("FAILURE", "REVERTED", "REVERT_FAILURE")


_forks.set_forkserver_preload(["support.conductor_process", "crash.warm"])


def room() -> Path:
    """Where houses are made: in memory when the machine lets us."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Case:
    """Where it happens: to the first process at boundary at[0] of its own count, to the next at at[1] of its own, ..."""

    scenario: str
    at: tuple[int, ...] = ()
    trouble: str = Trouble.name

    @property
    def command(self) -> str:
        """How to run only this."""
        trouble = [] if self.trouble == Trouble.name else ["--trouble", self.trouble]
        return " ".join(["tools/crash", "--scenario", self.scenario, *trouble, *(f"--at {number}" for number in self.at)])


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    met: int = 0  # to how many processes it happened
    traces: list[list[str]] = field(default_factory=list)  # of each process: what it crossed
    undone: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # job's kind, step, state: what failed and what was taken back
    seen: Any = None  # what a look at the house told
    seconds: float = 0.0
    error: str = ""  # empty: all is well


class Template:
    """A furnished scenario, to be copied."""

    def __init__(self, name: str, directory: Path, databases: Databases | None = None, facts: Facts | None = None) -> None:
        """Furnish it in `directory`, unless it was: then `facts` are what its furnishing answered."""
        self.scenario = SCENARIOS[name]
        self.directory = directory
        self.databases = databases or InDirectory()
        self._database = f"{name.replace('-', '_')}_{zlib.crc32(str(directory).encode()):08x}"  # a server may be shared by others
        self.facts = self._furnish() if facts is None else facts

    def _furnish(self) -> Facts:
        self.directory.mkdir(parents=True)
        house = self._house(self.directory, self.databases.furnish(self._database), Trouble(), 0)
        try:
            return self.scenario.furnish(house)
        finally:
            house.close()
            self.databases.furnished(self._database)
            fake_journal.close_all(self.directory)
            shutil.rmtree(self.directory / "run", ignore_errors=True)

    def _house(self, directory: Path, url: str | None, trouble: Trouble, at: int) -> House:
        more = (self.scenario.options, trouble.options(at))
        options = {group: dict(values) for group, values in _OPTIONS.items()}
        for group in options:
            for layer in more:
                options[group] |= layer.get(group, {})
        return House(directory, url, **options)

    def copy(self, trouble: Trouble, at: int) -> House:
        """A house of its own for a case."""
        directory = Path(tempfile.mkdtemp(prefix="case-", dir=self.directory.parent))
        shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        return self._house(directory, self.databases.copy(self._database), trouble, at)

    def drop(self, house: House) -> None:
        """Leave nothing of a copy."""
        house.close()
        fake_journal.close_all(house.directory)
        shutil.rmtree(house.directory, ignore_errors=True)
        self.databases.drop(house.db.url)

    @functools.cached_property
    def plainly(self) -> Outcome:
        """A run without a trouble."""
        outcome = run(self, Case(self.scenario.name), undisturbed=self.scenario.deletes_where_struck)
        assert not outcome.error, f"{self.scenario.name} without a trouble: {outcome.error}"
        return outcome

    @property
    def plain(self) -> list[str]:
        """The trace of a run without a trouble: its length is K."""
        return self.plainly.traces[0]

    @functools.cached_property
    def undone(self) -> Counter[tuple[str, str, str]]:
        """What fails and is taken back in such a run."""
        return self.plainly.undone

    @functools.cached_property
    def delete_at(self) -> int:
        """At which boundary the scenario's user deletes; 0: never. Found in the trace of a run in which nobody does."""
        told = self.scenario.deletes_at
        if not told:
            return 0
        trace = run(self, Case(self.scenario.name), undisturbed=True).traces[0]
        return next(number for number, line in enumerate(trace, 1) if told in line)

    def boundaries(self, trouble: type[Trouble]) -> list[int]:
        """At which boundaries of a plain run a trouble can be."""
        lines = [line.split("\t") for line in self.plain]
        return [int(number) for number, what, where in lines if trouble.can_be_at(what, where)]


def run(template: Template, case: Case, *, undisturbed: bool = False, look: Callable[[House, Facts], Any] | None = None) -> Outcome:
    """Run a case and check it; what was wrong is in the outcome. `undisturbed`: no delete, and only the trace is of interest. `look`: its
    answer, when all is done, is `seen`.
    """
    return Run(template, case, undisturbed, look).run()


class Run:
    """A case under way. What troubles need of it is public."""

    def __init__(self, template: Template, case: Case, undisturbed: bool, look: Callable[[House, Facts], Any] | None) -> None:
        self.template = template
        self.case = case
        self.scenario = template.scenario
        self.house: House
        self.facts: Facts = dict(template.facts)
        self._trouble = TROUBLES[case.trouble]()
        self._undisturbed = undisturbed
        self._struck_at = 0  # the boundary at which the first process stood
        self._look = look
        self._outcome = Outcome(case)
        self._until = time.monotonic() + _CASE_SECONDS

    def run(self) -> Outcome:
        """All of it."""
        outcome, began = self._outcome, time.monotonic()
        self.house = self.template.copy(self._trouble, self.case.at[0] if self.case.at else 0)
        try:
            for number, at in enumerate((*self.case.at, 0)):
                # When a trouble is over that the process survived, it may have done all there is.
                if number < len(self.case.at) or self._trouble.repeats or not self.is_at_rest():
                    outcome.met += self._one_life(at)
            if not self._undisturbed:
                assert self.house.open_jobs() == 0, "work is left"
                self._trouble.check(self)
            outcome.undone = self.undone()
            outcome.seen = None if self._look is None else self._look(self.house, self.facts)
        except (AssertionError, LookupError, DatabaseUnavailable) as error:
            where = [trace[-1] for trace in outcome.traces if trace]
            frame = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno}: {frame.line})"
            outcome.error = f"{told}\n  processes ended at: {where}\n  {self._last_words()}"
        finally:
            for process in self.house.processes:
                process.send_signal(signal.SIGCONT)
            self.template.drop(self.house)
            outcome.seconds = time.monotonic() - began
        return outcome

    # --- Processes ---------------------------------------------------------------------------------------------------------

    def _one_life(self, at: int) -> bool:
        """One process from start to end; True when it met the trouble."""
        number = len(self.house.processes)
        is_api = self.scenario.asks_api and number == 0
        act_at = self._act_at() if number == 0 else 0
        process = self._start(at, act_at, is_api)
        halted, is_met, is_asked_to_stop = self._file(".halted"), False, False
        while process.wait(_POLL_SECONDS) is None:
            if number == 0 and not is_met and halted.exists():
                is_met, told = True, json.loads(halted.read_text())
                self._struck_at = told["at"]
                self._trouble.at_boundary(self, process, is_locked=told["is_locked"])
            elif not is_api and not is_asked_to_stop and self.is_at_rest() and self._trouble.at_rest(self):
                process.terminate()
                is_asked_to_stop = True
            self._assert_in_time(f"process {number} does not come to rest")
        self._outcome.traces.append(self._read(number))
        answer = self.house.directory / "answer"
        if is_api and answer.exists():
            self.facts["answer"] = json.loads(answer.read_text())
        if number == 0:
            self.delete_if_due()
        is_killed = process.poll() == -signal.SIGKILL
        if number == 0 and is_killed:
            self.act_meanwhile()
        # One that was asked to stop before it could listen dies of it: there was nothing left to do.
        assert is_killed or process.poll() in (0, -signal.SIGTERM), f"process {number} ended with {process.poll()}\n{self._end_of(number)}"
        if is_api and not is_killed and not at:
            return self._one_life(0)
        return is_killed or is_met

    def _act_at(self) -> int:
        if self._undisturbed:
            return 0
        return (self.case.at or (1,))[0] if self.scenario.deletes_where_struck else self.template.delete_at

    def _start(self, at: int, act_at: int, is_api: bool) -> ChildProcess:
        act = f"lambda: children.delete({self.house.overrides!r}, {self.facts['uuids'][0]!r})" if act_at else "None"
        number = len(self.house.processes)
        preamble = (
            "from support import boundaries as wrappers\nfrom crash import children, strikes, troubles\n"
            f"boundaries = wrappers.install({self._trace(number)!r}, {at}, {self._trouble.strike}, act_at={act_at}, act={act},"
            f" can_be_at=troubles.TROUBLES[{self.case.trouble!r}].can_be_at)\n"
            f"{self._trouble.prepare}\n"
        )
        log = self._log(number)
        if is_api:
            answer = str(self.house.directory / "answer")
            process = ChildProcess(ask_api, self.house.overrides, preamble, str(log), self.facts["request"], answer)
        else:
            process = ChildProcess(serve, self.house.overrides, preamble, str(log))
        self.house.processes.append(process)
        return process

    @contextlib.contextmanager
    def another_conductor(self) -> Iterator[None]:
        """One that nothing befalls, meanwhile."""
        process = self._start(0, 0, False)
        yield
        process.terminate()
        self.wait(lambda: process.wait(_POLL_SECONDS) is not None)
        number = self.house.processes.index(process)
        assert process.poll() in (0, -signal.SIGTERM), f"the other conductor ended with {process.poll()}\n{self._end_of(number)}"

    def _trace(self, number: int) -> str:
        return str(self.house.directory / f"trace-{number}")

    def _log(self, number: int) -> Path:
        return self.house.directory / f"conductor-{number}.log"

    def log_of(self, process: ChildProcess) -> Path:
        """Where a process says what it does."""
        return self._log(self.house.processes.index(process))

    def _file(self, suffix: str) -> Path:
        """By which the first process and we speak; see `strikes.py`."""
        return Path(self._trace(0)).with_suffix(suffix)

    def wake(self) -> None:
        """Have the first process go on from where it stands."""
        self._file(".woken").touch()

    def has_ended(self) -> bool:
        """Whether the thread that hung has."""
        return self._file(".ended").exists()

    def _read(self, number: int) -> list[str]:
        trace = Path(self._trace(number))
        return trace.read_text().splitlines() if trace.exists() else []

    # --- Waiting -----------------------------------------------------------------------------------------------------------

    def is_at_rest(self) -> bool:
        """Whether no work is left. Asked very often, so without ceremony."""
        try:
            with self.house.db.read() as connection:
                query = "SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1"
                return connection.exec_driver_sql(query).first() is None
        except DatabaseUnavailable:
            return False

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so."""
        while not condition():
            self._assert_in_time("waited in vain")
            time.sleep(_POLL_SECONDS)

    def rest(self) -> None:
        """Wait until no work is left."""
        self.wait(self.is_at_rest)

    def _assert_in_time(self, told: str) -> None:
        if time.monotonic() > self._until:
            for process in self.house.processes:
                process.kill()
            self._outcome.traces = [self._read(number) for number in range(len(self.house.processes))]
            raise AssertionError(told)

    def away(self) -> contextlib.AbstractContextManager[None]:
        """Have the database go away meanwhile."""
        return self.template.databases.away(self.house.db.url)

    # --- What users do -----------------------------------------------------------------------------------------------------

    def delete_if_due(self) -> None:
        """Delete what the scenario's user deletes, if the process did not come to it."""
        if not self._act_at():
            return
        found = self.house.get(self.facts["uuids"][0])
        if found.vm_state != VmState.DELETED and found.task_state != "deleting":
            self.house.delete(found.uuid)

    def act_meanwhile(self) -> None:
        """What the scenario's user does while nobody drives the first process's jobs."""
        if self.scenario.meanwhile is not None:
            self.scenario.meanwhile(self.house, self.facts)

    def delete_what_lives(self) -> None:
        """Delete every server."""
        for uuid in self.facts["uuids"]:
            if self.house.get(uuid).vm_state != VmState.DELETED:
                self.house.delete(uuid)

    # --- What must be true -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """It is as if nothing had happened."""
        invariants.check(self.house, marker=MARKER)
        self.scenario.expect(self.house, self.facts)

    def check_hung(self) -> None:
        """A call has hung, and is given up."""
        step, _, method = self._read(0)[self._struck_at - 1].rpartition("\t")[2].partition(".")
        # A guest that could not be taken away is there for longer than its build.
        twins_on = [path.name for path in self.house.directory.glob("fake/*")] if method == "revert" else []
        invariants.check(self.house, marker=MARKER, twins_on=twins_on)
        assert self.scenario.expect_hung is not None
        self.scenario.expect_hung(self.house, self.facts, step, method == "revert")

    def check_deleted(self) -> None:
        """Nothing lives, and nothing is left."""
        hosts = [path.name for path in self.house.directory.glob("fake/*")]
        invariants.check(self.house, marker=MARKER, twins_on=hosts)  # of twins it was asked before
        states = {self.house.get(uuid).vm_state for uuid in self.facts["uuids"]}
        assert states <= {VmState.DELETED}, states

    def effects(self) -> list[dict[str, Any]]:
        """All lines of all fake hosts."""
        return [json.loads(line) for path in self.house.directory.glob("fake/*/journal") for line in path.read_text().splitlines()]

    def undone(self) -> Counter[tuple[str, str, str]]:
        """Steps that failed or were taken back."""
        query = (
            sa.select(jobs.c.kind, step_events.c.step, step_events.c.to_state)
            .join(jobs, jobs.c.uuid == step_events.c.job_uuid)
            .where(step_events.c.to_state.in_(_UNDONE))
        )
        with self.house.db.read() as connection:
            return Counter((row.kind, row.step, row.to_state) for row in connection.execute(query))

    def _end_of(self, number: int) -> str:
        """The end of a process's log, and what it said without one."""
        log = self._log(number)
        return log.read_text()[-3000:] if log.exists() and log.stat().st_size else self.house.processes[number].last_words()

    def _last_words(self) -> str:
        lines = [
            line for line in self.house.logs().splitlines() if any(word in line for word in ("ERROR", "WARNING", "Error", "Traceback"))
        ]
        return "\n  ".join(lines[-12:]) or "the logs say nothing"
