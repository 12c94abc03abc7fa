"""The waiting room by itself: whom a look wakes, when there is room for some of those that wait."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor import waiting_room
from hullwright.conductor.waiting_room import WaitingRoom
from hullwright.flows.context import Shared
from hullwright.objects.flavors import Flavor
from hullwright.persistence import hosts
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.scheduler import snapshot
from hullwright.scheduler.select import Scheduler
from support.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house whose host has room for one small server, and is disabled: whoever may wait does."""
    made = House(tmp_path, compute={"cpu_allocation_ratio": 1.0})
    made.add_host("h1", vcpus=1)
    with made.db.write() as connection:
        hosts.disable(connection, "h1", "being mended")
    yield made
    made.close()


@pytest.fixture
def open_room(house: House) -> Iterator[Callable[[], WaitingRoom]]:
    """Opens rooms, as conductors have them: each with a scheduler of its own, and nobody who leases what is woken."""
    drivers = house.drivers()
    yield lambda: WaitingRoom(Shared(house.db, drivers, Scheduler(house.db, house.conf), house.conf), house.wakeup)
    drivers.close()


def _queue(house: House, *asked: dict[str, Any]) -> list[str]:
    """Have builds wait, one behind the other; then the host is enabled."""
    made = []
    with house.conductor() as conductor:
        conductor._waiting_room.stop()
        for fields in asked:
            made += house.create(wait_seconds=600, **fields)
            house.wait(functools.partial(house.waits, made[-1]))
    with house.db.write() as connection:
        hosts.enable(connection, "h1")
    return made


def _woken(house: House, queue: list[str]) -> list[int]:
    """Places, from 0, of those that were woken."""
    return [number for number, instance in enumerate(queue) if house.build_of(instance).not_before == 0.0]


def _wait_on(house: House, instance: str) -> None:
    """As if it had looked for room, and found none."""
    with house.db.write() as connection:
        connection.execute(sa.update(jobs_table).where(jobs_table.c.instance_uuid == instance).values(not_before=time.time() + 600))


def test_more_kinds_of_requests_than_one_look_has_time_for_keep_none_from_its_room(
    house: House, open_room: Callable[[], WaitingRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_room, "_MANY", 2)
    large = [{"flavor": Flavor(id="2", name="large", vcpus=number, memory_mb=512, root_gb=1)} for number in range(2, 7)]
    queue = _queue(house, *large, {}, {"flavor": Flavor(id="3", name="larger", vcpus=9, memory_mb=512, root_gb=1)})
    room = open_room()
    assert [room.look() for _ in range(3)] == [0, 0, 1]
    assert _woken(house, queue) == [5]
    seen = []
    monkeypatch.setattr(room, "_has_room", lambda waiter, _tried: seen.append(waiter.job_uuid))
    for _ in range(3):
        room.look()
    ids = [house.build_of(each).uuid for each in queue]
    assert seen == [ids[6], *ids[:4]], "then it comes to the end, and begins anew"


def test_who_was_woken_in_vain_is_not_passed_while_it_rests_for_seconds(
    house: House, open_room: Callable[[], WaitingRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "IN_FLIGHT_SECONDS", 0.0)  # what a look chose does not count in the next one
    house.conf.set_override("snapshot_max_age_seconds", 60.0, "scheduler")  # but to the end of its own, however long it takes
    for name in ("FIRST_REST_SECONDS", "HOLD_SECONDS"):
        monkeypatch.setattr(waiting_room, name, 30.0)
    queue, room = _queue(house, {}, {}), open_room()
    assert (room.look(), _woken(house, queue)) == (1, [0])
    _wait_on(house, queue[0])
    assert (room.look(), _woken(house, queue)) == (0, [])
    room._rests = {key: dataclasses.replace(rest, until=time.monotonic()) for key, rest in room._rests.items()}  # it has rested
    assert (room.look(), _woken(house, queue)) == (1, [0])
    _wait_on(house, queue[0])
    monkeypatch.setattr(waiting_room, "HOLD_SECONDS", 0.0)
    assert (room.look(), _woken(house, queue)) == (1, [1]), "it may rest for longer than the others are kept back"


def test_two_rooms_wake_one_build_for_one_place(house: House, open_room: Callable[[], WaitingRoom]) -> None:
    queue, first, second = _queue(house, {}, {}), open_room(), open_room()
    assert (first.look(), second.look(), _woken(house, queue)) == (1, 0, [0])
    house.add_host("h2", vcpus=1)
    assert (second.look(), first.look(), _woken(house, queue)) == (1, 0, [0, 1])


def test_a_filter_that_fails_for_one_build_keeps_no_other_from_its_room(
    house: House, open_room: Callable[[], WaitingRoom], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue, room = _queue(house, {"scheduler_hints": {"colour": "green"}}, {}), open_room()
    select = Scheduler.select

    def failing(self: Scheduler, spec: Any, tried: Any, **more: Any) -> Any:
        if spec.scheduler_hints:
            raise KeyError("colour")
        return select(self, spec, tried, **more)

    monkeypatch.setattr(Scheduler, "select", failing)
    with caplog.at_level(logging.ERROR):
        assert (room.look(), room.look(), _woken(house, queue)) == (1, 0, [1])
    assert [record.message for record in caplog.records] == [
        f"Job {house.build_of(queue[0]).uuid}: whether there is room for it could not be found out"
    ], "it is not asked for again at once"
