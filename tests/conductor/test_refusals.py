"""Hosts that answer and refuse to clean up (a process that hangs in the kernel, a lock that nobody gives back), and undos that cannot be
done at all: builds go on, deletes end, and whoever waits is told.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.flows.context import RunContext
from hullwright.flows.steps.teardown import LeaveHost
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import AttemptState, JobState, VmState
from hullwright.objects.volumes import Volume
from hullwright.persistence import allocations, attempts, events, faults, hosts, jobs, volumes
from hullwright.persistence.database import now
from support import invariants
from support.house import ASKER, House

BUSY = {"error": "HypervisorError", "reason": "cannot acquire state change lock"}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Two hosts, of which `h1` is preferred."""
    monkeypatch.setattr("hullwright.flows.leftovers.PAUSES_SECONDS", (0.02, 0.05))
    monkeypatch.setattr("hullwright.flows.leftovers.FIRST_TRY_SECONDS", 0.1)
    made = House(tmp_path, conductor={"poll_interval": 0.1})
    made.add_host("h1", memory_mb=3_000_000)
    made.add_host("h2")
    yield made
    made.close()


def _jobs(house: House, kind: str, *states: JobState) -> list[Any]:
    with house.db.read() as connection:
        return jobs.list_jobs(connection, kinds=[kind], states=states)


def test_a_host_that_cannot_undo_loses_the_build_counts_a_failure_and_is_cleaned_when_it_can(house: House) -> None:
    house.faults("h1", {"operation": "spawn", "when": "after", **BUSY}, {"operation": "destroy", **BUSY})
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        assert house.get(uuid).host == "h2"
        with house.db.read() as connection:
            first, _ = attempts.list_for(connection, house.build_of(uuid).uuid)
            assert hosts.get(connection, "h1").failed_builds == 1
            held = allocations.held_by(connection, uuid)
        assert (first.host, first.state, first.error) == ("h1", AttemptState.FAILED, "HypervisorError")
        assert held is not None
        # It is tried again and again, and says why.
        house.wait(lambda: any("state change lock" in (job.error or "") for job in _jobs(house, "clean_host")))
        assert _jobs(house, "clean_host", JobState.DONE) == []
        house.faults("h1")
        house.rest()
    assert len(_jobs(house, "clean_host", JobState.DONE)) == 1
    invariants.check(house, twins_on=["h1"])


def test_a_host_that_refused_once_is_asked_again_and_needs_no_cleaning(house: House) -> None:
    house.faults("h1", {"operation": "spawn", "when": "after", **BUSY}, {"operation": "destroy", "first": 2, **BUSY})
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
    assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h2")
    assert _jobs(house, "clean_host") == []
    invariants.check(house)


@pytest.mark.parametrize("operation", ["destroy", "disconnect"])
def test_a_delete_ends_for_its_user_though_the_host_refuses(house: House, operation: str) -> None:
    with house.conductor():
        (uuid,) = house.create(block_devices=(house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True),))
        house.rest()
        house.faults("h1", {"operation": operation, **BUSY})
        house.delete(uuid)
        house.wait(lambda: house.get(uuid).vm_state == VmState.DELETED)
        assert _jobs(house, "clean_host")
        house.faults("h1")
        house.rest()
    invariants.check(house)


def test_volumes_that_a_host_refuses_to_delete_are_deleted_later_and_the_others_now(house: House) -> None:
    devices = [house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True) for _ in range(2)]
    with house.conductor():
        (uuid,) = house.create(block_devices=tuple(devices))
        house.rest()
        house.faults("h1", {"operation": "delete_volume", "uuid": devices[0].volume_id, **BUSY})
        house.delete(uuid)
        house.wait(lambda: house.get(uuid).vm_state == VmState.DELETED)
        with house.db.read() as connection:
            assert [volume.id for volume in volumes.list_all(connection)] == [devices[0].volume_id]
        house.faults("h1")
        house.rest()
    with house.db.read() as connection:
        assert volumes.list_all(connection) == []
    invariants.check(house)


