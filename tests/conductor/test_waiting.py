"""Builds that wait for room: their order, what starts them, what ends their wait, and what a crash does to it.

Over 400 lines: the queue's rules hold together or not at all, and each test plays them through from a full host.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor.service import Conductor
from hullwright.conductor.waiting_room import WaitingRoom
from hullwright.objects.builds import Attempt
from hullwright.objects.flavors import Flavor
from hullwright.objects.states import AttemptState, JobState, VmState
from hullwright.persistence import allocations, attempts, events, faults, hosts, waits
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.scheduler.select import Scheduler
from support import invariants
from support.house import FLAVOR, House

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


def _place(house: House, instance: str) -> tuple[int, int] | None:
    with house.db.read() as connection:
        place = waits.place(connection, house.build_of(instance))
    return None if place is None else (place.number, place.of)


def _events(house: House, instance: str, step: str = "select_host") -> list[str]:
    with house.db.read() as connection:
        return [event.to_state for event in events.list_since(connection, house.build_of(instance).uuid) if event.step == step]


def _is_active(house: House, instance: str) -> bool:
    return bool(house.get(instance).vm_state == VmState.ACTIVE)


def _allocate(house: House, instance: str, host: str = "h1") -> None:
    """Somebody else takes one server's room."""
    with house.db.write() as connection:
        host_id = hosts.get(connection, host).id
        allocations.claim(connection, instance_uuid=instance, host_id=host_id, resources=FLAVOR.resources(), job_uuid="job")


def _lose_first_claim(house: House, monkeypatch: pytest.MonkeyPatch, host: str = "h1") -> None:
    """Between the first choice of a host and its claim, another one takes the room there."""
    select, taken = Scheduler.select, []

    def slow(self: Scheduler, spec: Any, tried: Any, **more: Any) -> Any:
        found = select(self, spec, tried, **more)
        if not taken:
            taken.append(found)
            _allocate(house, "other", host)
        return found

    monkeypatch.setattr(Scheduler, "select", slow)


def _attempts(house: House, instance: str) -> list[Attempt]:
    with house.db.read() as connection:
        return attempts.list_for(connection, house.build_of(instance).uuid)


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
        house.wait(lambda: house.waits(second))
        assert house.get(second).vm_state == VmState.BUILDING
        house.delete(first)
        house.rest()
    assert _is_active(house, second)
    assert _events(house, second) == ["RUNNING", "WAITING", "RESUMED", "SUCCESS"]
    job = house.build_of(second)
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
            house.wait(functools.partial(house.waits, last))
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
        house.wait(lambda: house.waits(big))
        (equal,) = house.create(flavor=BIG, wait_seconds=LONG)
        house.wait(lambda: house.waits(equal))
        (small,) = house.create(wait_seconds=LONG)
        house.wait(lambda: house.waits(small))
        house.delete(first)
        house.wait(lambda: _is_active(house, small))
        house.add_host("h2", vcpus=3)
        house.wait(lambda: _is_active(house, big))
        assert house.waits(equal)
        house.delete(equal)
        house.rest()
    invariants.check(house)


def _wait_unseen(house: House, conductor: Conductor, room: int) -> str:
    """A build that waits for a disabled host; nobody looks whether there is room any more."""
    house.add_host("h1", vcpus=room)
    with house.db.write() as connection:
        hosts.disable(connection, "h1", "being mended")
    (uuid,) = house.create(wait_seconds=LONG)
    house.wait(lambda: house.waits(uuid))
    conductor._waiting_room.stop()
    return uuid


def test_who_comes_later_does_not_pass_those_that_wait_for_the_same(house: House) -> None:
    """Room is there, and the first in the queue has not seen it yet: the next one joins the queue all the same."""
    with house.conductor() as conductor:
        first = _wait_unseen(house, conductor, room=2)
        with house.db.write() as connection:
            hosts.enable(connection, "h1")
        (second,) = house.create(wait_seconds=LONG)
        house.wait(lambda: house.waits(second))
        with house.db.read() as connection:
            told = events.list_since(connection, house.build_of(second).uuid)[-1].result
        assert told["reason"] == "Builds that were asked for before it wait for the same."
        assert conductor._waiting_room.look() == 2
        house.wakeup.poke()
        house.rest()
    assert house.states([first, second]) == {VmState.ACTIVE: 2}
    invariants.check(house)


