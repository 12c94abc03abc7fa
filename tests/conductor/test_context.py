"""What a step may know of itself while others of its build run beside it."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from hullwright.flows import context
from hullwright.flows.context import RunContext


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunContext:
    """Of a build whose time is over."""
    monkeypatch.setattr(RunContext, "_is_over", lambda *_: True)
    monkeypatch.setattr(context, "_DEADLINE_GRACE_SECONDS", -1.0)
    shared: Any = SimpleNamespace(db=None, conf=None, scheduler=None)
    session: Any = SimpleNamespace(job=SimpleNamespace(deadline_at=None), ended_at={})
    return RunContext(shared, session, lambda: True)


def test_an_undo_is_the_business_of_its_own_step(run: RunContext) -> None:
    told: list[Any] = []

    def beside() -> None:
        with run.doing("fetch_image", undoing=False):
            told.extend([run.undoing, run.overdue(lambda _: math.inf)])

    with run.doing("plug_network", undoing=True):
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
        assert run.undoing, "a step that began later, beside it, changes nothing of that"
        assert run.overdue(lambda _: math.inf) is None, "an undo may take longer than the build"
    assert not run.undoing
    is_undoing, late = told
    assert (is_undoing, late.step) == (False, "fetch_image")
