"""What the harness found once, told plainly."""

import sqlalchemy as sa

from hullwright.objects.states import VmState
from hullwright.persistence import attempts, faults, jobs
from hullwright.persistence.models.instances import instance_actions
from support.house import House


def test_the_action_of_a_build_that_was_deleted_before_anybody_began_it_is_closed(house: House) -> None:
    (uuid,) = house.create()
    house.delete(uuid)
    with house.db.read() as connection:
        rows = connection.execute(sa.select(instance_actions).order_by(instance_actions.c.id)).mappings().all()
    assert [(row["action"], row["finished_at"] is not None) for row in rows] == [("create", True), ("delete", False)]


def test_each_attempt_tells_its_own_failure_when_another_step_failed_before(house: House) -> None:
    for number, name in enumerate(("h1", "h2", "h3"), 1):
        house.add_host(name, memory_mb=4_000_000 // number)
    image = house.add_image()
    house.faults("h1", {"operation": "ensure_image", "error": "HypervisorError", "reason": "no pool here"})
    house.faults("h2", {"operation": "spawn", "error": "HypervisorError", "reason": "no QEMU here"})
    house.faults("h3", {"operation": "ensure_image", "error": "HypervisorError", "reason": "no pool there"})
    with house.conductor():
        (uuid,) = house.create(image_id=image, max_attempts=3)
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    with house.db.read() as connection:
        job = jobs.latest(connection, uuid)
        assert job is not None
        told = [(attempt.host, attempt.step, attempt.reason) for attempt in attempts.list_for(connection, job.uuid)]
        fault = faults.latest(connection, uuid)
    assert [(host, step) for host, step, _ in told] == [("h1", "fetch_image"), ("h2", "spawn"), ("h3", "fetch_image")]
    assert all(words in str(reason) for words, (_, _, reason) in zip(("pool here", "QEMU here", "pool there"), told, strict=True))
    assert fault is not None
    assert "no pool there" in fault.details
