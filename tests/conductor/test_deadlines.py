"""Deadlines: a call that never comes back is given up, undone and moved; when it does come back it does no harm."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crash.scenarios import _NETWORK, _world
from hullwright.conductor.client import QueryFailed
from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.flows import context
from hullwright.objects import fence
from hullwright.objects.errors import ImageNotFound, LeaseLost
from hullwright.objects.guests import GuestSpec
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import AttemptState, JobState, VmState
from hullwright.objects.volumes import Volume
from hullwright.persistence import faults, hosts, jobs
from hullwright.persistence.database import DatabaseUnavailable
from support import invariants
from support.house import House


@pytest.fixture
def impatient(tmp_path: Path) -> Any:
    """A house whose steps may take two seconds: only those that hang take as long."""
    made = House(tmp_path, conductor={"step_timeout": 2.0, "step_timeouts": {}, "poll_interval": 0.1})
    yield made
    made.close()


@pytest.fixture
def patient(tmp_path: Path) -> Any:
    """A house whose steps may take a second and a half: many times what these here take between two signs of progress."""
    made = House(tmp_path, conductor={"step_timeout": 1.5, "step_timeouts": {}, "poll_interval": 0.1})
    yield made
    made.close()


def _hang(house: House, host: str, operation: str, **more: Any) -> None:
    house.faults(host, {"operation": operation, "hang": True, **more})


@pytest.mark.parametrize("operation", ["spawn", "ensure_image"])
def test_a_build_leaves_a_host_whose_call_never_comes_back(impatient: House, operation: str) -> None:
    house = impatient
    house.add_host("h1", memory_mb=3_000_000)  # preferred
    house.add_host("h2")
    _hang(house, "h1", operation, when="before")
    image = house.add_image() if operation == "ensure_image" else None
    with house.conductor():
        (uuid,) = house.create(image_id=image)
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        assert house.get(uuid).host == "h2"
        first, second = house.attempts_of(uuid)
        assert (first.host, first.state, first.error) == ("h1", AttemptState.FAILED, "HypervisorTimeout")
        assert "did not answer within" in first.reason
        assert second.host == "h2"
        house.faults("h1")  # the call comes back: what it makes there now is nobody's
        house.wait(lambda: _cleaned(house) == 1)
        house.rest()
    invariants.check(house, twins_on=["h1"])


def test_what_hung_beside_other_steps_is_cleaned_when_it_ends_and_not_when_they_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step hangs; another one beside it hears first that the job was taken, and stops."""
    house = House(tmp_path, conductor={"engine": "parallel", "step_timeouts": {"plug_network": 1.0}, "poll_interval": 0.1})
    plug, is_over, left = LocalNetworkDriver.plug, threading.Event(), threading.Event()

    def plug_late(driver: LocalNetworkDriver, host: HostRef, instance_uuid: str, hostname: str) -> Any:
        if host.name != "h1":
            return plug(driver, host, instance_uuid, hostname)
        assert is_over.wait(30)
        with fence.standing_behind(None):  # the host had the request before the job was taken, and carries it out now
            FakeHost(host, house.conf.state_path).things.make("plugs", instance_uuid, {"ports": []}, "plug")
        return []

    def ensure_image(*_args: Any, **_kwargs: Any) -> Any:
        try:
            return ensure(*_args, **_kwargs)
        except LeaseLost:
            left.set()
            raise

    ensure = FakeDriver.ensure_image
    monkeypatch.setattr(LocalNetworkDriver, "plug", plug_late)
    monkeypatch.setattr(FakeDriver, "ensure_image", ensure_image)
    try:
        _world(house, "h1", "h2")
        house.faults("h1", {"operation": "ensure_image", "when": "during", "delay": 0.2})
        with house.conductor():
            (uuid,) = house.create(image_id=house.add_image(size_bytes=10 << 20), networks=(house.request_port(_NETWORK),))
            house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
            assert left.wait(10)
            house.rest()
            is_over.set()
            house.wait(lambda: _cleaned(house) == 1)
            house.rest()
        invariants.check(house, twins_on=["h1"])
    finally:
        is_over.set()
        house.close()


