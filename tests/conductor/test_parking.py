"""Jobs that no conductor can do are parked, with the evidence: of a flow or kind that it does not know, or that keep crashing it."""

from hullwright.objects.states import JobState, VmState
from hullwright.persistence import faults, jobs
from support.house import House


def test_a_flow_that_this_code_does_not_know_is_parked_with_its_evidence(house: House) -> None:
    uuid = house.create_by_version(99)
    with house.conductor():
        house.wait(lambda: house.build_of(uuid).state == JobState.STUCK)
    assert "build_instance_v99" in str(house.build_of(uuid).error)
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
    assert fault is not None
    assert house.get(uuid).vm_state == VmState.ERROR
    assert "hullwright job release" in fault.hint


def test_a_job_of_an_unknown_kind_is_parked(house: House) -> None:
    with house.db.write() as connection:
        uuid = jobs.post(connection, kind="make_coffee", instance_uuid=None, inputs={})
    with house.conductor():
        house.rest()
    with house.db.read() as connection:
        job = jobs.get(connection, uuid)
    assert (job.state, "make_coffee" in (job.error or "")) == (JobState.STUCK, True)


def test_a_job_that_keeps_crashing_its_conductor_is_parked(house: House) -> None:
    house.conf.set_override("max_leases", 3, "conductor")
    house.add_host("h1")
    (uuid,) = house.create()
    with house.db.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET leases = 3")
    with house.conductor():
        house.rest()
    job = house.build_of(uuid)
    assert job.state == JobState.STUCK
    assert "leased 4 times" in job.error
    assert "it never began a step" in job.error
