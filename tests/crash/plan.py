"""All cases: each scenario with each trouble at its boundaries, and pairs: killed again while the next process recovers.

Each worker is a process that runs one case after the other; the furnished houses are made once and copied by all. Cases of all rows are
mixed, because some take CPU and others wait.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crash.cases import Case, Outcome, Template, room, run
from crash.databases import Databases
from crash.scenarios import SCENARIOS, Facts
from crash.troubles import TROUBLES, Trouble
from support.postgres import PostgresServer

Tell = Callable[[str], None]
SPARES = 4  # boundaries of an unordered scenario, of which a sample is tried, for those that are not come to this time


@dataclass
class Row:
    """What came of a scenario with a trouble."""

    name: str
    trouble: str
    boundaries: int  # at which the trouble can be
    in_undo: int  # of them in reverts
    tried: int = 0  # of the boundaries
    survived: int = 0  # of those tried: the process met its trouble there, and nothing was wrong
    pairs: int = 0  # survived
    missed: int = 0  # cases, pairs too, in which a process never came to where it was to meet its trouble
    seconds: float = 0.0  # of all its cases
    failures: list[Outcome] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The operation."""
        return SCENARIOS[self.name].title

    @property
    def is_whole(self) -> bool:
        """Whether the trouble was met wherever it should be, and nothing was wrong. Unordered scenarios miss a few at times."""
        wanted = self.tried if SCENARIOS[self.name].is_ordered else self.tried * 0.9
        return not self.failures and self.tried > 0 and self.survived >= wanted


@dataclass
class _Furnished:
    """What a worker must know of a template that another one made."""

    directory: Path
    databases: Databases
    facts: Facts
    plain: Outcome
    delete_at: int

    @classmethod
    def make(cls, name: str, directory: Path, databases: Databases) -> _Furnished:
        """Furnish, and run it without a trouble."""
        template = Template(name, directory, databases)
        return cls(directory, databases, template.facts, template.plainly, template.delete_at)

    def template(self) -> Template:
        """As if it had been made here."""
        made = Template(self.plain.case.scenario, self.directory, self.databases, self.facts)
        made.__dict__ |= {"plainly": self.plain, "delete_at": self.delete_at}
        return made


_known: dict[Path, Template] = {}


