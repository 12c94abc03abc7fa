"""kill -9 of the conductor under load, again and again: nothing lost, nothing twice. Kills at each boundary are in tests/crash."""

import signal
import time
from typing import Any

import pytest

from support import invariants
from support.house import House


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
