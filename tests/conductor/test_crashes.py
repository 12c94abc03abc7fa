"""kill -9 of the conductor under load, again and again: nothing lost, nothing twice. Kills at each boundary are in tests/crash."""

import signal
import time
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.persistence.models.jobs import step_events
from reconcile.drift import new_network
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
    network, image = new_network(house), house.add_image()
    uuids: list[str] = []

    def active() -> int:
        return house.states(uuids).get("active", 0)

    for _ in range(10):
        uuids += [house.create(image_id=image, networks=(house.request_port(network),))[0] for _ in range(20)]
        process = house.start_conductor()
        before = active()
        house.wait(lambda before=before: active() >= before + 10, 120)
        process.kill()
    _run_to_rest(house, 240)
    assert house.states(uuids) == {"active": 200}
    with house.db.read() as connection:
        resumed = sa.select(sa.func.count()).where(step_events.c.to_state == "RESUMED")
        assert connection.execute(resumed).scalar_one() > 0, "no kill came in the middle of a step"
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
