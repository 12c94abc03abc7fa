"""Power states are copied, and mended as operators know it from Nova; a guest is never started or made anew."""

from __future__ import annotations

import itertools
import time
import uuid

import pytest
import sqlalchemy as sa

from hullwright.conductor.client import Asker
from hullwright.conductor.reconcile import power
from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conductor.reconcile.power import Remedy
from hullwright.conductor.reconcile.rounds import sync_power_states
from hullwright.conductor.service import Conductor
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import PowerState, TaskState, VmState
from hullwright.persistence import actions, hosts, jobs
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instances as instances_table
from reconcile import drift
from support.house import House

_ANY = (None, *PowerState)
# What is done, where anything is; for every other pair nothing is.
_TABLE = {
    (VmState.ACTIVE, PowerState.SHUTDOWN): Remedy.STOP,
    (VmState.ACTIVE, PowerState.CRASHED): Remedy.STOP,
    (VmState.ACTIVE, PowerState.SUSPENDED): Remedy.STOP,
    (VmState.STOPPED, PowerState.RUNNING): Remedy.FORCE_STOP,
    (VmState.STOPPED, PowerState.PAUSED): Remedy.FORCE_STOP,
    (VmState.STOPPED, PowerState.SUSPENDED): Remedy.FORCE_STOP,
    (VmState.PAUSED, PowerState.SHUTDOWN): Remedy.FORCE_STOP,
    (VmState.PAUSED, PowerState.CRASHED): Remedy.FORCE_STOP,
}


@pytest.mark.parametrize(("vm_state", "seen"), list(itertools.product(VmState, _ANY)))
def test_the_remedy_is_that_of_the_table(vm_state: VmState, seen: PowerState | None) -> None:
    assert power.remedy(vm_state, seen) == _TABLE.get((vm_state, seen), Remedy.NONE)  # type: ignore[arg-type]


@pytest.fixture
def at_rest(house: House) -> str:
    """An ACTIVE instance on a fake host, whose record is old."""
    house.add_host("h1")
    instance_uuid = drift.build(house)
    drift.change(house, instance_uuid)
    return instance_uuid


def sync(house: House, seen: PowerState | None, instance_uuid: str) -> list[power.Change]:
    """As if the host had told this."""
    return power.sync(house.db, "h1", known(house), {instance_uuid: seen}, request_id="req-sync")


def known(house: House) -> dict[str, power.Known]:
    """What is on record of h1 before it is asked."""
    with house.db.read() as conn:
        return power.known(conn).get("h1", {})


def finish(house: House) -> None:
    """Let conductors do what was posted."""
    with house.conductor():
        house.rest()


@pytest.mark.parametrize(
    ("vm_state", "seen"), list(itertools.product((VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.ERROR), _ANY))
)
def test_the_power_state_is_always_copied(house: House, at_rest: str, vm_state: VmState, seen: PowerState | None) -> None:
    drift.change(house, at_rest, vm_state=vm_state)
    sync(house, seen, at_rest)
    assert house.get(at_rest).power_state == (seen or PowerState.NOSTATE)
    wanted = _TABLE.get((vm_state, seen))  # type: ignore[arg-type]
    assert house.get(at_rest).task_state == (TaskState.POWERING_OFF if wanted else None)
    assert house.open_jobs() == (1 if wanted else 0)


@pytest.mark.parametrize("seen", [PowerState.SHUTDOWN, PowerState.CRASHED])
def test_a_guest_that_went_off_is_stopped_on_record(house: House, at_rest: str, seen: PowerState) -> None:
    drift.set_power(house, at_rest, seen)
    (change,) = sync(house, seen, at_rest)
    assert change.remedy == Remedy.STOP
    finish(house)
    assert (house.get(at_rest).vm_state, house.get(at_rest).power_state, house.get(at_rest).task_state) == (
        VmState.STOPPED,
        PowerState.SHUTDOWN,
        None,
    )
    with house.db.read() as conn:
        told = {action.action: action for action in actions.list_for(conn, at_rest)}
    assert told["stop"].finished_at
    assert told["stop"].message is None
    assert "power_state: the guest is" in (told["reconcile"].message or "")


def test_a_guest_that_runs_though_it_was_stopped_has_its_plug_pulled(house: House, at_rest: str) -> None:
    drift.change(house, at_rest, vm_state=VmState.STOPPED, power_state=PowerState.SHUTDOWN)
    (change,) = sync(house, PowerState.RUNNING, at_rest)
    with house.db.read() as conn:
        assert jobs.get(conn, str(change.job_uuid)).inputs["force"] is True
    finish(house)
    assert house.get(at_rest).vm_state == VmState.STOPPED
    assert drift.fake(house).things.all("guests")[at_rest]["power_state"] == PowerState.SHUTDOWN


def test_a_guest_that_was_paused_behind_our_back_is_shown_as_paused(house: House, at_rest: str) -> None:
    (change,) = sync(house, PowerState.PAUSED, at_rest)
    assert change.remedy == Remedy.NONE
    assert (house.get(at_rest).vm_state, house.get(at_rest).power_state) == (VmState.ACTIVE, PowerState.PAUSED)


def test_a_guest_that_is_missing_is_shown_and_not_made_anew(house: House, at_rest: str) -> None:
    drift.fake(house).things.drop("guests", at_rest, None)
    sync(house, None, at_rest)
    finish(house)
    assert (house.get(at_rest).vm_state, house.get(at_rest).power_state) == (VmState.ACTIVE, PowerState.NOSTATE)
    assert drift.fake(house).things.all("guests") == {}


