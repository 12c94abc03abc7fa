"""Runs one case: a copy of a furnished house, processes killed where the case says, another one that finishes, and the checks.

A case costs a few hundred milliseconds: houses are copied in memory, processes are forked, conductors look for work often.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash.children import ask_api
from crash.scenarios import MARKER, SCENARIOS, Facts
from hullwright.drivers import fake_journal
from support import invariants
from support.house import ConductorProcess, House, _forks

_CASE_SECONDS = 30.0
_OPTIONS: dict[str, dict[str, Any]] = {
    # A lease that never lapses by the clock: the next conductor of this machine sees that the process is gone.
    "conductor": {"lease_seconds": 60.0, "poll_interval": 0.02, "retry_interval": 0.1, "max_leases": 30},
    "compute": {"report_interval": 3600.0},
}


def room() -> Path:
    """Where houses are made: in memory when the machine lets us."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


class KilledProcess(ConductorProcess):
    """A process of the harness: a conductor, or the API for one request."""

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._process = _forks.Process(target=target, args=arguments)
        self._process.start()


@dataclass(frozen=True)
class Case:
    """Where processes are killed: the first at boundary kills[0] of its own count, the next at kills[1] of its own, ..."""

    scenario: str
    kills: tuple[int, ...]

    @property
    def command(self) -> str:
        """How to run only this."""
        return " ".join(["tools/crash", "--scenario", self.scenario, *(f"--kill {kill}" for kill in self.kills)])


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    deaths: int = 0
    traces: list[list[str]] = field(default_factory=list)  # of each process: what it crossed
    seconds: float = 0.0
    error: str = ""  # empty: all is well


class Template:
    """A furnished scenario, to be copied."""

    def __init__(self, name: str, directory: Path, server: Any = None, facts: Facts | None = None) -> None:
        """Furnish it in `directory`, unless it was: then `facts` are what its furnishing answered.

        `server`: a `PostgresServer` for its database; without one it is SQLite.
        """
        self.scenario = SCENARIOS[name]
        self.directory = directory
        self._server = server
        self._database = f"crash_{name.replace('-', '_')}"
        self.facts = self._furnish() if facts is None else facts

    def _furnish(self) -> Facts:
        self.directory.mkdir(parents=True)
        url = None if self._server is None else self._server.create_database(name=self._database)
        house = self._house(self.directory, url)
        try:
            return self.scenario.furnish(house)
        finally:
            house.close()
            _forget(self.directory)
            shutil.rmtree(self.directory / "run", ignore_errors=True)

    def _house(self, directory: Path, url: str | None) -> House:
        options = {group: _OPTIONS.get(group, {}) | dict(self.scenario.options.get(group, {})) for group in _OPTIONS}
        return House(directory, url, **options)

    def copy(self) -> House:
        """A house of its own for a case."""
        directory = Path(tempfile.mkdtemp(prefix="case-", dir=self.directory.parent))
        shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        url = None if self._server is None else self._server.create_database(self._database)
        return self._house(directory, url)

    def drop(self, house: House) -> None:
        """Leave nothing of a copy."""
        house.close()
        _forget(house.directory)
        shutil.rmtree(house.directory, ignore_errors=True)
        if self._server is not None:
            self._server.drop_database(house.db.url)

    @functools.cached_property
    def plain(self) -> list[str]:
        """The trace of a run without a kill: its length is K."""
        outcome = run(self, Case(self.scenario.name, ()), undisturbed=self.scenario.deletes_where_killed)
        assert not outcome.error, f"{self.scenario.name} without a kill: {outcome.error}"
        return outcome.traces[0]

    @functools.cached_property
    def delete_at(self) -> int:
        """At which boundary the scenario's user deletes; 0: never. Found in the trace of a run in which nobody does."""
        told = self.scenario.deletes_at
        if not told:
            return 0
        trace = run(self, Case(self.scenario.name, ()), undisturbed=True).traces[0]
        return next(number for number, line in enumerate(trace, 1) if told in line)


def _forget(directory: Path) -> None:
    """Close what this process has open of a house's fake hosts."""
    for key in [key for key in fake_journal._opened if directory in key[1].parents]:
        journal = fake_journal._opened.pop(key)
        if journal._descriptor >= 0:
            os.close(journal._descriptor)


