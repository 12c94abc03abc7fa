"""What happens to work just as something else ends it: a process, its time, whoever asked for it, the threads that there are."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor.client import QueryTimedOut
from hullwright.conductor.service import Conductor
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.flows.steps.activate import Activate
from hullwright.objects.states import AttemptState, JobState, VmState
from hullwright.persistence import conductors, job_repairs, jobs, waits
from hullwright.persistence.database import DatabaseUnavailable
from hullwright.persistence.models.jobs import jobs as jobs_table
from support import invariants
from support.house import House

# Dies when the build is done and on record as such, before its job has ended.
DIES_WHEN_ACTIVE = f"""
import functools, os
from {Activate.__module__} import Activate
inner = Activate.execute
@functools.wraps(inner)
def execute(self, *args, **kwargs):
    inner(self, *args, **kwargs)
    os._exit(9)
Activate.execute = execute
"""


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[House]:
    """A house whose steps may take two seconds: only those that hang take as long."""
    made = House(tmp_path, conductor={"step_timeout": 2.0, "step_timeouts": {}, "poll_interval": 0.05, "retry_interval": 0.1})
    yield made
    made.close()


def _change(house: House, instance: str, **values: Any) -> None:
    with house.db.write() as connection:
        connection.execute(sa.update(jobs_table).where(jobs_table.c.instance_uuid == instance).values(**values))


def test_a_build_whose_time_ran_out_after_it_was_done_stays_done(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    process = house.start_conductor(DIES_WHEN_ACTIVE)
    (uuid,) = house.create(block_devices=(house.request_volume(source_type="blank", size_gb=1),))
    house.wait(lambda: process.poll() is not None)
    assert (house.get(uuid).vm_state, house.build_of(uuid).state) == (VmState.ACTIVE, JobState.RUNNING)
    _change(house, uuid, deadline_at=time.time() - 60)
    with house.conductor():
        house.rest()
    assert house.build_of(uuid).state == JobState.DONE
    assert house.get(uuid).vm_state == VmState.ACTIVE
    invariants.check(house)


def test_a_hung_call_is_blamed_on_its_own_host_though_the_database_goes_away_later(
    impatient: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = impatient
    house.add_host("h1", memory_mb=3_000_000)  # preferred
    house.add_host("h2")
    house.faults("h1", {"operation": "spawn", "hang": True})
    inner, met = FakeDriver.spawn, []

    def spawn(driver: FakeDriver, *args: Any, **kwargs: Any) -> None:
        if driver.host.name == "h2" and not met:
            met.append("h2")
            raise DatabaseUnavailable(reason="it is restarted")
        inner(driver, *args, **kwargs)

    monkeypatch.setattr(FakeDriver, "spawn", spawn)
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        house.faults("h1")
        house.rest()
    assert met == ["h2"]
    assert [(it.host, it.state) for it in house.attempts_of(uuid)] == [("h1", AttemptState.FAILED), ("h2", AttemptState.SUCCEEDED)]


def test_a_job_for_which_there_was_no_thread_is_taken_up_when_there_is_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add_host("h1")
    inner, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("job-") and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        inner(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with house.conductor():
        made = house.create(3)
        house.rest()
    assert len(refused) == 2
    assert house.states(made) == {VmState.ACTIVE: 3}


@pytest.mark.parametrize("act", [lambda connection, uuid: job_repairs.give_up(connection, uuid, "why"), job_repairs.cancel])
def test_a_build_that_is_ended_by_an_operator_waits_for_nothing_any_more(house: House, act: Any) -> None:
    (uuid,) = house.create()
    job = house.build_of(uuid)
    _change(house, uuid, waits_for="room", waiting_since=1.0, not_before=1e12)
    with house.db.write() as connection:
        assert waits.awaited(connection)
        act(connection, job.uuid)
        assert not waits.awaited(connection)
        assert waits.next_of(connection, "room", 0) is None


def test_an_answer_that_comes_too_late_is_kept_nowhere(house: House) -> None:
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        house.faults("h1", {"operation": "console_log", "delay": 1.0})
        with pytest.raises(QueryTimedOut):
            house.client.query("console_log", uuid, {}, 0.4)
        house.rest()
    with house.db.read() as connection:
        assert jobs.list_jobs(connection, kinds=["console_log"]) == []


@pytest.fixture
def left(tmp_path: Path) -> Iterator[tuple[House, str]]:
    """A house where a build was begun by a version that there is no more."""
    made = House(tmp_path, conductor={"unknown_job_seconds": 0.2, "poll_interval": 0.05})
    yield made, made.create_by_version(99)
    made.close()


def _enlist(house: House, version: str) -> None:
    with house.db.write() as connection:
        conductors.enlist(connection, id=version, hostname="elsewhere", pid=1, version=version, lease_seconds=600)


def test_a_delete_does_not_wait_for_a_version_that_never_takes_its_build(left: tuple[House, str]) -> None:
    house, uuid = left
    _enlist(house, "98.0")
    with house.conductor():
        house.wait(lambda: house.build_of(uuid).fence >= 4)  # passed on again and again
        assert house.build_of(uuid).state != JobState.STUCK
        house.delete(uuid)
        house.wait(lambda: house.get(uuid).vm_state == VmState.DELETED)
    with house.db.write() as connection:
        conductors.retire(connection, "98.0")
    invariants.check(house)


def test_who_only_uses_the_jobboard_is_no_version_to_wait_for(left: tuple[House, str]) -> None:
    house, uuid = left
    _enlist(house, conductors.JOBBOARD_VERSION)
    with house.conductor():
        house.wait(lambda: house.build_of(uuid).state == JobState.STUCK)
    assert "build_instance_v99" in str(house.build_of(uuid).error)


def _driven(conductor: Conductor) -> list[str]:
    """The kinds of the jobs that it drives."""
    return [drive.job.kind for drive in [*conductor._driving.values()]]


def test_a_host_on_which_cleanings_hang_takes_few_places(tmp_path: Path) -> None:
    house = House(tmp_path, conductor={"max_concurrent_jobs": 4, "poll_interval": 0.05, "retry_interval": 0.1})
    try:
        house.add_host("h1", memory_mb=3_000_000)  # preferred
        house.add_host("sick")
        house.faults("sick", {"operation": "destroy", "hang": True})
        with house.db.write() as connection:
            for _ in range(12):
                inputs = {"instance_uuid": str(uuid.uuid4()), "host": "sick"}
                jobs.post(connection, kind="clean_host", instance_uuid=None, inputs=inputs, rank=jobs.RANK_CLEANING)
        with house.conductor() as conductor:
            house.wait(lambda: conductor._driving)
            made = house.create(6)
            house.wait(lambda: house.states(made) == {VmState.ACTIVE: 6})
            assert _driven(conductor).count("clean_host") == 1, "one of four places"
            house.wait(lambda: "build_instance" not in _driven(conductor))  # servers are ACTIVE a moment before their builds have ended
            assert _driven(conductor) == ["clean_host"], "and no more of them when nothing else is there to do"
            house.faults("sick")
            house.rest()
        with house.db.read() as connection:
            cleanings = jobs.list_jobs(connection, kinds=["clean_host"])
        assert [job.state for job in cleanings] == [JobState.DONE] * 12
    finally:
        house.faults("sick")
        house.close()


def test_a_volume_whose_deletion_hangs_keeps_no_build_from_its_end(impatient: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullwright.flows.leftovers.FIRST_TRY_SECONDS", 0.2)
    house = impatient
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError"}, {"operation": "delete_volume", "hang": True})
    with house.conductor():
        (server,) = house.create(block_devices=(house.request_volume(source_type="blank", size_gb=1),))
        house.wait(lambda: house.get(server).vm_state == VmState.ERROR)
        house.faults("h1")
        house.rest()
        house.delete(server)
        house.rest()
    invariants.check(house, twins_on=["h1"])


def test_a_build_that_is_released_late_has_the_time_that_it_had(house: House) -> None:
    house.add_host("h1")
    (server,) = house.create()
    _change(house, server, state=JobState.STUCK, finished_at=time.time() - 5000, deadline_at=time.time() - 4000, started_at=1.0)
    with house.db.write() as connection:
        job_repairs.release(connection, house.build_of(server).uuid)
    with house.conductor():
        house.rest()
    assert house.get(server).vm_state == VmState.ACTIVE
