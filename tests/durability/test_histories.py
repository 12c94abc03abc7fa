"""Flows that were begun by the code of another day go on with today's: recorded histories, and two versions of a factory side by side.

When a test here fails after a change of a flow, the change would break flows that are open while Hullwright is upgraded. The way out is a
new version of the factory beside the old one, with a history of its own (`tools/record-history`).
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from taskflow.patterns import graph_flow, linear_flow

from durability import histories
from hullwright.conductor.runner import Drive
from hullwright.flows import build, catalog
from hullwright.flows.build import build_instance_v1
from hullwright.flows.context import RunContext
from hullwright.flows.step import Step
from hullwright.objects.states import VmState
from hullwright.persistence import events, jobs, leases
from support import invariants
from support.house import House

THOROUGH = bool(os.environ.get("HULLWRIGHT_DURABILITY_ROUNDS"))  # every moment of every history
MOMENTS = 8  # about so many of each otherwise
PATHS = sorted(histories.DIRECTORY.glob("*.json"))


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    history: dict[str, Any] = json.loads(path.read_text())
    return history


def _verify(history: dict[str, Any]) -> None:
    for path, recorded in history["graphs"].items():
        found = histories.differences(path, recorded)
        assert not found, f"open flows of version {path} would break: {'; '.join(found)}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_open_flows_find_the_steps_and_symbols_that_they_were_begun_with(path: Path) -> None:
    for factory, recorded in _read(path)["graphs"].items():
        assert histories.differences(factory, recorded) == [], f"open flows of version {factory} would break"


def test_every_factory_has_a_recorded_history() -> None:
    recorded = {factory for path in PATHS for factory in _read(path)["graphs"]}
    missing = {catalog.path_of(kind.factory) for kind in catalog.KINDS.values()} - recorded
    assert not missing, f"record a history of {sorted(missing)}: tools/record-history"


@pytest.mark.parametrize("hesitant", [False, True], ids=["", "stopped-after-each-step"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_flow_that_stood_anywhere_is_brought_to_its_right_end(path: Path, hesitant: bool) -> None:
    history = _read(path)
    _verify(history)
    every = 1 if THOROUGH else max(1, len(history["moments"]) // MOMENTS)
    for number in range(int(hesitant and every > 1), len(history["moments"]), every):
        after = history["moments"][number]["after"]
        try:
            with histories.restored(history, number) as house:
                histories.resume(house, hesitant=hesitant)
                invariants.check(house)
                histories.STORIES[history["scenario"]].expect(house, history["facts"])
        except AssertionError as error:
            raise AssertionError(f"open flows of version {path.stem} would break, after commit {number} ({after}): {error}") from error


class _Renamed(build.Spawn):
    """As a careless change would have it. Reverts: what `Spawn` does."""

    step_name = "boot"


class _Resymboled(build.Claim):
    """Provides its result under another name. Reverts: what `Claim` does."""

    default_provides = "chosen_host"


def _changed(**steps: Any) -> Any:
    def factory() -> linear_flow.Flow:
        attempt = graph_flow.Flow("attempt", retry=build.Reschedule())
        attempt.add(build.SelectHost(), steps.get("claim", build.Claim)(), build.PlugNetwork(), build.ConnectVolumes(), build.FetchImage())
        if "claim" not in steps:
            attempt.add(steps.get("spawn", build.Spawn)())
        return linear_flow.Flow("build_instance").add(build.Guard(), build.Reserve(), attempt, build.Activate())

    return factory


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"spawn": _Renamed}, "step spawn is gone or was renamed; step boot is new"),
        ({"claim": _Resymboled}, r"step claim provides \{'chosen_host'"),
    ],
)
def test_a_careless_change_is_told_in_plain_words(change: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build_instance_v1", _changed(**change))
    path = next(path for path in PATHS if path.stem.endswith("build_instance_v1.build"))
    with pytest.raises(AssertionError, match=r"open flows of version hullwright.flows.build.build_instance_v1 would break: .*" + complaint):
        _verify(_read(path))


# --- Two versions ----------------------------------------------------------------------------------------------------------


class _Inspect(Step):
    """A step that version 1 knows nothing of. Reverts: nothing."""

    step_name = "inspect"
    default_provides = "verdict"

    def execute(self, run: RunContext, host: str) -> str:
        """Say that the host will do."""
        return f"{host} will do"

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""


def _build_instance_v2() -> linear_flow.Flow:
    """Another graph: one step more, and all of an attempt in a row."""
    attempt = linear_flow.Flow("attempt", retry=build.Reschedule())
    attempt.add(build.SelectHost(), build.Claim(), _Inspect())
    attempt.add(build.FetchImage(), build.ConnectVolumes(), build.PlugNetwork(), build.Spawn())
    return linear_flow.Flow("build_instance").add(build.Guard(), build.Reserve(), attempt, build.Activate())


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs version 2 beside version 1."""

    def install() -> None:
        _build_instance_v2.__module__, _build_instance_v2.__qualname__ = build.__name__, "build_instance_v2"
        monkeypatch.setattr(build, "build_instance_v2", _build_instance_v2, raising=False)
        monkeypatch.setitem(catalog.KINDS, "build_instance", catalog.Kind(_build_instance_v2))

    return install


def _ran(house: House, uuid: str) -> set[str]:
    with house.db.read() as connection:
        job = jobs.latest(connection, uuid, "build_instance")
        assert job is not None
        return {event.step for event in events.list_since(connection, job.uuid)}


def test_a_build_begun_by_version_1_goes_on_as_version_1_beside_builds_of_version_2(house: House, upgraded: Any) -> None:
    house.add_host("h1")
    (old,) = house.create()
    for _ in range(3):  # conductors of version 1, each stopped after a step
        with histories._runner(house, hesitant=True) as runner:
            with house.db.write() as connection:
                (job,) = leases.take(connection, "nobody", 1)
            runner.run(Drive(job))
    assert house.get(old).vm_state == VmState.BUILDING
    upgraded()
    (new,) = house.create()
    with house.conductor():
        house.rest()
    assert house.states([old, new]) == {VmState.ACTIVE: 2}
    assert ("inspect" in _ran(house, old), "inspect" in _ran(house, new)) == (False, True)
    invariants.check(house)


@pytest.mark.parametrize("name", ["build", "reschedule"])
def test_a_build_that_stood_anywhere_in_version_1_ends_right_beside_version_2(name: str, upgraded: Any) -> None:
    upgraded()
    assert catalog.KINDS["build_instance"].factory is not build_instance_v1
    history = _read(next(path for path in PATHS if path.stem.endswith(f"build_instance_v1.{name}")))
    for number in range(0, len(history["moments"]), 4):
        with histories.restored(history, number) as house:
            histories.resume(house)
            invariants.check(house)
            histories.STORIES[name].expect(house, history["facts"])