def _queue_behind_one(house: House, room: int, **fields: Any) -> tuple[str, str, WaitingRoom]:
    """One build waits, then there is room for as many, and another is asked for that would not wait. Nobody has looked since."""
    with house.conductor() as conductor:
        first = _wait_unseen(house, conductor, room)
        conductor._waiting_room.look()
        with house.db.write() as connection:
            hosts.enable(connection, "h1")
        (second,) = house.create(**fields)
        house.wait(lambda: house.waits(second))
    return first, second, conductor._waiting_room


def _end_its_time(house: House, instance: str) -> None:
    with house.db.write() as connection:
        connection.execute(sa.update(jobs_table).where(jobs_table.c.instance_uuid == instance).values(not_before=1.0))


OTHERS = {"project_id": "q", "image_properties": {"os_distro": "debian"}, "flavor": dataclasses.replace(FLAVOR, id="9", name="own")}


@pytest.mark.parametrize("fields", [{}, OTHERS], ids=["the same", "another project's of the same size"])
def test_a_build_that_would_not_wait_stands_behind_those_that_do(house: House, fields: dict[str, Any]) -> None:
    first, second, room = _queue_behind_one(house, 1, **fields)
    assert (_place(house, first), _place(house, second)) == ((1, 2), (2, 2))
    assert room.look() == 1
    _end_its_time(house, second)
    with house.conductor():
        house.rest()
    assert _is_active(house, first)
    assert house.get(second).vm_state == VmState.ERROR
    with house.db.read() as connection:
        fault = faults.latest(connection, second)
    assert fault is not None
    assert fault.message.startswith("No valid host was found. ")
    assert "WAITING" in _events(house, second)
    assert house.build_of(second).waits_for is None
    invariants.check(house)


