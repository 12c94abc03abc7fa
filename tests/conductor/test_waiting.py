"""Builds that wait for room: their order, what starts them, what ends their wait, and what a crash does to it."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hullwright.objects.flavors import Flavor
from hullwright.objects.states import AttemptState, JobState, VmState
from hullwright.persistence import attempts, events, faults, hosts, jobs, waits
from support import invariants
from support.house import House

BIG = Flavor(id="2", name="big", vcpus=3, memory_mb=512, root_gb=1)
LONG = 600
EXACT = {"cpu_allocation_ratio": 1.0, "report_interval": 5.0}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An empty house on SQLite, whose hosts have the room that they have."""
    made = House(tmp_path, compute=EXACT)
    yield made
    made.close()


@pytest.fixture
def house_on_each(tmp_path: Path, db_url: str) -> Iterator[House]:
    """The same on SQLite and on PostgreSQL in turn."""
    made = House(tmp_path, db_url, compute=EXACT)
    yield made
    made.close()


def _job(house: House, instance: str) -> Any:
    with house.db.read() as connection:
        return jobs.latest(connection, instance, "build_instance")


def _waits(house: House, instance: str) -> bool:
    job = _job(house, instance)
    return job.state == JobState.QUEUED and job.waits_for is not None


def _place(house: House, instance: str) -> tuple[int, int] | None:
    with house.db.read() as connection:
        place = waits.place(connection, _job(house, instance))
    return None if place is None else (place.number, place.of)


def _events(house: House, instance: str, step: str = "select_host") -> list[str]:
    with house.db.read() as connection:
        return [event.to_state for event in events.list_since(connection, _job(house, instance).uuid) if event.step == step]


def _is_active(house: House, instance: str) -> bool:
    return bool(house.get(instance).vm_state == VmState.ACTIVE)


def _full(house: House, vcpus: int = 1) -> str:
    """A server that takes all of one host."""
    house.add_host("h1", vcpus=vcpus)
    (first,) = house.create(flavor=Flavor(id="0", name="all", vcpus=vcpus, memory_mb=512, root_gb=1))
    house.wait(lambda: _is_active(house, first))
    return first


def test_a_build_that_may_wait_starts_when_a_delete_makes_room(house_on_each: House) -> None:
    house = house_on_each
    with house.conductor():
        first = _full(house)
        (second,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, second))
        assert house.get(second).vm_state == VmState.BUILDING
        house.delete(first)
        house.rest()
    assert _is_active(house, second)
    assert _events(house, second) == ["RUNNING", "WAITING", "RESUMED", "SUCCESS"]
    job = _job(house, second)
    assert (job.waits_for, job.leases) == (None, 1)
    assert abs(job.deadline_at - job.created_at - house.conf.conductor.build_timeout - (job.started_at - job.created_at)) < 10
    invariants.check(house)


def test_builds_start_in_the_order_of_their_requests(house_on_each: House) -> None:
    house = house_on_each
    with house.conductor():
        alive = _full(house)
        queue: list[str] = []
        for number in range(1, 4):
            (last,) = house.create(wait_seconds=LONG)
            house.wait(functools.partial(_waits, house, last))
            assert _place(house, last) == (number, number)
            queue.append(last)
        for number, first in enumerate(queue, 1):
            house.delete(alive)
            house.wait(functools.partial(_is_active, house, first))
            behind = queue[number:]
            assert [_place(house, each) for each in behind] == [(place, len(behind)) for place in range(1, len(behind) + 1)]
            alive = first
        house.rest()
    invariants.check(house)


def test_a_smaller_build_passes_one_that_does_not_fit_and_an_equal_one_does_not(house: House) -> None:
    with house.conductor():
        first = _full(house, vcpus=1)
        (big,) = house.create(flavor=BIG, wait_seconds=LONG)
        house.wait(lambda: _waits(house, big))
        (equal,) = house.create(flavor=BIG, wait_seconds=LONG)
        house.wait(lambda: _waits(house, equal))
        (small,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, small))
        house.delete(first)
        house.wait(lambda: _is_active(house, small))
        house.add_host("h2", vcpus=3)
        house.wait(lambda: _is_active(house, big))
        assert _waits(house, equal)
        house.delete(equal)
        house.rest()
    invariants.check(house)


def test_who_comes_later_does_not_pass_those_that_wait_for_the_same(house: House) -> None:
    """Room is there, and the first in the queue has not seen it yet: the next one joins the queue all the same."""
    house.add_host("h1", vcpus=2)
    with house.db.write() as connection:
        hosts.disable(connection, "h1", "being mended")
    with house.conductor() as conductor:
        (first,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, first))
        conductor._waiting_room.stop()
        with house.db.write() as connection:
            hosts.enable(connection, "h1")
        (second,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, second))
        assert conductor._waiting_room.look() == 2
        house.wakeup.poke()
        house.rest()
    assert house.states([first, second]) == {VmState.ACTIVE: 2}
    invariants.check(house)