def test_a_late_release_of_a_build_that_was_undone_spares_what_its_user_gave(house: House) -> None:
    """Though it is marked to go with the server, for there never was one; and though nothing of the release was done the first time."""
    mine = Volume("00000005-0000-4000-8000-000000000000", "mine", 1, project_id="p", user_id="u", created_at=now())
    with house.db.write() as connection:
        volumes.create(connection, mine)
    given = house.request_volume(volume_id=mine.id, delete_on_termination=True)
    made = house.request_volume(source_type="blank", size_gb=1)
    house.faults("h1", {"operation": "spawn", **BUSY}, {"operation": ["disconnect", "delete_volume"], "error": "HypervisorUnavailable"})
    with house.conductor():
        (uuid,) = house.create(block_devices=(given, made), max_attempts=1)
        house.wait(lambda: house.get(uuid).vm_state == VmState.ERROR)
        (late,) = _jobs(house, "release_instance")
        assert late.inputs == {"instance_uuid": uuid, "undo": True}
        house.faults("h1")
        house.rest()
    with house.db.write() as connection:
        volumes.reserve(connection, uuid, "p", "u", [given])  # as if the release had been given up before it began
        jobs.post(connection, kind="release_instance", instance_uuid=None, inputs=dict(late.inputs))
    with house.conductor():
        house.rest()
    with house.db.read() as connection:
        assert [(volume.id, volume.status) for volume in volumes.list_all(connection)] == [(mine.id, "available")]


@pytest.mark.parametrize("max_attempts", [2, 1], ids=["built-elsewhere", "failed"])
def test_bytes_that_a_host_made_and_could_not_tell_are_deleted_there_in_the_end(house: House, max_attempts: int) -> None:
    silent = {"error": "HypervisorUnavailable"}
    house.faults("h1", {"operation": "create_volume", "when": "after", **silent}, {"operation": ["disconnect", "delete_volume"], **silent})
    with house.conductor():
        (uuid,) = house.create(block_devices=(house.request_volume(source_type="blank", size_gb=1),), max_attempts=max_attempts)
        house.wait(lambda: house.get(uuid).vm_state == (VmState.ACTIVE if max_attempts == 2 else VmState.ERROR))
        assert len(_bytes(house, "h1")) == 1
        house.faults("h1")
        house.rest()
    assert _bytes(house, "h1") == []
    assert len(_bytes(house, "h2")) == max_attempts - 1
    invariants.check(house, twins_on=["h1"])


def _bytes(house: House, host: str) -> list[str]:
    return list(FakeHost(HostRef(host, f"fake://{host}", "fake"), house.directory).things.all("volumes"))


def test_a_late_cleaning_says_whether_files_that_hosts_share_are_wanted_elsewhere(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []
    destroy = FakeDriver.destroy

    def watched(driver: FakeDriver, uuid: str, *, lives_elsewhere: bool = False) -> None:
        told.append((driver.host.name, lives_elsewhere))
        destroy(driver, uuid, lives_elsewhere=lives_elsewhere)

    def clean(uuid: str) -> bool:
        told.clear()
        with house.db.write() as connection:
            job = jobs.post(connection, kind="clean_host", instance_uuid=None, inputs={"instance_uuid": uuid, "host": "h2"})
        house.wait(lambda: job in [done.uuid for done in _jobs(house, "clean_host", JobState.DONE)])
        ((host, lives_elsewhere),) = told
        assert host == "h2"
        return lives_elsewhere

    (between,) = house.create()  # no conductor takes its build up yet
    with house.db.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET not_before = 1e12")
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        monkeypatch.setattr(FakeDriver, "destroy", watched)
        assert clean(uuid), "it is on another host"
        assert clean(between), "its next host may have begun"
        house.delete(uuid)
        house.delete(between)
        house.rest()
        assert not clean(uuid), "it is deleted"


def test_a_late_cleaning_waits_until_it_is_known_whether_the_instance_stays(house: House) -> None:
    house.faults("h1", {"operation": "spawn", "hang": True})
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).task_state == "spawning")
        with house.db.write() as connection:
            job = jobs.post(connection, kind="clean_host", instance_uuid=None, inputs={"instance_uuid": uuid, "host": "h1"})
        house.wait(lambda: any("still being built" in (job.error or "") for job in _jobs(house, "clean_host", JobState.QUEUED)))
        with house.db.read() as connection:
            assert events.list_since(connection, job) == [], "a wait is no failure"
        house.faults("h1")
        house.rest()
    assert [job.error for job in _jobs(house, "clean_host", JobState.DONE)] == [None]
    assert house.get(uuid).vm_state == VmState.ACTIVE
    invariants.check(house)