def test_a_build_that_would_not_wait_gets_no_room_that_nobody_saw_for_it_while_others_stand_before_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over, and there is room, for the first."""
    first, second, _ = _queue_behind_one(house, 1)
    _end_its_time(house, second)
    monkeypatch.setattr(WaitingRoom, "look", lambda room: 0)
    with house.conductor():
        house.wait(lambda: house.get(second).vm_state == VmState.ERROR)
        assert house.waits(first)
        with house.db.read() as connection:
            fault = faults.latest(connection, second)
        assert fault is not None
        assert fault.message == "No valid host was found. Builds that were asked for before it wait for the same."
        house.delete(first)
        house.rest()
    invariants.check(house)


def test_a_build_that_would_not_wait_is_built_beside_those_that_do_when_there_is_room_for_both(house: House) -> None:
    first, second, room = _queue_behind_one(house, 2)
    assert room.look() == 2
    with house.conductor():
        house.rest()
    assert house.states([first, second]) == {VmState.ACTIVE: 2}
    assert house.build_of(second).deadline_at <= time.time() + house.conf.conductor.build_timeout, "it stood still, no more"
    invariants.check(house)


def test_a_build_that_stood_behind_others_looks_for_room_when_they_are_gone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = _queue_behind_one(house, 1)
    _end_its_time(house, second)
    house.delete(first)
    monkeypatch.setattr(WaitingRoom, "look", lambda room: 0)
    with house.conductor():
        house.rest()
    assert house.states([first, second]) == {VmState.DELETED: 1, VmState.ACTIVE: 1}
    invariants.check(house)


def test_room_comes_with_a_host_that_is_added(house: House) -> None:
    with house.conductor():
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: house.waits(uuid))
        house.add_host("h1")
        house.wait(lambda: _is_active(house, uuid))
        house.rest()
    invariants.check(house)


def test_a_wait_ends_with_the_reasons_when_there_was_no_room_for_too_long(house_on_each: House) -> None:
    house = house_on_each
    with house.conductor():
        _full(house)
        (uuid,) = house.create(wait_seconds=1)
        house.rest()
    assert "WAITING" in _events(house, uuid)
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
        (attempt,) = attempts.list_for(connection, house.build_of(uuid).uuid)
    assert house.get(uuid).vm_state == VmState.ERROR
    assert fault is not None
    assert fault.message.startswith("No valid host was found. Waited 1 s for room. 0 of 1 host fit: ")
    assert (attempt.state, attempt.error) == (AttemptState.FAILED, "NoValidHost")
    assert house.build_of(uuid).waits_for is None
    invariants.check(house)


def test_who_did_not_ask_to_wait_fails_at_once(house: House) -> None:
    with house.conductor():
        _full(house)
        (uuid,) = house.create()
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert _events(house, uuid) == ["RUNNING", "FAILURE", "REVERTING", "REVERTED"]


def test_a_build_that_failed_on_every_host_does_not_wait(house: House) -> None:
    house.faults(
        "h1",
        {
            "operation": "spawn",
            "error": "HypervisorError",
        },
    )
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create(wait_seconds=LONG)
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert "WAITING" not in _events(house, uuid)


def test_a_build_that_failed_on_every_host_of_its_zone_does_not_wait(house: House) -> None:
    for name in ("h1", "h2", "h3", "h4"):
        house.faults(name, {"operation": "spawn", "error": "HypervisorError"})
        house.add_host(name)
    with house.db.write() as connection:
        connection.exec_driver_sql("UPDATE hosts SET availability_zone = 'west', home_zone = 'west' WHERE name IN ('h1', 'h2')")
        hosts.disable(connection, "h4", "it would be out of the zone if it were not")
    with house.conductor():
        (uuid,) = house.create(wait_seconds=LONG, availability_zone="west", max_attempts=5)
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert sorted(str(each.host) for each in _attempts(house, uuid) if each.host) == ["h1", "h2"]
    assert "WAITING" not in _events(house, uuid)


def test_a_build_that_failed_on_one_host_waits_for_another(house: House) -> None:
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError", "first": 1})
    house.add_host("h1", vcpus=50)
    with house.conductor():
        house.add_host("h2", vcpus=1)
        (other,) = house.create(force_host="h2")
        house.wait(lambda: _is_active(house, other))
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: house.waits(uuid))
        house.delete(other)
        house.wait(lambda: _is_active(house, uuid))
        house.rest()
    assert house.get(uuid).host == "h2"
    with house.db.read() as connection:
        made = attempts.list_for(connection, house.build_of(uuid).uuid)
    assert [(each.host, each.state) for each in made] == [("h1", AttemptState.FAILED), ("h2", AttemptState.SUCCEEDED)]
    invariants.check(house)


def test_a_delete_ends_a_wait(house_on_each: House) -> None:
    house = house_on_each
    with house.conductor():
        _full(house)
        (uuid,) = house.create(wait_seconds=LONG)
        house.wait(lambda: house.waits(uuid))
        house.delete(uuid)
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    assert house.build_of(uuid).waits_for is None
    invariants.check(house)


def test_the_build_time_stands_still_while_it_waits(tmp_path: Path) -> None:
    house = House(tmp_path, compute=EXACT, conductor={"build_timeout": 2.0})
    try:
        with house.conductor():
            first = _full(house)
            (uuid,) = house.create(wait_seconds=LONG)
            house.wait(lambda: house.waits(uuid))
            assert house.build_of(uuid).deadline_at > time.time() + LONG - 10
            time.sleep(2.5)
            house.delete(first)
            house.rest()
        assert _is_active(house, uuid)
        assert house.build_of(uuid).deadline_at < time.time() + 5
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
        house.wait(lambda: house.waits(uuid))
    house.delete(first)
    process = house.start_conductor(preamble if wakes else "")
    if wakes:
        assert process.wait(20) == -signal.SIGKILL
        assert house.build_of(uuid).waits_for is not None
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
    house.wait(lambda: sum(_is_active(house, each) for each in crowd) == 4 and sum(house.waits(each) for each in crowd) == 6)
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


@pytest.mark.parametrize("engine", ["serial", "parallel"])
def test_a_build_that_waited_at_its_claim_is_placed_by_what_is_known_then(
    tmp_path: Path, db_url: str, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """It lost its claim, found no other host and waited. What it had chosen before means nothing any more, and it leaves the queue."""
    house = House(tmp_path, db_url, compute=EXACT, conductor={"engine": engine})
    try:
        house.add_host("h1", vcpus=1)
        _lose_first_claim(house, monkeypatch)
        with house.conductor() as conductor:
            (uuid,) = house.create(wait_seconds=LONG)
            house.wait(lambda: house.waits(uuid))
            assert _events(house, uuid, "claim") == ["RUNNING", "WAITING"]
            conductor._waiting_room.stop()
            house.faults("h2", {"operation": "spawn", "hang": True})
            house.add_host("h2", vcpus=50)  # the better one by far
            with house.db.write() as connection:
                allocations.release(connection, "other")
            assert conductor._waiting_room.look() == 1
            house.wakeup.poke()
            house.wait(lambda: house.get(uuid).host is not None)
            invariants.check_placed(house)
            job = house.build_of(uuid)
            assert (job.state, job.waits_for, _place(house, uuid)) == (JobState.RUNNING, None, None)
            assert job.deadline_at < time.time() + house.conf.conductor.build_timeout + 10
            house.faults("h2")
            house.rest()
        assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h2")
        (attempt,) = _attempts(house, uuid)
        assert (attempt.report["chosen"], attempt.report["considered"], attempt.alternates) == ("h2", 2, ("h1",))
        assert _events(house, uuid, "claim") == ["RUNNING", "WAITING", "RESUMED", "SUCCESS"]
        invariants.check(house)
    finally:
        house.close()


@pytest.mark.parametrize("has_claimed", [False, True], ids=["before its claim", "after its claim"])
def test_a_crash_at_the_claim_leaves_no_stale_choice_and_no_lost_one(house_on_each: House, has_claimed: bool) -> None:
    house = house_on_each
    house.add_host("h1", vcpus=2)
    claim = "    claim(self, run, chosen, attempt)\n" if has_claimed else "    run.session.flush()\n"
    preamble = (
        "import os, signal\nfrom hullwright.flows.steps.placement import Claim\nclaim = Claim._claim\n"
        f"def dying(self, run, chosen, attempt):\n{claim}    os.kill(os.getpid(), signal.SIGKILL)\nClaim._claim = dying\n"
    )
    process = house.start_conductor(preamble)
    (uuid,) = house.create()
    assert process.wait(20) == -signal.SIGKILL
    assert _events(house, uuid) == ["RUNNING", "SUCCESS"]
    assert (house.get(uuid).host is not None) == has_claimed
    house.add_host("h2", vcpus=50)  # the better one by far
    with house.conductor():
        house.rest()
    assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h1" if has_claimed else "h2")
    invariants.check(house)


def test_a_server_that_was_to_be_on_one_host_waits_for_room_there(house: House) -> None:
    with house.conductor():
        first = _full(house)
        house.add_host("h2", vcpus=50)
        (no_time,) = house.create(force_host="h1")
        house.wait(lambda: house.get(no_time).vm_state == VmState.ERROR)
        (uuid,) = house.create(force_host="h1", wait_seconds=LONG)
        house.wait(lambda: house.waits(uuid))
        house.delete(first)
        house.rest()
    assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h1")
    with house.db.read() as connection:
        fault = faults.latest(connection, no_time)
    assert fault is not None
    assert fault.message.startswith("No valid host was found. 0 of 2 hosts fit: 1 not the host asked for, 1 lack 1 vCPU.")
    assert "1 vCPU asked, 0 free" in fault.details
    invariants.check(house)


@pytest.mark.parametrize("field", ["requested_host", "volume_host", "force_host"])
def test_a_server_that_failed_on_the_one_host_that_it_was_to_be_on_does_not_wait(house: House, field: str) -> None:
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError"})
    house.add_host("h1")
    house.add_host("h2")
    with house.conductor():
        (uuid,) = house.create(wait_seconds=LONG, **{field: "h1"})
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert "WAITING" not in _events(house, uuid)


def test_a_host_that_is_disabled_after_it_was_chosen_gets_no_build(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add_host("h1", vcpus=50)
    house.add_host("h2", vcpus=2)
    select, asked = Scheduler.select, []

    def slow(self: Scheduler, spec: Any, tried: Any, **more: Any) -> Any:
        found = select(self, spec, tried, **more)
        if not asked:
            with house.db.write() as connection:
                hosts.disable(connection, "h1", "being mended")
        asked.append(found.host)
        return found

    monkeypatch.setattr(Scheduler, "select", slow)
    with house.conductor():
        (uuid,) = house.create(max_attempts=1)
        house.rest()
    assert asked == ["h1", "h2"]
    assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h2")
    (attempt,) = _attempts(house, uuid)
    assert [(each["check"], each["count"]) for each in attempt.report["rejections"]] == [("compute_up", 1)]
    invariants.check(house)
