"""Builds and deletes driven by a conductor on fake hosts: states, attempts, faults, history, what is left."""

from typing import Any

import orjson
import pytest

from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.objects.errors import ImageInUse
from hullwright.objects.guests import GuestSpec
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import AttemptState, JobState, VmState
from hullwright.persistence import aggregates, allocations, events, faults, hosts, images, jobs, volumes
from support.house import House


def _events(house: House, instance: str) -> Any:
    with house.db.read() as connection:
        return events.list_since(connection, house.build_of(instance).uuid)


def _used(house: House) -> int:
    with house.db.read() as connection:
        return sum(room.used for rooms in hosts.list_inventories(connection).values() for room in rooms)


def _guests(house: House, *names: str) -> list[str]:
    found = []
    drivers = house.drivers()
    with house.db.read() as connection:
        refs = [hosts.get(connection, name) for name in names]
    for host in refs:
        found += [guest.uuid for guest in drivers.virt(HostRef(host.name, host.uri, host.driver)).guests()]
    drivers.close()
    return found


def _errors(house: House, kind: str) -> list[str]:
    """Why jobs of that kind failed the last time."""
    with house.db.read() as connection:
        return [job.error for job in jobs.list_jobs(connection, kinds=[kind]) if job.error is not None]


def test_a_build_ends_active_with_one_guest_and_one_claim(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
    instance = house.get(uuid)
    assert (instance.vm_state, instance.task_state, instance.power_state, instance.host) == (VmState.ACTIVE, None, 1, "h1")
    assert instance.launched_at is not None
    assert _guests(house, "h1") == [uuid]
    with house.db.read() as connection:
        held = allocations.held_by(connection, uuid)
    assert held is not None
    assert house.build_of(uuid).state == JobState.DONE


def test_history_has_no_gaps_and_every_success_was_preceded_by_running(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
    told = _events(house, uuid)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    running = set()
    for event in told:
        if event.to_state == "RUNNING":
            running.add(event.step)
        elif event.to_state == "SUCCESS":
            assert event.step in running
    assert {event.host for event in told if event.step == "spawn"} == {"h1"}


def test_a_failing_host_is_undone_and_the_build_lands_on_another(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    house.add_host("h2")
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError", "reason": "no QEMU here"})
    house.faults("h2", {"operation": "spawn", "nth": 99, "error": "HypervisorError"})
    with house.conductor():
        uuids = house.create(4)
        house.rest()
    assert {house.get(uuid).host for uuid in uuids} == {"h2"}
    assert _guests(house, "h1") == []
    assert sorted(_guests(house, "h2")) == sorted(uuids)
    moved = [uuid for uuid in uuids if len(house.attempts_of(uuid)) == 2]
    assert moved
    first, second = house.attempts_of(moved[0])
    assert (first.state, first.host, first.step, first.error) == (AttemptState.FAILED, "h1", "spawn", "HypervisorError")
    assert "no QEMU here" in first.reason
    assert (second.state, second.host) == (AttemptState.SUCCEEDED, "h2")
    undone = [e.step for e in _events(house, moved[0]) if e.to_state == "REVERTED" and e.attempt == 1]
    assert undone[0] == "spawn"
    assert undone[-2:] == ["claim", "select_host"]
    assert _used(house) == 4 * (1 + 512 + 1)


def test_all_attempts_failing_gives_a_fault_that_tells_each_in_order_and_leaves_nothing(house_on_each: House) -> None:
    house = house_on_each
    for name in ("h1", "h2", "h3", "h4"):
        house.add_host(name)
        house.faults(name, {"operation": "spawn", "error": "HypervisorError", "reason": f"broken {name}"})
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
    instance = house.get(uuid)
    assert (instance.vm_state, instance.task_state, instance.host) == (VmState.ERROR, None, None)
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
    assert fault is not None
    made = house.attempts_of(uuid)
    assert len(made) == 3
    places = [fault.details.index(f"Attempt {a.number} on host {a.host} failed at spawn") for a in made]
    assert places == sorted(places)
    assert all(f"broken {a.host}" in fault.details for a in made)
    assert fault.message.startswith("Exceeded maximum number of retries.")
    assert (_used(house), _guests(house, "h1", "h2", "h3", "h4")) == (0, [])
    assert house.build_of(uuid).state == JobState.REVERTED


def test_an_error_that_no_host_would_mend_ends_the_build_at_once(house: House) -> None:
    house.add_host("h1")
    house.add_host("h2")
    for name in ("h1", "h2"):
        house.faults(name, {"operation": "spawn", "error": "ImageUnacceptable", "reason": "bad bytes"})
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    assert [a.error for a in house.attempts_of(uuid)] == ["ImageUnacceptable"]
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
        failed = [host.failed_builds for host in hosts.list_all(connection)]
    assert fault is not None
    assert fault.code == 400
    assert failed == [0, 0], "a bad image does not count against a host"


def test_no_room_tells_users_counts_and_advice_and_admins_names(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1", memory_mb=700)
    house.add_host("h2", memory_mb=900)
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
    assert fault is not None
    assert fault.message == (
        "No valid host was found. 0 of 2 hosts fit: 2 lack 512 MB memory. "
        "The largest of these hosts has 388 MB memory: ask for less, or have a larger one added."
    )
    assert "h1: 512 MB memory asked, 188 free of 188 (188 x 1); h2: 512 MB memory asked, 388 free of 388 (388 x 1)." in fault.details
    (made,) = house.attempts_of(uuid)
    assert made.report["considered"] == 2


def test_a_failed_build_counts_against_its_host_and_a_good_one_clears_it(house: House) -> None:
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "first": 1, "error": "HypervisorError"})
    with house.conductor():
        house.create()
        house.rest()
        with house.db.read() as connection:
            assert hosts.get(connection, "h1").failed_builds == 1
        house.create()
        house.rest()
    with house.db.read() as connection:
        assert hosts.get(connection, "h1").failed_builds == 0


def test_delete_leaves_nothing(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        house.delete(uuid)
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    assert (_used(house), _guests(house, "h1")) == (0, [])


def test_delete_of_a_build_that_nobody_drives_yet_needs_no_build(house: House) -> None:
    house.add_host("h1")
    (uuid,) = house.create()
    house.delete(uuid)
    with house.conductor():
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    assert house.build_of(uuid).state == JobState.CANCELLED
    assert _events(house, uuid) == []


def test_delete_during_a_build_wins_quietly(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "hang": True})
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).task_state == "spawning")
        house.delete(uuid)
        house.delete(uuid)
        house.faults("h1")
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    assert (_used(house), _guests(house, "h1")) == (0, [])
    with house.db.read() as connection:
        assert faults.latest(connection, uuid) is None, "the user asked for it: no fault"
        assert hosts.get(connection, "h1").failed_builds == 0