def run(template: Template, case: Case, *, undisturbed: bool = False) -> Outcome:
    """Run a case and check it; what was wrong is in the outcome. `undisturbed`: no delete, and only the trace is of interest."""
    outcome, began = Outcome(case), time.monotonic()
    house = template.copy()
    try:
        facts: Facts = dict(template.facts)
        for number, kill in enumerate((*case.kills, 0)):
            if _one_life(template, house, facts, outcome, number, kill, undisturbed):
                outcome.deaths += 1
        if not undisturbed:
            assert house.open_jobs() == 0, "work is left"
            invariants.check(house, marker=MARKER)
            template.scenario.expect(house, facts)
    except (AssertionError, KeyError, LookupError) as error:
        where = [trace[-1] for trace in outcome.traces if trace]
        outcome.error = f"{type(error).__name__}: {error}\n  processes ended at: {where}\n  {_last_words(house)}"
    finally:
        template.drop(house)
        outcome.seconds = time.monotonic() - began
    return outcome


def _one_life(template: Template, house: House, facts: Facts, outcome: Outcome, number: int, kill: int, undisturbed: bool) -> bool:
    """One process from start to end; True when it was killed."""
    scenario, trace = template.scenario, house.directory / f"trace-{number}"
    is_api = scenario.asks_api and number == 0
    act_at = 0
    if number == 0 and not undisturbed:
        act_at = (kill or 1) if scenario.deletes_where_killed else template.delete_at
    process = _start(house, facts, str(trace), kill, act_at, is_api, number)
    house.processes.append(process)
    deadline = time.monotonic() + _CASE_SECONDS
    is_asked_to_stop = False
    while process.wait(0.01) is None:
        if not is_api and not is_asked_to_stop and not _is_work_left(house):
            process.terminate()
            is_asked_to_stop = True
        if time.monotonic() > deadline:
            process.kill()
            outcome.traces.append(_read(trace))
            raise AssertionError(f"process {number} does not come to rest")
    outcome.traces.append(_read(trace))
    answer = house.directory / "answer"
    if is_api and answer.exists():
        facts["answer"] = json.loads(answer.read_text())
    if number == 0 and act_at and not _was_deleted(house, facts):
        house.delete(facts["uuids"][0])  # killed before the user came to it
    is_killed = process.poll() == -signal.SIGKILL
    # One that was asked to stop before it could listen dies of it: there was nothing left to do.
    assert is_killed or process.poll() in (0, -signal.SIGTERM), f"process {number} ended with {process.poll()}"
    if is_api and not is_killed and not kill:
        return _one_life(template, house, facts, outcome, number + 1, 0, undisturbed)
    return is_killed


def _is_work_left(house: House) -> bool:
    """Asked very often, so without ceremony."""
    with house.db.read() as connection:
        return connection.exec_driver_sql("SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1").first() is not None


def _was_deleted(house: House, facts: Facts) -> bool:
    return house.get(facts["uuids"][0]).vm_state == "deleted" or house.get(facts["uuids"][0]).task_state == "deleting"


def _start(house: House, facts: Facts, trace: str, kill: int, act_at: int, is_api: bool, number: int) -> ConductorProcess:
    act = f"lambda: children.delete({house.overrides!r}, {facts['uuids'][0]!r})" if act_at else "None"
    preamble = (
        "from support import boundaries as wrappers\nfrom crash import children\n"
        f"boundaries = wrappers.install({trace!r}, {kill}, act_at={act_at}, act={act})\n"
    )
    log = str(house.directory / f"conductor-{number}.log")
    if is_api:
        return KilledProcess(ask_api, (house.overrides, preamble, log, facts["request"], str(house.directory / "answer")))
    from support.conductor_process import serve

    return KilledProcess(serve, (house.overrides, preamble, log))


def _read(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


def _last_words(house: House) -> str:
    lines = [line for line in house.logs().splitlines() if any(word in line for word in ("ERROR", "WARNING", "Error", "Traceback"))]
    return "\n  ".join(lines[-12:]) or "the logs say nothing"
