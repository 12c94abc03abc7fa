"""kill -9 of the conductor: at every call of a driver, at every commit, and ten times over under load. Nothing lost, nothing twice."""

import json
import signal
import time
from collections import Counter
from typing import Any

import pytest

from hullwright.objects.states import VmState
from hullwright.persistence import attempts, jobs
from support import invariants
from support.house import House

# Kills this process around its k-th commit. `before` loses the transaction, `after` loses only what the process knew.
KILL_AT_COMMIT = """
import contextlib, os, signal
from hullwright.persistence import database
_write, _count, _moment = database.Database.write, [0], {moment!r}
@contextlib.contextmanager
def write(self):
    with _write(self) as connection:
        yield connection
        if _moment == "before" and _count[0] + 1 == {k}:
            os.kill(os.getpid(), signal.SIGKILL)
    _count[0] += 1
    if _moment == "after" and _count[0] == {k}:
        os.kill(os.getpid(), signal.SIGKILL)
database.Database.write = write
"""


def _effects(house: House, host: str) -> Counter[str]:
    """How often each effect took place on a fake host, from its journal."""
    path = house.directory / "fake" / host / "journal"
    return Counter(json.loads(line)["operation"] for line in path.read_text().splitlines() if line.strip())


def _run_to_rest(house: House, timeout_seconds: float = 30.0) -> int:
    """Start conductors, each when the one before has died, until nothing is open; answers how many died."""
    deaths, deadline = 0, time.monotonic() + timeout_seconds
    process = house.start_conductor()
    while house.open_jobs():
        if process.poll() is not None:
            assert process.poll() == -9, house.logs()
            deaths += 1
            process = house.start_conductor()
        assert time.monotonic() < deadline, house.logs()
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM), house.logs()  # one that was not up yet has nothing to drain
    return deaths


def _host_of(house: House, uuid: str) -> Any:
    return house.get(uuid).host


@pytest.mark.parametrize(("operation", "when"), [("spawn", "before"), ("spawn", "during"), ("spawn", "after")])
def test_a_build_whose_conductor_dies_at_a_call_of_the_hypervisor_ends_active(house: House, operation: str, when: str) -> None:
    house.add_host("h1")
    house.faults("h1", {"operation": operation, "when": when, "nth": 1, "kill": True})
    (uuid,) = house.create()
    assert _run_to_rest(house) == 1
    assert (house.get(uuid).vm_state, _host_of(house, uuid)) == (VmState.ACTIVE, "h1")
    invariants.check(house)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_undo_whose_conductor_dies_is_finished_by_the_next(house: House, when: str) -> None:
    house.add_host("h1")
    house.add_host("h2")
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError"}, {"operation": "destroy", "when": when, "nth": 1, "kill": True})
    house.faults("h2", {"operation": "spawn", "first": 1, "delay": 0.1})
    uuids = house.create(3)
    assert _run_to_rest(house) == 1
    assert {_host_of(house, uuid) for uuid in uuids} == {"h2"}
    invariants.check(house)


def test_after_a_crash_in_the_second_attempt_the_first_host_is_not_tried_again(house: House) -> None:
    """TaskFlow's own history of a retry does not survive a reload; ours does."""
    house.add_host("h1")
    house.add_host("h2")
    house.add_host("h3")
    for name in ("h1", "h2", "h3"):
        house.faults(
            name,
            {"operation": "spawn", "nth": 1, "error": "HypervisorError", "reason": name},
            {"operation": "spawn", "when": "before", "nth": 2, "kill": True},
        )
    (uuid,) = house.create()
    _run_to_rest(house)
    with house.db.read() as connection:
        job = jobs.latest(connection, uuid)
        assert job is not None
        made = attempts.list_for(connection, job.uuid)
    assert len({attempt.host for attempt in made}) == len(made) == 3
    assert house.get(uuid).vm_state == VmState.ERROR
    invariants.check(house)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delete_whose_conductor_dies_ends(house: House, when: str) -> None:
    house.add_host("h1")
    (uuid,) = house.create()
    _run_to_rest(house)
    house.faults("h1", {"operation": "destroy", "when": when, "nth": 1, "kill": True})
    house.delete(uuid)
    assert _run_to_rest(house) == 1
    assert house.get(uuid).vm_state == VmState.DELETED
    invariants.check(house)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_commit_of_a_build_that_reschedules_loses_nothing(house: House, moment: str) -> None:
    house.add_host("h1")
    house.add_host("h2")
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError"})
    killed, k = 0, 0
    while True:
        k += 1
        (uuid,) = house.create()
        process = house.start_conductor(KILL_AT_COMMIT.format(moment=moment, k=k))
        house.wait(lambda process=process: process.poll() is not None or house.open_jobs() == 0, 20)
        if process.poll() is None:  # it has fewer commits than k
            process.kill()
            break
        killed += 1
        _run_to_rest(house)
        assert (house.get(uuid).vm_state, _host_of(house, uuid)) == (VmState.ACTIVE, "h2"), f"killed {moment} commit {k}"
        invariants.check(house)
        house.delete(uuid)
    assert killed >= 8, "the build has commits to be killed at"


@pytest.mark.slow
def test_two_hundred_builds_with_the_conductor_killed_ten_times_are_all_active_once(house: House) -> None:
    for number in range(4):
        house.add_host(f"h{number}")
        house.faults(f"h{number}", {"operation": "spawn", "delay": [0.02, 0.08]})
    uuids = house.create(200)
    for _ in range(10):
        process = house.start_conductor()
        before = house.states(uuids).get("active", 0)
        house.wait(lambda before=before: house.states(uuids).get("active", 0) >= min(200, before + 10), 30)
        process.kill()
    _run_to_rest(house, 60)
    assert house.states(uuids) == {"active": 200}
    invariants.check(house)


@pytest.mark.postgresql
@pytest.mark.slow
def test_many_conductors_on_postgresql_with_one_killed_share_the_work(tmp_path: Any, postgres_tables_url: str) -> None:
    house = House(tmp_path, postgres_tables_url)
    try:
        for number in range(3):
            house.add_host(f"h{number}")
            house.faults(f"h{number}", {"operation": "spawn", "delay": [0.02, 0.05]})
        uuids = house.create(60)
        victim, *others = [house.start_conductor() for _ in range(3)]
        house.wait(lambda: house.states(uuids).get("active", 0) >= 10, 30)
        victim.kill()
        house.rest(60)
        assert house.states(uuids) == {"active": 60}
        invariants.check(house)
        assert all(process.poll() is None for process in others)
    finally:
        house.close()