def test_delete_with_the_host_silent_ends_and_the_host_is_cleaned_when_it_is_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullwright.flows.leftovers.FIRST_TRY_SECONDS", 0.3)
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        house.faults("h1", {"operation": "*", "error": "HypervisorUnavailable", "reason": "down"})
        house.delete(uuid)
        house.wait(lambda: house.get(uuid).vm_state == VmState.DELETED)
        house.wait(lambda: _errors(house, "clean_host"))
        assert list(FakeHost(HostRef("h1", "fake://h1", "fake"), house.directory).things.all("guests")) == [uuid]
        house.faults("h1")
        house.rest()
        assert _guests(house, "h1") == []


def test_a_delete_that_fails_is_tried_until_it_ends(house: House) -> None:
    house.add_host("h1")
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        house.faults("h1", {"operation": "destroy", "first": 2, "error": "HypervisorError", "reason": "busy"})
        house.delete(uuid)
        house.rest()
    assert house.get(uuid).vm_state == VmState.DELETED
    assert _guests(house, "h1") == []


def test_stopping_lets_the_step_under_way_end_and_hands_the_rest_back(house: House) -> None:
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "hang": True})
    with house.conductor() as conductor:
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).task_state == "spawning")
        conductor.stop()
        house.faults("h1")
    job = house.build_of(uuid)
    assert (job.state, job.owner, job.leases) == (JobState.QUEUED, None, 0)
    assert _guests(house, "h1") == [uuid]
    with house.conductor():
        house.rest()
    assert house.get(uuid).vm_state == VmState.ACTIVE
    assert [e.to_state for e in _events(house, uuid) if e.step == "spawn"] == ["RUNNING", "SUCCESS"], "what was done is not done again"


def test_the_parallel_engine_builds_the_same(house: House) -> None:
    house.conf.set_override("engine", "parallel", "conductor")
    house.add_host("h1")
    house.add_host("h2")
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError"})
    with house.conductor():
        uuids = house.create(6)
        house.rest()
    assert {house.get(uuid).host for uuid in uuids} == {"h2"}
    assert sorted(_guests(house, "h1", "h2")) == sorted(uuids)


