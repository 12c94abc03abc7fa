"""Drift of every kind is found, told, left alone without consent, mended with it, written down, and then gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from hullwright.conductor.reconcile.checks import CHECKS
from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conductor.reconcile.findings import KINDS, Outcome
from hullwright.conductor.reconcile.repairs import REPAIRS
from hullwright.objects.states import VmState
from hullwright.persistence import actions, faults, jobs, ports, volumes
from hullwright.persistence.models.hosts import allocations, inventories
from hullwright.persistence.models.instances import instances
from reconcile import drift
from support import invariants
from support.house import House

ALL = tuple(KINDS)
# What is left behind is told, and nothing more: an instance without its guest, a volume that could not be made.
_LEAVE_EVIDENCE = {"guest_missing"}


_MENDABLE = sorted(name for name, (kind, _) in drift.MAKERS.items() if KINDS[kind].is_mendable)


@pytest.fixture
def doctor(house: House) -> Doctor:
    """A doctor for a house with one fake host."""
    house.add_host("h1")
    return Doctor(house.db, house.drivers(), house.conf)


def mend(house: House, doctor: Doctor, **options: object) -> list[Outcome]:
    """Mend everything, and let conductors do what was posted."""
    look = doctor.examine(grace_seconds=0.01)
    outcomes = doctor.mend(look, kinds=ALL, with_consent=bool(options.get("with_consent", True)), request_id="req-doctor")
    if outcomes and house.open_jobs():
        with house.db.write() as conn:
            conn.execute(sa.text("UPDATE jobs SET not_before = 0"))
        with house.conductor():
            house.rest()
    return outcomes


def test_every_kind_has_a_check_a_repair_and_a_maker() -> None:
    assert set(CHECKS) == set(KINDS)
    assert set(REPAIRS) == {kind for kind, told in KINDS.items() if told.is_mendable} - {"base_image_half", "base_image_damaged"}
    assert {kind for kind, _ in drift.MAKERS.values()} == set(KINDS)


def test_a_house_at_rest_is_clean(house: House, doctor: Doctor) -> None:
    port = house.request_port(drift.new_network(house))
    drift.build(house, networks=(port,), block_devices=(house.request_volume(source_type="blank", size_gb=1),), config_drive=True)
    drift.delete(house, drift.build(house))
    assert doctor.look().findings == ()
    invariants.check(house)


@pytest.mark.parametrize("name", _MENDABLE)
def test_drift_is_found_left_alone_mended_and_gone(house: House, doctor: Doctor, name: str) -> None:
    kind, maker = drift.MAKERS[name]
    subject = maker(house)
    before = drift.dump(house)

    look = doctor.examine(grace_seconds=0.01)
    assert [(finding.kind, finding.subject) for finding in look.findings] == [(kind, subject)]
    assert look.findings[0].evidence
    assert look.findings[0].repair == KINDS[kind].repair
    assert drift.dump(house) == before, "a look changes nothing"

    (outcome,) = mend(house, doctor)
    assert (outcome.finding.kind, outcome.finding.subject) == (kind, subject)
    assert outcome.state in ("mended", "posted")
    assert outcome.text

    assert doctor.look().findings == ()
    assert mend(house, doctor) == []
    if kind not in _LEAVE_EVIDENCE:
        invariants.check(house, twins_on=["h2"])


@pytest.mark.parametrize("name", sorted(set(drift.MAKERS) - set(_MENDABLE)))
def test_what_nothing_mends_safely_is_found_and_told_with_what_a_person_can_do(house: House, doctor: Doctor, name: str) -> None:
    kind, maker = drift.MAKERS[name]
    subject = maker(house)
    before = drift.dump(house)
    assert [(finding.kind, finding.subject) for finding in doctor.examine(grace_seconds=0.01).findings] == [(kind, subject)]
    (outcome,) = mend(house, doctor)
    assert (outcome.finding.subject, outcome.state) == (subject, "refused")
    assert KINDS[kind].repair in outcome.text
    assert drift.dump(house) == before
    with pytest.raises(AssertionError, match=kind):
        invariants.check(house)


@pytest.mark.parametrize("name", [name for name in _MENDABLE if not KINDS[drift.MAKERS[name][0]].needs_consent])
def test_what_concerns_an_instance_is_in_its_actions(house: House, doctor: Doctor, name: str) -> None:
    drift.MAKERS[name][1](house)
    look = doctor.look()
    (finding,) = look.findings
    doctor.mend(look, kinds=ALL, request_id="req-doctor")
    if finding.instance_uuid is None:
        return
    with house.db.read() as conn:
        entries = [action for action in actions.list_for(conn, finding.instance_uuid) if action.action == "reconcile"]
        is_known = conn.execute(sa.select(instances.c.id).where(instances.c.uuid == finding.instance_uuid)).first() is not None
    if not is_known:  # there is nothing to write it down for
        assert entries == []
        return
    assert len(entries) == 1
    assert entries[0].request_id == "req-doctor"
    assert (entries[0].message or "").startswith(f"{finding.kind}: ")


@pytest.mark.parametrize("name", sorted(name for name, (kind, _) in drift.MAKERS.items() if KINDS[kind].needs_consent))
def test_what_might_be_somebodys_is_not_destroyed_without_consent(house: House, doctor: Doctor, name: str) -> None:
    drift.MAKERS[name][1](house)
    before = drift.dump(house)
    (outcome,) = mend(house, doctor, with_consent=False)
    assert outcome.state == "refused"
    assert drift.dump(house) == before


def test_much_drift_at_once_is_found_and_mended_in_one_go(house: House, doctor: Doctor) -> None:
    made = [drift.MAKERS[name] for name in sorted(_PASSIVE)]
    expected = {(kind, maker(house)) for kind, maker in made}
    look = doctor.examine(grace_seconds=0.01)
    assert {(finding.kind, finding.subject) for finding in look.findings} == expected
    mend(house, doctor)
    assert doctor.look().findings == ()
    invariants.check(house)


# Makers that need no conductor, so that none mends or moves what another made.
_PASSIVE = {
    "allocation_without_instance", "port_of_a_build", "port_of_a_user", "address_without_port", "attachment_of_a_user",
    "attachment_of_a_build", "volume_reserved", "volume_attaching", "volume_creating", "volume_deleting", "image_abandoned",
    "job_stuck_volume", "job_without_instance", "flow_unknown", "guest_misplaced", "guest_unknown", "files_left", "files_unknown",
    "base_image_half", "network_left",
}  # fmt: skip


def test_a_foreign_guest_is_nobodys_business(house: House, doctor: Doctor) -> None:
    drift.put_guest(house, "00000000-0000-0000-0000-00000000f00d", ours=False)
    assert doctor.look().findings == ()


def test_work_that_is_open_is_not_drift(house: House, doctor: Doctor) -> None:
    (uuid,) = house.create()
    drift.put_guest(house, uuid)
    house.delete(drift.build(house))
    house.create()
    assert doctor.look().findings == ()


def test_a_finding_that_somebody_mended_meanwhile_is_gone(house: House, doctor: Doctor) -> None:
    drift.usage_miscounted(house)
    look = doctor.look()
    with house.db.write() as conn:
        total = sa.select(sa.func.sum(allocations.c.amount)).where(allocations.c.resource_class == "MEMORY_MB").scalar_subquery()
        conn.execute(sa.update(inventories).where(inventories.c.resource_class == "MEMORY_MB").values(used=total))
    (outcome,) = doctor.mend(look, kinds=ALL, request_id="r")
    assert outcome.state == "gone"


def test_a_finding_whose_instance_got_work_meanwhile_is_left_to_it(house: House, doctor: Doctor) -> None:
    uuid = drift.guest_missing(house)
    look = doctor.look()
    house.delete(uuid)
    (outcome,) = doctor.mend(look, kinds=ALL, request_id="r")
    assert outcome.state == "gone"
    assert house.get(uuid).vm_state == VmState.ACTIVE


def test_only_what_two_looks_have_counts(house: House, doctor: Doctor) -> None:
    drift.volume_reserved(house)
    first = doctor.look()
    drift.volume_attaching(house)
    second = doctor.look()
    assert len(second.findings) == 2
    assert len(second.confirming(first.keys()).findings) == 1


def test_a_half_image_that_moves_on_does_not_count(house: House, doctor: Doctor) -> None:
    image_id = drift.base_image_half(house)
    first = doctor.look()
    drift.fake(house).things.put("parts", image_id, {"done": 4712}, None)
    assert doctor.look().confirming(first.keys()).findings == ()


def test_a_host_that_is_silent_is_named_and_the_others_are_looked_at(house: House, doctor: Doctor) -> None:
    house.add_host("h2")
    uuid = drift.guest_unknown(house)
    house.faults("h2", {"operation": "guests", "error": "HypervisorUnavailable", "reason": "cable"})
    look = doctor.look()
    assert [finding.subject for finding in look.findings] == [uuid]
    assert list(look.silent) == ["h2"]
    assert "cable" in look.silent["h2"]


def test_a_host_that_hangs_holds_nobody_up(house: House, doctor: Doctor) -> None:
    house.add_host("h2")
    house.faults("h2", {"operation": "leftovers", "hang": True})
    house.conf.set_override("host_timeout_seconds", 0.3, group="reconcile")
    begun = time.monotonic()
    look = doctor.look()
    house.faults("h2")
    assert time.monotonic() - begun < 5
    assert "no answer within 0.3 seconds" in look.silent["h2"]


def test_only_the_hosts_that_were_named_are_looked_at(house: House, doctor: Doctor) -> None:
    house.add_host("h2")
    drift.guest_unknown(house)
    drift.volume_reserved(house)
    assert doctor.look(names=["h2"]).findings == ()
    assert [finding.host for finding in doctor.look(names=["h1"]).findings] == ["h1"]


def test_a_users_port_is_freed_and_a_builds_is_deleted(house: House, doctor: Doctor) -> None:
    users, builds = drift.port_of_a_user(house), drift.port_of_a_build(house)
    mend(house, doctor)
    with house.db.read() as conn:
        left = ports.list_all(conn)
    assert [(port.id, port.device_id, len(port.fixed_ips)) for port in left] == [(users, None, 1)]
    assert builds


def test_a_users_volume_is_available_again_and_a_builds_is_deleted(house: House, doctor: Doctor) -> None:
    drift.attachment_of_a_user(house)
    drift.attachment_of_a_build(house)
    mend(house, doctor)
    with house.db.read() as conn:
        assert [volume.status for volume in volumes.list_all(conn)] == ["available"]


def test_a_stranded_build_ends_in_error_with_a_fault_and_nothing_left(house: House, doctor: Doctor) -> None:
    uuid = drift.instance_stranded_in_a_build(house)
    mend(house, doctor)
    assert (house.get(uuid).vm_state, house.get(uuid).task_state, house.get(uuid).host) == (VmState.ERROR, None, None)
    with house.db.read() as conn:
        fault = faults.latest(conn, uuid)
        assert ports.list_all(conn) == []
    assert fault is not None
    assert "lost" in fault.message
    assert drift.fake(house).things.all("guests") == {}


def test_a_stranded_delete_ends_deleted_and_its_action_is_finished(house: House, doctor: Doctor) -> None:
    uuid = drift.instance_stranded_in_a_delete(house)
    mend(house, doctor)
    assert house.get(uuid).vm_state == VmState.DELETED


def test_a_guest_that_is_missing_is_not_made_anew(house: House, doctor: Doctor) -> None:
    uuid = drift.guest_missing(house)
    mend(house, doctor)
    assert house.get(uuid).vm_state == VmState.ERROR
    assert house.get(uuid).host == "h1"
    assert drift.fake(house).things.all("guests") == {}
    drift.delete(house, uuid)
    assert doctor.look().findings == ()
    invariants.check(house)


def test_a_stuck_build_that_is_given_up_can_be_read_afterwards(house: House, doctor: Doctor) -> None:
    job_uuid = drift.job_stuck_build(house)
    mend(house, doctor)
    with house.db.read() as conn:
        job = jobs.get(conn, job_uuid)
    assert job.state == "reverted"
    assert "Given up" in (job.error or "")


def test_a_volume_that_was_made_stays_as_it_is_when_the_job_that_made_it_is_given_up(house: House, doctor: Doctor) -> None:
    drift.job_stuck_volume(house)
    with house.db.write() as conn:
        (volume,) = volumes.list_all(conn)
        volumes.swap_status(conn, volume.id, ["creating"], "available")
    (outcome,) = mend(house, doctor)
    assert outcome.text == "given up; its volume is available"
    with house.db.read() as conn:
        assert volumes.get(conn, volume.id).status == "available"


def test_a_damaged_base_image_is_put_away_and_fetched_anew_by_the_next_build(house: House, doctor: Doctor) -> None:
    image_id = drift.base_image_damaged(house)
    (outcome,) = mend(house, doctor)
    assert (outcome.state, outcome.finding.subject) == ("mended", image_id)
    assert drift.fake(house).things.all("images") == {}
    drift.build(house, image_id=image_id)
    assert list(drift.fake(house).things.all("images")) == [image_id]
    invariants.check(house)


def test_a_damaged_base_image_that_guests_stand_on_is_told_and_left(house: House, doctor: Doctor) -> None:
    image_id = drift.base_image_damaged(house)
    drift.build(house, image_id=image_id)
    (outcome,) = mend(house, doctor)
    assert (outcome.finding.subject, outcome.state) == (image_id, "refused")
    assert "instance-00000002" in outcome.text
    assert list(drift.fake(house).things.all("images")) == [image_id]


def test_a_damaged_base_image_that_a_build_is_about_to_use_is_left(house: House, doctor: Doctor) -> None:
    image_id = drift.base_image_damaged(house)
    look = doctor.examine(grace_seconds=0.01)
    (server_id,) = house.create(image_id=image_id)
    (outcome,) = doctor.mend(look, kinds=ALL, request_id="r")
    assert (outcome.finding.subject, outcome.state) == (image_id, "refused")
    assert server_id in outcome.text


def test_rounds_do_not_ask_for_damaged_images(house: House, doctor: Doctor) -> None:
    drift.base_image_damaged(house)
    assert doctor.look(since=0.0).findings == ()
    assert len(doctor.look().findings) == 1


def test_a_host_that_cannot_read_its_images_is_named_and_the_rest_of_it_is_looked_at(house: House, doctor: Doctor) -> None:
    uuid = drift.guest_unknown(house)
    house.faults("h1", {"operation": "damaged_images", "error": "HypervisorError", "reason": "bad sector"})
    look = doctor.look()
    assert [finding.subject for finding in look.findings] == [uuid]
    assert "bad sector" in look.silent["h1"]


@pytest.mark.postgresql
@pytest.mark.parametrize("name", sorted(set(drift.MAKERS) - {"address_without_port"}))
def test_drift_is_found_and_mended_on_postgresql(tmp_path: Path, postgres_tables_url: str, name: str) -> None:
    house = House(tmp_path, postgres_tables_url)
    try:
        house.add_host("h1")
        doctor = Doctor(house.db, house.drivers(), house.conf)
        kind, maker = drift.MAKERS[name]
        subject = maker(house)
        outcomes = mend(house, doctor)
        assert [(outcome.finding.kind, outcome.finding.subject) for outcome in outcomes] == [(kind, subject)]
        assert (doctor.look().findings == ()) is KINDS[kind].is_mendable
    finally:
        house.close()
