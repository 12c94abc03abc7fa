"""Jobs: order, leases, fences, cancelling. On both databases."""

import threading

import pytest
import sqlalchemy as sa

from hullwright.objects.errors import Conflict, LeaseLost
from hullwright.objects.states import JobState
from hullwright.persistence import conductors, job_repairs, jobs, leases
from hullwright.persistence.database import Database, now
from hullwright.persistence.models.jobs import atoms as atoms_table


@pytest.fixture
def living(db: Database) -> Database:
    """A database with two living conductors, c1 and c2."""
    with db.write() as connection:
        for name in ("c1", "c2"):
            conductors.enlist(connection, id=name, hostname="here", pid=1, version="0", lease_seconds=60)
    return db


def _post(db: Database, instance: str | None = None, kind: str = "build_instance", **fields: object) -> str:
    with db.write() as connection:
        return jobs.post(connection, kind=kind, instance_uuid=instance, inputs={}, **fields)


def _lease(db: Database, owner: str = "c1", limit: int = 10, **options: bool) -> list[jobs.Job]:
    with db.write() as connection:
        return leases.take(connection, owner, limit, **options)


def test_a_job_is_leased_once_and_the_fence_grows_with_each_lease(living: Database) -> None:
    uuid = _post(living)
    (first,) = _lease(living)
    assert (first.uuid, first.fence, first.owner) == (uuid, 1, "c1")
    assert _lease(living, "c2") == []
    with living.write() as connection:
        leases.give_back(connection, first)
    (second,) = _lease(living, "c2")
    assert (second.uuid, second.fence, second.leases) == (uuid, 2, 1)


def test_jobs_of_one_instance_run_one_after_the_other(living: Database) -> None:
    build, delete = _post(living, "i1"), _post(living, "i1", "delete_instance", rank=jobs.RANK_DELETE)
    other = _post(living, "i2")
    assert [job.uuid for job in _lease(living)] == [build, other]
    assert _lease(living) == []
    with living.write() as connection:
        held = jobs.get(connection, build)
        leases.end(connection, held, JobState.DONE)
    assert [job.uuid for job in _lease(living)] == [delete]


def test_urgent_jobs_go_first_and_those_whose_time_has_not_come_wait(living: Database) -> None:
    normal, later, urgent = _post(living), _post(living, not_before=now() + 60), _post(living, rank=jobs.RANK_QUERY)
    assert [job.uuid for job in _lease(living)] == [urgent, normal]
    with living.read() as connection:
        assert jobs.get(connection, later).state == JobState.QUEUED


def test_jobs_of_a_dead_conductor_are_orphans(living: Database) -> None:
    uuid = _post(living)
    (lost,) = _lease(living, "c1")
    assert _lease(living, "c2", orphans=True) == []
    with living.write() as connection:
        conductors.retire(connection, "c1")
    (found,) = _lease(living, "c2", orphans=True)
    assert (found.uuid, found.fence, found.leases) == (uuid, 2, 2)
    with pytest.raises(LeaseLost), living.write() as connection:
        leases.hold(connection, lost)
    with pytest.raises(LeaseLost), living.write() as connection:
        leases.end(connection, lost, JobState.DONE)


def test_a_lapsed_heartbeat_cannot_be_renewed(living: Database) -> None:
    with living.write() as connection:
        conductors.enlist(connection, id="late", hostname="here", pid=1, version="0", lease_seconds=-1)
        assert not conductors.beat(connection, "late", 60)
        assert conductors.beat(connection, "c1", 60)


def test_a_cancel_ends_a_job_that_never_began_and_marks_one_that_did(living: Database) -> None:
    begun = _post(living, "i1")
    _lease(living)
    waiting = _post(living, "i1", "stop_instance")
    delete = _post(living, "i1", "delete_instance")
    with living.write() as connection:
        assert jobs.cancel_open(connection, "i1") == 2
        found = {uuid: jobs.get(connection, uuid) for uuid in (begun, waiting, delete)}
    assert (found[begun].state, found[begun].cancel_requested) == (JobState.RUNNING, True)
    assert found[waiting].state == JobState.CANCELLED
    assert (found[delete].state, found[delete].cancel_requested) == (JobState.QUEUED, False)


def test_a_job_given_back_after_it_began_is_undone_rather_than_dropped(living: Database) -> None:
    """Its side effects may be out there: only a flow that is run can undo them."""
    uuid = _post(living, "i1")
    (held,) = _lease(living)
    with living.write() as connection:
        leases.give_back(connection, held)
        jobs.cancel_open(connection, "i1")
        found = jobs.get(connection, uuid)
    assert (found.state, found.cancel_requested) == (JobState.QUEUED, True)


def test_a_stuck_job_can_be_released(living: Database) -> None:
    uuid = _post(living)
    (held,) = _lease(living)
    with living.write() as connection:
        leases.end(connection, held, JobState.STUCK, error="why")
        job_repairs.release(connection, uuid)
        with pytest.raises(Conflict, match="is queued, not stuck"):
            job_repairs.release(connection, uuid)
    assert [job.uuid for job in _lease(living)] == [uuid]


def test_a_stuck_job_whose_undo_failed_or_whose_server_is_gone_or_busy_is_not_released(living: Database) -> None:
    failed, gone = _post(living), _post(living, "i1")
    for held in _lease(living, "c1", 2):
        with living.write() as connection:
            leases.end(connection, held, JobState.STUCK, error="why")
    atom = {"uuid": "a", "flow_uuid": failed, "name": "spawn", "kind": "TASK_DETAIL", "state": "REVERT_FAILURE", "body": {}}
    with living.write() as connection:
        connection.execute(sa.insert(atoms_table).values(**atom))
        with pytest.raises(Conflict, match="could not undo spawn"):
            job_repairs.release(connection, failed)
        with pytest.raises(Conflict, match="no server any more"):
            job_repairs.release(connection, gone)
    _post(living, "i1", kind="delete_instance")
    with living.write() as connection, pytest.raises(Conflict, match="has a delete_instance under way"):
        job_repairs.release(connection, gone)


def test_conductors_that_lease_at_once_never_share_a_job(living: Database) -> None:
    posted = {_post(living) for _ in range(60)}
    taken: list[str] = []
    barrier = threading.Barrier(4)

    def take(owner: str) -> None:
        barrier.wait()
        while batch := _lease(living, owner, 5):
            taken.extend(job.uuid for job in batch)

    threads = [threading.Thread(target=take, args=(owner,)) for owner in ("c1", "c2", "c1", "c2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # SKIP LOCKED may leave a taker empty-handed while others commit; what is left is taken by the next look.
    while batch := _lease(living, "c1", 5):
        taken.extend(job.uuid for job in batch)
    assert sorted(taken) == sorted(posted)


def test_leases_are_counted_anew_when_the_job_gets_further(living: Database) -> None:
    """Several outages during one long build are no crashes; a job that crashes its conductor at one step never gets past it."""
    _post(living)
    (job,) = _lease(living)
    for owner, times in (("c2", 2), ("c3", 3)):
        with living.write() as connection:
            conductors.retire(connection, str(job.owner))
            if owner == "c3":
                conductors.enlist(connection, id=owner, hostname="here", pid=1, version="0", lease_seconds=60)
        (job,) = _lease(living, owner, orphans=True)
        with living.write() as connection:
            leases.hold(connection, job, progress=0)
            assert jobs.get(connection, job.uuid).leases == times
    with living.write() as connection:
        leases.hold(connection, job, progress=30)
        assert jobs.get(connection, job.uuid).leases == 1