def test_a_step_that_still_acts_when_the_database_has_gone_away_is_not_begun_again_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, conductor={"engine": "parallel", "poll_interval": 0.1})
    plug, ensure = LocalNetworkDriver.plug, FakeDriver.ensure_image
    at_it: list[int] = []
    most, asked = [0], []

    def plug_slowly(*args: Any) -> Any:
        at_it.append(1)
        most[0] = max(most[0], len(at_it))
        time.sleep(1.5)
        at_it.pop()
        return plug(*args)

    def ensure_image(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        if len(asked) == 1:
            raise DatabaseUnavailable(reason="away")
        return ensure(*args, **kwargs)

    monkeypatch.setattr(LocalNetworkDriver, "plug", plug_slowly)
    monkeypatch.setattr(FakeDriver, "ensure_image", ensure_image)
    try:
        _world(house, "h1")
        with house.conductor():
            (uuid,) = house.create(image_id=house.add_image(), networks=(house.request_port(_NETWORK),))
            house.rest()
        assert house.get(uuid).vm_state == VmState.ACTIVE
        assert most == [1]
        invariants.check(house)
    finally:
        house.close()


def _cleaned(house: House) -> int:
    with house.db.read() as connection:
        return len(jobs.list_jobs(connection, kinds=["clean_host"], states=[JobState.DONE]))


def test_an_undo_that_hangs_is_left_to_later_and_the_build_goes_on(impatient: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullwright.flows.leftovers.FIRST_TRY_SECONDS", 0.2)
    house = impatient
    house.add_host("h1", memory_mb=3_000_000)
    house.add_host("h2")
    house.faults("h1", {"operation": "spawn", "when": "after", "error": "HypervisorError"}, {"operation": "destroy", "hang": True})
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        assert house.get(uuid).host == "h2"
        house.faults("h1")
        house.rest()
    invariants.check(house, twins_on=["h1"])


def test_a_delete_whose_host_hangs_ends_for_its_user_at_once(impatient: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullwright.flows.leftovers.FIRST_TRY_SECONDS", 0.2)
    house = impatient
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        _hang(house, "h1", "destroy")
        house.delete(uuid)
        house.wait(lambda: house.get(uuid).vm_state == VmState.DELETED)
        house.faults("h1")
        house.rest()
    invariants.check(house, twins_on=["h1"])


def test_a_build_that_is_not_done_in_its_time_is_undone(tmp_path: Path) -> None:
    house = House(tmp_path, conductor={"build_timeout": 0.6, "poll_interval": 0.1})
    try:
        house.add_host("h1")
        house.faults("h1", {"operation": "spawn", "delay": 0.8})
        with house.conductor():
            (uuid,) = house.create()
            house.rest()
        assert house.get(uuid).vm_state == VmState.ERROR
        with house.db.read() as connection:
            fault = faults.latest(connection, uuid)
        assert fault is not None
        assert "did not end within" in fault.message
        invariants.check(house, twins_on=["h1"])
    finally:
        house.close()


@pytest.mark.parametrize("operation", ["plug", "connect"])
def test_a_call_that_hangs_when_the_builds_time_is_over_is_not_its_hosts_fault(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_DEADLINE_GRACE_SECONDS", 0.2)
    house = House(tmp_path, conductor={"build_timeout": 3.0, "poll_interval": 0.1})
    try:
        _world(house, "h1")
        _hang(house, "h1", operation)
        volume = house.request_volume(source_type="blank", size_gb=1)
        with house.conductor():
            (uuid,) = house.create(networks=(house.request_port(_NETWORK),), block_devices=(volume,))
            house.wait(lambda: house.get(uuid).vm_state == VmState.ERROR)
            (attempt,) = house.attempts_of(uuid)
            assert (attempt.host, attempt.error) == ("h1", "BuildTimedOut")
            with house.db.read() as connection:
                assert hosts.get(connection, "h1").failed_builds == 0
            house.faults("h1")
            house.wait(lambda: _cleaned(house) == 1)
            house.rest()
        invariants.check(house, twins_on=["h1"])
    finally:
        house.close()


def test_an_image_service_that_hangs_each_time_fails_the_build_and_blames_no_host(
    impatient: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, is_over, asked = impatient, threading.Event(), []

    def show(*_args: Any) -> Any:
        asked.append(1)
        is_over.wait(30)
        raise ImageNotFound(id="late")

    for name in ("h1", "h2", "h3"):
        house.add_host(name)
    image = house.add_image()
    monkeypatch.setattr(LocalImageDriver, "show", show)
    with house.conductor():
        (uuid,) = house.create(image_id=image, max_attempts=2)
        house.wait(lambda: house.get(uuid).vm_state == VmState.ERROR)
        assert len(asked) == 2, "once in each attempt"
        assert [attempt.error for attempt in house.attempts_of(uuid)] == ["ServiceTimeout"] * 2
        with house.db.read() as connection:
            assert [host.failed_builds for host in hosts.list_all(connection)] == [0, 0, 0]
        is_over.set()
        house.wait(lambda: _cleaned(house) == 2)
        house.rest()
    invariants.check(house, twins_on=["h1", "h2", "h3"])


def test_a_step_that_shows_progress_may_take_longer_than_its_limit(patient: House) -> None:
    house = patient
    house.add_host("h1")
    house.faults("h1", {"operation": "ensure_image", "when": "during", "delay": 0.2})  # after each of its chunks
    image = house.add_image(size_bytes=10 << 20)
    with house.conductor():
        began = time.monotonic()
        (uuid,) = house.create(image_id=image)
        house.rest()
        assert time.monotonic() - began > 1.6
    assert [attempt.state for attempt in house.attempts_of(uuid)] == [AttemptState.SUCCEEDED]


def test_progress_on_the_next_host_counts_from_its_own_beginning(patient: House) -> None:
    house = patient
    house.add_host("h1", memory_mb=3_000_000)
    house.add_host("h2")
    house.faults("h1", {"operation": "ensure_image", "when": "after", "error": "HypervisorError"})  # having sent all of it
    house.faults("h2", {"operation": "ensure_image", "when": "during", "delay": 0.2})
    with house.conductor():
        (uuid,) = house.create(image_id=house.add_image(size_bytes=10 << 20))
        house.rest()
    assert [(attempt.host, attempt.state) for attempt in house.attempts_of(uuid)] == [
        ("h1", AttemptState.FAILED),
        ("h2", AttemptState.SUCCEEDED),
    ]


@pytest.mark.parametrize("step", ["connect_volumes", "spawn"])
def test_volumes_and_disks_that_are_being_filled_show_progress(patient: House, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Two volumes, or a copied disk, for which two seconds are needed each and less is allowed without progress."""
    house = patient
    house.add_host("h1")
    fill, spawn = LocalVolumeDriver._make_bytes, FakeDriver.spawn

    def slowly(progress: Any) -> None:
        for done in range(1, 11):
            time.sleep(0.2)
            progress(done, 10)

    def fill_slowly(driver: LocalVolumeDriver, host: HostRef, volume: Volume, progress: Any) -> Any:
        slowly(progress)
        return fill(driver, host, volume, progress)

    def spawn_slowly(driver: FakeDriver, guest: GuestSpec, progress: Any) -> None:
        slowly(progress)
        spawn(driver, guest, progress)

    if step == "spawn":
        monkeypatch.setattr(FakeDriver, "spawn", spawn_slowly)
    else:
        monkeypatch.setattr(LocalVolumeDriver, "_make_bytes", fill_slowly)
    devices = tuple(house.request_volume(source_type="blank", size_gb=1) for _ in range(2))
    with house.conductor():
        (uuid,) = house.create(block_devices=devices)
        house.rest()
    assert [attempt.state for attempt in house.attempts_of(uuid)] == [AttemptState.SUCCEEDED]


def test_a_question_to_a_host_that_hangs_is_answered_with_the_cause(impatient: House) -> None:
    house = impatient
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        _hang(house, "h1", "console_log")
        with pytest.raises(QueryFailed, match="did not answer"):
            house.client.query("console_log", uuid, {}, 10)
        house.faults("h1")