def test_a_late_cleaning_is_not_over_before_the_delete_that_posted_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    leave, is_let_go = LeaveHost.execute, threading.Event()

    def leave_slowly(step: LeaveHost, run: RunContext) -> None:
        is_let_go.wait(20)
        leave(step, run=run)

    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        house.faults("h1", {"operation": "destroy", **BUSY})
        monkeypatch.setattr(LeaveHost, "execute", leave_slowly)
        house.delete(uuid)
        house.wait(lambda: any("being built or deleted" in (job.error or "") for job in _jobs(house, "clean_host")))
        house.faults("h1")
        is_let_go.set()
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    invariants.check(house, twins_on=["h1"])


# --- Undos that cannot be done ------------------------------------------------------------------------------------------


def _get_stuck(house: House) -> str:
    """A build whose undo fails for a reason that no host has."""
    house.faults("h1", {"operation": "spawn", "when": "after", **BUSY}, {"operation": "destroy", "error": "KeyError", "reason": "a defect"})
    (uuid,) = house.create(block_devices=(house.request_volume(source_type="blank", size_gb=1),))
    house.wait(lambda: house.build_of(uuid).state == JobState.STUCK)
    return uuid


def test_a_stuck_build_is_in_error_and_says_why_and_keeps_what_it_has(house: House) -> None:
    with house.conductor():
        uuid = _get_stuck(house)
    instance = house.get(uuid)
    assert (instance.vm_state, instance.task_state, instance.host) == (VmState.ERROR, None, "h1")
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
        assert allocations.held_by(connection, uuid) is not None
    assert fault is not None
    assert (fault.step, fault.host) == ("spawn", "h1")
    assert "h1" not in fault.message, "users are not told of hosts"
    assert house.build_of(uuid).uuid in fault.details
    assert "a defect" in fault.details
    assert "hullwright doctor --fix" in fault.hint


def test_a_stuck_build_is_deleted_like_any_server_and_nothing_of_it_stays(house: House) -> None:
    with house.conductor():
        uuid = _get_stuck(house)
        house.faults("h1")
        house.delete(uuid)
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    invariants.check(house)


def test_a_stuck_build_cannot_be_switched_on(house: House) -> None:
    with house.conductor():
        uuid = _get_stuck(house)
        house.client.reboot_server(uuid, ASKER, hard=True)
        house.rest()
    assert (house.get(uuid).vm_state, house.get(uuid).task_state) == (VmState.ERROR, None)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_build_that_is_parked_before_it_ran_is_in_error_unless_it_is_being_deleted(house: House, is_deleted: bool) -> None:
    house.conf.set_override("max_leases", 3, "conductor")
    (uuid,) = house.create()
    with house.db.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET leases = 3, started_at = 1")
    if is_deleted:
        house.delete(uuid)
    with house.conductor():
        house.rest()
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
    assert house.build_of(uuid).state == JobState.STUCK
    assert house.get(uuid).vm_state == (VmState.DELETED if is_deleted else VmState.ERROR)
    assert (fault is None) == is_deleted