def test_an_instance_with_a_task_is_left_alone(house: House, at_rest: str) -> None:
    drift.change(house, at_rest, task_state=TaskState.REBOOTING)
    assert sync(house, PowerState.SHUTDOWN, at_rest) == []


def test_an_instance_with_an_open_job_is_left_alone(house: House, at_rest: str) -> None:
    drift.post_job(house, "reboot_instance", instance_uuid=at_rest)
    assert sync(house, PowerState.SHUTDOWN, at_rest) == []
    assert house.get(at_rest).power_state == PowerState.RUNNING


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0], ids=["behind", "ahead"])
def test_what_was_told_before_the_instance_changed_does_not_count_whatever_the_clock_of_who_changed_it(
    house: House, at_rest: str, seconds: float
) -> None:
    before = known(house)
    with house.db.write() as conn:  # switched off and on meanwhile, by a conductor with a clock of its own
        changed_at = now() + seconds
        conn.execute(sa.update(instances_table).where(instances_table.c.uuid == at_rest).values(updated_at=changed_at))
    assert power.sync(house.db, "h1", before, {at_rest: PowerState.SHUTDOWN}, request_id="r") == []
    assert house.get(at_rest).power_state == PowerState.RUNNING


def test_an_instance_that_changes_while_the_doctor_asks_is_left_alone(house: House, at_rest: str) -> None:
    drift.set_power(house, at_rest, PowerState.SHUTDOWN)
    doctor = Doctor(house.db, house.drivers(), house.conf)
    look = doctor.look(kinds=["power_state_wrong"])
    assert [finding.subject for finding in look.findings] == [at_rest]
    drift.change(house, at_rest)  # with an old time on it
    (outcome,) = doctor.mend(look, kinds=["power_state_wrong"], request_id="r")
    assert outcome.state == "gone"


def test_a_second_sync_of_the_same_changes_nothing(house: House, at_rest: str) -> None:
    assert len(sync(house, PowerState.SHUTDOWN, at_rest)) == 1
    assert sync(house, PowerState.SHUTDOWN, at_rest) == []
    assert house.open_jobs() == 1


def test_a_round_asks_every_host_and_leaves_silent_ones_out(house: House, at_rest: str) -> None:
    house.add_host("h2")
    house.faults("h2", {"operation": "guests", "error": "HypervisorUnavailable"})
    drift.set_power(house, at_rest, PowerState.PAUSED)
    with house.conductor() as conductor:
        told = sync_power_states(conductor.shared, {"request_id": "req-1"})
        assert told is not None
        assert [change["after"] for change in told["changes"]] == [PowerState.PAUSED]
        assert list(told["silent"]) == ["h2"]
        assert sync_power_states(conductor.shared, {"request_id": "req-2"}) is None


@pytest.mark.parametrize("interval", [0.0, 0.2])
def test_rounds_are_made_by_themselves_unless_switched_off(house: House, at_rest: str, interval: float) -> None:
    house.conf.set_override("sync_power_state_interval", interval, group="reconcile")
    drift.set_power(house, at_rest, PowerState.SHUTDOWN)
    with house.conductor():
        if interval:
            house.wait(lambda: house.get(at_rest).vm_state == VmState.STOPPED)
        else:
            time.sleep(0.5)
            assert house.get(at_rest).vm_state == VmState.ACTIVE


def test_news_of_the_hypervisor_shows_without_waiting_for_a_round(house: House) -> None:
    house.conf.set_override("event_delay_seconds", 0.1, group="reconcile")
    house.add_host("h1")
    with house.db.write() as conn:
        conn.exec_driver_sql("UPDATE hosts SET uri = 'fake://h1?events=1&vcpus=100&memory_mb=100000&disk_gb=1000'")
        assert hosts.get(conn, "h1").uri.endswith("disk_gb=1000")
    instance_uuid = drift.build(house)
    with house.conductor() as conductor:
        _await_listening(house, conductor)
        drift.set_power(house, instance_uuid, PowerState.SHUTDOWN)
        house.wait(lambda: house.get(instance_uuid).vm_state == VmState.STOPPED, 10)
        house.rest()
    assert house.get(instance_uuid).power_state == PowerState.SHUTDOWN


def test_news_of_our_own_work_posts_nothing(house: House) -> None:
    house.conf.set_override("event_delay_seconds", 0.05, group="reconcile")
    house.add_host("h1")
    with house.db.write() as conn:
        conn.exec_driver_sql("UPDATE hosts SET uri = 'fake://h1?events=1&vcpus=100&memory_mb=100000&disk_gb=1000'")
    with house.conductor() as conductor:
        _await_listening(house, conductor)
        (instance_uuid,) = house.create()
        house.rest()
        house.client.stop_server(instance_uuid, asker())
        house.rest()
        house.client.start_server(instance_uuid, asker())
        house.rest()
        time.sleep(1.0)
        house.rest()
    with house.db.read() as conn:
        assert sorted(action.action for action in actions.list_for(conn, instance_uuid)) == ["create", "start", "stop"]
    assert house.get(instance_uuid).vm_state == VmState.ACTIVE


def _await_listening(house: House, conductor: Conductor) -> None:
    """Until the conductor follows the host's news."""
    with house.db.read() as conn:
        host = hosts.get(conn, "h1")
    driver = conductor.shared.drivers.virt(HostRef(host.name, host.uri, host.driver))
    assert isinstance(driver, FakeDriver)
    house.wait(lambda: driver._watch is not None)


def asker() -> Asker:
    """Whoever asks."""
    return Asker(f"req-{uuid.uuid4()}", "p", "u")