def test_a_guest_and_its_record_are_in_the_zone_of_the_host_that_it_came_to(house_on_each: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = house_on_each
    spawned: list[GuestSpec] = []
    really_spawn = FakeDriver.spawn

    def spawn(driver: FakeDriver, guest: GuestSpec, *told: Any) -> None:
        spawned.append(guest)
        really_spawn(driver, guest, *told)

    monkeypatch.setattr(FakeDriver, "spawn", spawn)
    house.add_host("h1", vcpus=2000)
    house.add_host("h2")
    with house.db.write() as connection:
        aggregates.set_home_zone(connection, "h1", "west")
        aggregates.set_home_zone(connection, "h2", "east")
    for name in ("h1", "h2"):
        house.faults(name, {"operation": "spawn", "error": "HypervisorError"})
    with house.conductor():
        (uuid,) = house.create(config_drive=True)
        house.rest()
    told = [orjson.loads((guest.config_drive_files or {})["openstack/latest/meta_data.json"])["availability_zone"] for guest in spawned]
    assert sorted(told) == ["east", "west"]  # one attempt on each
    assert house.get(uuid).availability_zone is None  # it asked for none, and no host has it
    for name in ("h1", "h2"):
        house.faults(name)
    with house.conductor():
        (uuid,) = house.create(config_drive=True)
        house.rest()
    instance = house.get(uuid)
    assert (instance.vm_state, instance.availability_zone) == (VmState.ACTIVE, {"h1": "west", "h2": "east"}[str(instance.host)])


def test_attachments_tell_the_names_that_the_guest_gives_its_volumes(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    devices = (
        house.request_volume(source_type="blank", size_gb=1),
        house.request_volume(source_type="blank", size_gb=1, device_name="/dev/vdc"),
        house.request_volume(source_type="blank", size_gb=1),
    )
    with house.conductor():
        (uuid,) = house.create(block_devices=devices)
        house.rest()
    with house.db.read() as connection:
        found = {attachment.id: attachment.device for attachment in volumes.of_instance(connection, uuid)}
    assert [found[device.attachment_id] for device in devices] == ["/dev/vdb", "/dev/vdc", "/dev/vdd"]


def test_a_build_goes_to_the_host_that_has_its_volume_though_others_have_more_room(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h0")
    for number in range(1, 6):  # more than a build has attempts
        house.add_host(f"h{number}", memory_mb=8_000_000)
    blank = house.request_volume(source_type="blank", size_gb=1)
    with house.conductor():
        (first,) = house.create(block_devices=(blank,), force_host="h0")
        house.rest()
        house.delete(first)
        house.rest()
        with house.db.read() as connection:
            kept = volumes.get(connection, blank.volume_id)
        assert (kept.status, kept.host) == ("available", "h0")
        (lost,) = house.create(block_devices=(house.request_volume(volume_id=kept.id),))
        house.rest()
        (found,) = house.create(block_devices=(house.request_volume(volume_id=kept.id),), volume_host=kept.host)
        house.rest()
    assert house.get(lost).vm_state == VmState.ERROR, "what comes of it when the request does not say"
    assert [attempt.error for attempt in house.attempts_of(lost)] == ["VolumeElsewhere"] * 3
    assert (house.get(found).vm_state, house.get(found).host) == (VmState.ACTIVE, "h0")


def test_a_build_whose_image_has_vanished_is_tried_nowhere_else(house: House) -> None:
    for name in ("h1", "h2", "h3"):
        house.add_host(name)
    image_id = house.add_image()
    with house.conductor():
        (uuid,) = house.create(image_id=image_id, image_properties={"kernel_id": "1b0b7a9e-8d6c-4f6a-9c55-000000000000"})
        house.rest()
    [attempt] = house.attempts_of(uuid)
    assert (attempt.state, attempt.step, attempt.error) == (AttemptState.FAILED, "fetch_image", "ImageNotFound")
    with house.db.read() as connection:
        assert all(host.failed_builds == 0 for host in hosts.list_all(connection))


@pytest.mark.parametrize("role", ["kernel_id", "ramdisk_id"])
def test_a_kernel_or_ramdisk_cannot_be_deleted_while_a_build_needs_it(house_on_each: House, role: str) -> None:
    house = house_on_each
    house.add_host("h1")
    image_id, part, other = (house.add_image() for _ in range(3))
    (uuid,) = house.create(image_id=image_id, image_properties={role: part, "base_image": other})
    with pytest.raises(ImageInUse), house.db.write() as connection:
        images.delete(connection, part)
    with house.db.write() as connection:
        images.delete(connection, other)
    with house.conductor():
        house.rest()
    assert house.get(uuid).vm_state == VmState.ACTIVE
    with house.db.write() as connection:
        images.delete(connection, part)