def _run_in_worker(case: Case, furnished: _Furnished) -> Outcome:
    if furnished.directory not in _known:
        _known[furnished.directory] = furnished.template()
    return run(_known[furnished.directory], case)


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
    """Workers, and what they are to do."""

    def __init__(self, directory: Path, workers: int, tell: Tell, *, seed: object, server: PostgresServer | None = None) -> None:
        """`server`: for what is played on PostgreSQL. `seed`: says which boundaries and pairs, where not all are tried."""
        self._directory = directory
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
        self._tell = tell
        self._seed = seed
        self._server = server
        self._furnished: dict[tuple[str, str], Future[_Furnished]] = {}

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(cancel_futures=True)
        for future in self._furnished.values():
            if not future.cancelled() and future.exception() is None:
                future.result().databases.close()

    def play(self, wanted: Iterable[tuple[str, str]], *, most: Callable[[str], int | None], pairs: int) -> list[Row]:
        """Play scenarios with troubles: pairs of their names. `most`: at how many boundaries, by the trouble's name; None: at all."""
        chosen = [(name, trouble) for name, trouble in wanted if TROUBLES[trouble].concerns(SCENARIOS[name])]
        ready = {(name, trouble): self._furnish(name, TROUBLES[trouble]) for name, trouble in chosen}
        rows, cases = {}, []
        spare: dict[tuple[str, str], list[int]] = {}
        for (name, trouble), future in ready.items():
            template = future.result().template()
            lines = [line.split("\t") for line in template.plain]
            numbers = template.boundaries(TROUBLES[trouble])
            in_undo = sum(lines[number - 1][2].endswith(".revert") for number in numbers)
            tried, spare[name, trouble] = self._choose(numbers, most(trouble), SCENARIOS[name].is_ordered, name, trouble)
            rows[name, trouble] = Row(name, trouble, len(numbers), in_undo, len(tried))
            cases += [Case(name, (number,), trouble) for number in tried]
        random.Random(f"{self._seed}").shuffle(cases)
        singles: dict[tuple[str, str], list[Outcome]] = {key: [] for key in rows}
        under_way: dict[Future[Outcome], Case] = {self._submit(case, ready): case for case in cases}
        while under_way:
            done, _ = wait_for(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                case = under_way.pop(future)
                key = (case.scenario, case.trouble)
                self._note(rows[key], future.result())
                if len(case.at) == 1 and not future.result().met and spare[key] and not future.result().error:
                    another = Case(case.scenario, (spare[key].pop(),), case.trouble)
                    under_way[self._submit(another, ready)] = another
                elif len(case.at) == 1:
                    singles[key].append(future.result())
                    if len(singles[key]) == rows[key].tried:
                        self._say(rows[key])
                        if pairs and TROUBLES[case.trouble].repeats:
                            found = choose_pairs(singles[key], pairs, random.Random(f"{self._seed} {case.scenario}"))
                            under_way |= {self._submit(pair, ready): pair for pair in found}
        return list(rows.values())

    def _furnish(self, name: str, trouble: type[Trouble]) -> Future[_Furnished]:
        databases = trouble.databases(self._server)
        key = (name, type(databases).__name__)
        if key not in self._furnished:
            directory = self._directory / "-".join(key)
            self._furnished[key] = self._pool.submit(_Furnished.make, name, directory, databases)
        return self._furnished[key]

    def _choose(self, numbers: Sequence[int], most: int | None, is_ordered: bool, *names: str) -> tuple[list[int], list[int]]:
        """Boundaries to try, and others in place of those that a process of an unordered scenario never comes to."""
        if most is None:
            return list(numbers), []
        spares = 0
        if not is_ordered:  # the last ones are not come to each time
            numbers, spares = numbers[: max(1, len(numbers) * 9 // 10)], SPARES
        rng = random.Random(" ".join((f"{self._seed}", *names)))
        chosen = rng.sample(numbers, min(most + spares, len(numbers)))
        return sorted(chosen[:most]), chosen[most:]

    def _submit(self, case: Case, ready: dict[tuple[str, str], Future[_Furnished]]) -> Future[Outcome]:
        return self._pool.submit(_run_in_worker, case, ready[case.scenario, case.trouble].result())

    def _note(self, row: Row, outcome: Outcome) -> None:
        row.seconds += outcome.seconds
        if outcome.error:
            row.failures.append(outcome)
            self._tell(f"  {outcome.case.command}\n    {outcome.error}")
        elif outcome.met < len(outcome.case.at):
            row.missed += 1
            self._tell(f"  {outcome.case.command}: the process never came there")
        elif len(outcome.case.at) == 1:
            row.survived += 1
        else:
            row.pairs += 1

    def _say(self, row: Row) -> None:
        told = f"{row.boundaries} boundaries ({row.in_undo} in undo), {row.survived} of {row.tried} survived, {row.missed} never come to"
        self._tell(f"{row.trouble:10} {row.name:16} {told}, {len(row.failures)} failures, {row.seconds:.0f} s")


def choose_pairs(singles: Sequence[Outcome], count: int, rng: random.Random) -> list[Case]:
    """Pairs of boundaries: one that was died at, and one that the recovery from it came to."""
    places = sorted((outcome for outcome in singles if outcome.met and len(outcome.traces) > 1 and outcome.traces[1]), key=_first)
    chosen = set()
    for _ in range(count * 4):
        if len(chosen) == count or not places:
            break
        place = rng.choice(places)
        chosen.add((_first(place), rng.randint(1, len(place.traces[1]))))
    return [Case(singles[0].case.scenario, numbers) for numbers in sorted(chosen)]


def _first(outcome: Outcome) -> int:
    return outcome.case.at[0]
