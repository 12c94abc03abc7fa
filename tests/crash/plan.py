"""All cases: each scenario killed at each of its boundaries, and pairs: killed again while the next process recovers.

Each worker is a process that runs one case after the other; the furnished houses are made once and copied by all.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crash.cases import Case, Outcome, Template, room, run
from crash.scenarios import SCENARIOS, Facts

Tell = Callable[[str], None]


@dataclass
class Row:
    """What came of a scenario."""

    name: str
    title: str
    boundaries: int  # K
    in_undo: int  # of them in reverts
    killed: int = 0
    pairs: int = 0
    seconds: float = 0.0
    failures: list[Outcome] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether each boundary was died at, and nothing was wrong. Unordered ones may have a few less than the run that was counted."""
        wanted = self.boundaries if SCENARIOS[self.name].is_ordered else self.boundaries * 0.9
        return not self.failures and self.killed >= wanted


_known: dict[str, Template] = {}


def _run_in_worker(case: Case, directory: str, facts: Facts, delete_at: int) -> Outcome:
    """Run a case in a worker, which is told what the plan knows of the template."""
    if case.scenario not in _known:
        made = Template(case.scenario, Path(directory), facts=facts)
        made.__dict__["delete_at"] = delete_at
        _known[case.scenario] = made
    return run(_known[case.scenario], case)


@contextmanager
def workshop() -> Iterator[Path]:
    """A directory for houses, gone afterwards. What a run that was killed left goes with the next one."""
    for left in room().glob("crash-*-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"crash-{os.getpid()}-", dir=room()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Plan:
    """Furnished scenarios and workers."""

    def __init__(self, directory: Path, workers: int, tell: Tell) -> None:
        self._directory = directory
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
        self._tell = tell

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(cancel_futures=True)

    def scenario(self, name: str, pairs: int, seed: int) -> Row:
        """Kill a scenario at each boundary, then at `pairs` pairs of boundaries."""
        began = time.monotonic()
        template = Template(name, self._directory / name)
        trace = template.plain
        row = Row(name, SCENARIOS[name].title, len(trace), sum(".revert" in line for line in trace))
        singles = self._run(template, [Case(name, (kill,)) for kill in range(1, len(trace) + 1)])
        row.killed = sum(1 for outcome in singles if outcome.deaths == 1)
        chosen = choose_pairs(singles, pairs, random.Random(f"{seed} {name}"))
        doubles = self._run(template, chosen)
        row.pairs = sum(1 for outcome in doubles if outcome.deaths == 2)
        row.failures = [outcome for outcome in [*singles, *doubles] if outcome.error]
        missed = [outcome for outcome in singles if not outcome.error and outcome.deaths != 1]
        for outcome in missed:
            self._tell(f"  {outcome.case.command}: the process never came there")
        row.seconds = time.monotonic() - began
        shutil.rmtree(template.directory, ignore_errors=True)
        return row

    def _run(self, template: Template, cases: Sequence[Case]) -> list[Outcome]:
        at = (str(template.directory), template.facts, template.delete_at)
        found = []
        for future in as_completed([self._pool.submit(_run_in_worker, case, *at) for case in cases]):
            outcome = future.result()
            found.append(outcome)
            if outcome.error:
                self._tell(f"  {outcome.case.command}\n    {outcome.error}")
        return found


def choose_pairs(singles: Sequence[Outcome], count: int, rng: random.Random) -> list[Case]:
    """Pairs of boundaries: one that was died at, and one that the recovery from it came to."""
    places = sorted((outcome for outcome in singles if outcome.deaths and len(outcome.traces) > 1 and outcome.traces[1]), key=_first_kill)
    chosen = set()
    for _ in range(count * 4):
        if len(chosen) == count or not places:
            break
        place = rng.choice(places)
        chosen.add((_first_kill(place), rng.randint(1, len(place.traces[1]))))
    return [Case(singles[0].case.scenario, kills) for kills in sorted(chosen)]


def _first_kill(outcome: Outcome) -> int:
    return outcome.case.kills[0]
