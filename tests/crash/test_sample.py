"""A sample of what `make crash` runs in full: some boundaries of each operation, on SQLite, and fewer on PostgreSQL.

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

from crash.cases import Case, Outcome, Template, run
from crash.plan import choose_pairs, workshop
from crash.scenarios import SCENARIOS

SEED = int(os.environ.get("HULLWRIGHT_CRASH_SEED") or time.strftime("%Y%m%d"))
SINGLES, PAIRS = 2, 1  # of each scenario
ON_POSTGRESQL = ("build", "reschedule", "delete-in-build", "silent-delete")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where the houses stand."""
    with workshop() as made:
        yield made


def _sample(template: Template, singles: int, pairs: int) -> list[Outcome]:
    """Outcomes of random boundaries, and of pairs that begin at one of them."""
    rng = random.Random(f"{SEED} {template.scenario.name}")
    last = len(template.plain) if template.scenario.is_ordered else len(template.plain) * 9 // 10
    boundaries = range(1, last + 1)
    chosen = sorted(rng.sample(boundaries, min(singles, len(boundaries))))
    outcomes = [run(template, Case(template.scenario.name, (kill,))) for kill in chosen]
    return outcomes + [run(template, case) for case in choose_pairs(outcomes, pairs, rng)]


def _check(outcomes: list[Outcome], least_deaths: int) -> None:
    told = [f"{outcome.case.command}\n{outcome.error}" for outcome in outcomes if outcome.error]
    assert not told, f"seed {SEED}:\n" + "\n".join(told)
    assert sum(outcome.deaths for outcome in outcomes) >= least_deaths, "processes did not come to where they were to die"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_killed_at_a_boundary_loses_nothing_and_leaves_nothing(name: str, directory: Path) -> None:
    outcomes = _sample(Template(name, directory / name), SINGLES, PAIRS)
    _check(outcomes, least_deaths=SINGLES)


@pytest.mark.postgresql
@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_a_process_killed_at_a_boundary_loses_nothing_on_postgresql(name: str, directory: Path, postgres_server: Any) -> None:
    outcomes = _sample(Template(name, directory / f"{name}-postgresql", postgres_server), SINGLES, PAIRS)
    _check(outcomes, least_deaths=SINGLES)
