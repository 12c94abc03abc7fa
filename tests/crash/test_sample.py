"""A sample of what `make crash` runs in full: some boundaries of each operation with each trouble, chosen at random.

Which ones is chosen by a number that is printed when a case fails; HULLWRIGHT_CRASH_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crash import report
from crash.cases import Case, Outcome, Template, run
from crash.databases import OnServer
from crash.plan import SPARES, Plan, Row, choose_pairs, workshop
from crash.scenarios import SCENARIOS
from crash.troubles import TROUBLES

SEED = os.environ.get("HULLWRIGHT_CRASH_SEED") or time.strftime("%Y%m%d")
WORKERS = 4
ON_POSTGRESQL = ("build", "reschedule", "delete-in-build", "silent-delete")
STALLED = ("build", "delete-in-build")  # on PostgreSQL
TROUBLED = ("build", "reschedule", "delete", "delete-in-build", "parallel")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where the houses stand."""
    with workshop() as made:
        yield made


def _play(directory: Path, names: tuple[str, ...], trouble: str, most: int, pairs: int = 0, server: Any = None) -> list[Row]:
    plan = Plan(directory, WORKERS, print, seed=SEED, server=server)
    try:
        return plan.play([(name, trouble) for name in names], most=lambda _: most, pairs=pairs)
    finally:
        plan.close()


def _told(failures: list[Outcome]) -> str:
    return f"seed {SEED}:\n" + "\n".join(f"{outcome.case.command}\n{outcome.error}" for outcome in failures)


def test_a_process_killed_at_a_boundary_loses_nothing_and_leaves_nothing(directory: Path) -> None:
    rows = _play(directory / "kills", tuple(SCENARIOS), "kill", most=2, pairs=1)
    assert [row.name for row in rows] == list(SCENARIOS)
    failures = [outcome for row in rows for outcome in row.failures]
    assert failures == [], _told(failures)
    short = {row.name: row.survived for row in rows if row.survived < 2}
    assert short == {}, f"seed {SEED}: processes did not come to where they were to die"


@pytest.mark.postgresql
@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_a_process_killed_at_a_boundary_loses_nothing_on_postgresql(name: str, directory: Path, postgres_server: Any) -> None:
    template = Template(name, directory / f"{name}-postgresql", OnServer(postgres_server.port))
    rng = random.Random(f"{SEED} {name}")
    is_ordered = template.scenario.is_ordered
    last = len(template.plain) if is_ordered else len(template.plain) * 9 // 10
    numbers = rng.sample(range(1, last + 1), 2 if is_ordered else 2 + SPARES)
    singles: list[Outcome] = []
    while numbers and sum(outcome.met for outcome in singles) < 2:
        singles.append(run(template, Case(name, (numbers.pop(),))))
    outcomes = singles + [run(template, case) for case in choose_pairs(singles, 1, rng)]
    failures = [outcome for outcome in outcomes if outcome.error]
    assert failures == [], _told(failures)
    assert sum(outcome.met for outcome in singles) == 2, f"seed {SEED}: processes did not come to where they were to die"


@pytest.mark.parametrize(
    ("trouble", "names"),
    [
        ("delete", ("delete-anywhere", "delete-in-undo", "delete-in-stop", "delete-in-parallel", "delete-in-wait")),
        ("stall", TROUBLED),
        ("hang", TROUBLED),
        ("locked", TROUBLED),
        pytest.param("terminated", TROUBLED, marks=pytest.mark.postgresql),
        pytest.param("stopped", TROUBLED[:2], marks=pytest.mark.postgresql),
    ],
)
def test_a_trouble_at_a_boundary_loses_nothing_and_leaves_nothing(
    trouble: str, names: tuple[str, ...], directory: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres_server") if trouble == "terminated" else None
    rows = _play(directory / trouble, names, trouble, most=1, server=server)
    failures = [outcome for row in rows for outcome in row.failures]
    assert failures == [], _told(failures)
    assert {row.name: row.survived for row in rows} == dict.fromkeys(names, 1), f"seed {SEED}: a process never came to its boundary"


@pytest.mark.postgresql
@pytest.mark.parametrize("name", STALLED)
def test_a_conductor_that_stalls_at_a_boundary_acts_no_more_on_postgresql(name: str, directory: Path, postgres_server: Any) -> None:
    template = Template(name, directory / f"{name}-stalled", OnServer(postgres_server.port))
    # Inside a transaction it holds its job's row until the server ends the transaction; see durability/test_stalls.py.
    places = [number for number, line in enumerate(template.plain, 1) if "before commit" not in line]
    outcome = run(template, Case(name, (random.Random(f"{SEED} {name}").choice(places),), "stall"))
    assert (outcome.error, outcome.met) == ("", 1), _told([outcome])


def test_there_is_a_sample_of_each_trouble() -> None:
    marks = test_a_trouble_at_a_boundary_loses_nothing_and_leaves_nothing.pytestmark  # type: ignore[attr-defined]
    sampled = [getattr(case, "values", case)[0] for mark in marks if mark.name == "parametrize" for case in mark.args[1]]
    assert {"kill", *sampled} == set(TROUBLES)


def test_a_case_whose_process_never_came_there_is_told_and_is_none_that_was_survived() -> None:
    unordered = Row("parallel", "kill", boundaries=84, in_undo=0, tried=84, survived=83, missed=1)
    ordered = Row("build", "kill", boundaries=70, in_undo=0, tried=70, survived=69, missed=1)
    assert (unordered.is_whole, ordered.is_whole) == (True, False), "where a number means the same in each run, a miss is a defect"
    assert "1 of `parallel` (kill)" in report.tables([unordered], seed=1, workers=1, seconds=1.0)