def test_room_comes_with_a_host_that_is_added(house: House) -> None:
    with house.conductor():
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, uuid))
        house.add_host("h1")
        house.wait(lambda: _is_active(house, uuid))
        house.rest()
    invariants.check(house)


def test_a_wait_ends_with_the_reasons_when_there_was_no_room_for_too_long(house_on_each: House) -> None:
    house = house_on_each
    with house.conductor():
        _full(house)
        (uuid,) = house.create(wait_seconds=1)
        house.wait(lambda: _waits(house, uuid))
        house.rest()
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
        (attempt,) = attempts.list_for(connection, _job(house, uuid).uuid)
    assert house.get(uuid).vm_state == VmState.ERROR
    assert fault is not None
    assert fault.message.startswith("No valid host was found. Waited 1 s for room. 0 of 1 host fit: ")
    assert (attempt.state, attempt.error) == (AttemptState.FAILED, "NoValidHost")
    assert _job(house, uuid).waits_for is None
    invariants.check(house)


def test_who_did_not_ask_to_wait_fails_at_once(house: House) -> None:
    with house.conductor():
        _full(house)
        (uuid,) = house.create()
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert _events(house, uuid) == ["RUNNING", "FAILURE", "REVERTING", "REVERTED"]


def test_a_build_that_failed_on_every_host_does_not_wait(house: House) -> None:
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError", })
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create(wait_seconds=LONG)
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert "WAITING" not in _events(house, uuid)


def test_a_build_that_failed_on_one_host_waits_for_another(house: House) -> None:
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError", "first": 1})
    house.add_host("h1", vcpus=50)
    with house.conductor():
        house.add_host("h2", vcpus=1)
        (other,) = house.create(force_host="h2")
        house.wait(lambda: _is_active(house, other))
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, uuid))
        house.delete(other)
        house.wait(lambda: _is_active(house, uuid))
        house.rest()
    assert house.get(uuid).host == "h2"
    with house.db.read() as connection:
        made = attempts.list_for(connection, _job(house, uuid).uuid)
    assert [(each.host, each.state) for each in made] == [("h1", AttemptState.FAILED), ("h2", AttemptState.SUCCEEDED)]
    invariants.check(house)


def test_a_delete_ends_a_wait(house_on_each: House) -> None:
    house = house_on_each
    with house.conductor():
        _full(house)
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, uuid))
        house.delete(uuid)
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    assert _job(house, uuid).waits_for is None
    invariants.check(house)


def test_the_build_time_stands_still_while_it_waits(tmp_path: Path) -> None:
    house = House(tmp_path, compute=EXACT, conductor={"build_timeout": 2.0})
    try:
        with house.conductor():
            first = _full(house)
            (uuid,) = house.create(wait_seconds=LONG)
            house.wait(lambda: _waits(house, uuid))
            assert _job(house, uuid).deadline_at > time.time() + LONG - 10
            time.sleep(2.5)
            house.delete(first)
            house.rest()
        assert _is_active(house, uuid)
        assert _job(house, uuid).deadline_at < time.time() + 5
    finally:
        house.close()


@pytest.mark.parametrize("wakes", [False, True], ids=["while it waits", "while it looks again"])
def test_a_wait_survives_its_conductor(house_on_each: House, wakes: bool) -> None:
    house = house_on_each
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    preamble = (
        "import os, signal\nfrom hullwright.scheduler.select import Scheduler\nselect = Scheduler.select\n"
        f"def dying(self, spec, tried, **more):\n    found = select(self, spec, tried, **more)\n    {kill}\n"
        "Scheduler.select = dying\n"
    )
    with house.conductor():
        first = _full(house)
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: _waits(house, uuid))
    house.delete(first)
    process = house.start_conductor(preamble if wakes else "")
    if wakes:
        assert process.wait(20) == -signal.SIGKILL
        assert _job(house, uuid).waits_for is not None
        house.start_conductor()
    house.wait(lambda: _is_active(house, uuid))
    house.rest()
    os.kill(house.processes[-1].pid, signal.SIGTERM)
    invariants.check(house)


def test_two_conductors_give_a_crowd_exactly_the_room_there_is(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1", vcpus=4)
    house.start_conductor()
    house.start_conductor()
    crowd = house.create(count=10, wait_seconds=LONG)
    house.wait(lambda: sum(_is_active(house, each) for each in crowd) == 4 and sum(_waits(house, each) for each in crowd) == 6)
    house.add_host("h2", vcpus=3)
    house.wait(lambda: sum(_is_active(house, each) for each in crowd) == 7)
    active = [each for each in crowd if _is_active(house, each)]
    for each in active[:3]:
        house.delete(each)
    house.wait(lambda: all(_is_active(house, each) for each in crowd if each not in active))
    house.rest()
    for process in house.processes:
        process.terminate()
    invariants.check(house)


