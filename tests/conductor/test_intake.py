"""What conductors take and what they leave: jobs that crash them, jobs of other versions, urgent ones, and those that are not theirs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor import parking
from hullwright.conductor.runner import Runner
from hullwright.objects.builds import Job
from hullwright.objects.states import JobState, VmState
from hullwright.persistence import conductors, faults, jobs, leases
from hullwright.persistence.models.jobs import conductors as conductors_table
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.persistence.session import FlowSession
from support import invariants
from support.house import ASKER, House

PATIENCE_SECONDS = 40.0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses with options of [conductor]."""
    made: list[House] = []

    def new(**options: Any) -> House:
        made.append(House(tmp_path, conductor=options))
        return made[-1]

    yield new
    for house in made:
        house.close()


def _is_driven(house: House, instance: str, kind: str) -> bool:
    with house.db.read() as connection:
        found = jobs.latest(connection, instance, kind)
    return found is not None and found.state == JobState.RUNNING


def _enlist(house: House, id: str, version: str) -> None:
    with house.db.write() as connection:
        conductors.enlist(connection, id=id, hostname="elsewhere", pid=1, version=version, lease_seconds=600)


# --- What crashes conductors -------------------------------------------------------------------------------------------------


def _serve_to_rest(house: House, preamble: str = "") -> int:
    """Real conductors, each when the one before was killed by its work, until nothing is open; answers how many died."""
    deaths, until = 0, time.monotonic() + PATIENCE_SECONDS
    process = house.start_conductor(preamble)
    while house.open_jobs():
        assert time.monotonic() < until, house.logs()
        if process.poll() is not None:
            deaths += 1
            process = house.start_conductor(preamble)
        time.sleep(0.02)
    process.terminate()
    process.wait(20)
    return deaths


def test_a_build_that_kills_its_conductors_is_parked_and_those_beside_it_are_not(make: Callable[..., House]) -> None:
    house = make(max_leases=5)
    house.add_host("h1")
    before, poison, *after = house.create(6)
    beside = [before, *after]
    house.faults("h1", {"operation": "spawn", "uuid": poison, "kill": True, "delay": 0.1}, {"operation": "spawn", "delay": 0.3})
    deaths = _serve_to_rest(house)
    assert {uuid: house.build_of(uuid).state for uuid in beside} == dict.fromkeys(beside, JobState.DONE), house.logs()
    parked = house.build_of(poison)
    assert (parked.state, parked.leases, deaths) == (JobState.STUCK, 6, 5)
    assert house.get(poison).vm_state == VmState.ERROR
    assert "spawn RESUMED at 2" in (parked.error or ""), parked.error
    assert "fence 5" in (parked.error or ""), "the last one that ran it, not the one that parked it"
    house.faults("h1")
    with house.db.write() as connection:
        parking.release(connection, parked.uuid)
        assert faults.latest(connection, poison) is None, "its user is told of an end that is none"
    assert _serve_to_rest(house) == 0
    assert house.states([*beside, poison]) == {VmState.ACTIVE: 6}
    invariants.check(house)


def test_a_build_that_ends_its_threads_is_parked_too(make: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    house = make(max_leases=3, lease_seconds=1.0, poll_interval=0.05)
    house.add_host("h1")
    before, poison, after = house.create(3)
    settle = Runner._settle

    def stumble(self: Runner, session: FlowSession, engine: Any, failure: Exception | None) -> None:
        if session.job.instance_uuid == poison:
            raise RuntimeError("nobody thought of this")
        settle(self, session, engine, failure)

    monkeypatch.setattr(Runner, "_settle", stumble)
    with house.conductor():
        house.rest()
    assert [house.build_of(uuid).state for uuid in (before, after)] == [JobState.DONE] * 2
    parked = house.build_of(poison)
    assert (parked.state, parked.leases) == (JobState.STUCK, 4)
    assert "the last error on record: RuntimeError: nobody thought of this" in (parked.error or "")


def test_a_lease_that_was_lost_by_a_conductor_that_lives_is_no_crash(make: Callable[..., House]) -> None:
    house = make(max_leases=3, lease_seconds=1.0, poll_interval=0.05)
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "hang": True})
    with house.conductor() as conductor:
        (uuid,) = house.create()
        for _ in range(5):
            house.wait(lambda: house.build_of(uuid).owner == conductor._heartbeat.id)
            ours = conductor._heartbeat.id
            with house.db.write() as connection:
                connection.execute(sa.update(conductors_table).values(expires_at=0.0))
            house.wait(lambda ours=ours: conductor._heartbeat.id != ours)
        house.wait(lambda: house.build_of(uuid).owner == conductor._heartbeat.id)
        assert (house.build_of(uuid).state, house.build_of(uuid).leases) == (JobState.RUNNING, 1)
        house.faults("h1")
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
        house.rest()


def test_what_a_conductor_leaves_behind_when_it_stops_in_order_has_not_crashed_it(make: Callable[..., House]) -> None:
    house = make(drain_timeout=0.1)
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "hang": True})
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).task_state == "spawning")
    left = house.build_of(uuid)
    assert (left.state, left.leases) == (JobState.RUNNING, 0)
    house.faults("h1")


# --- What another version is for ---------------------------------------------------------------------------------------------


def test_a_job_that_this_version_does_not_know_is_left_to_another_that_lives(make: Callable[..., House]) -> None:
    house = make(unknown_job_seconds=0.2, poll_interval=0.05)
    _enlist(house, "newer", "99.0")
    with house.db.write() as connection:
        uuid = jobs.post(connection, kind="make_coffee", instance_uuid=None, inputs={})

    def found() -> Job:
        with house.db.read() as connection:
            return jobs.get(connection, uuid)

    with house.conductor():
        house.wait(lambda: found().fence >= 3)  # looked at again and again, and never parked
        house.wait(lambda: found().state == JobState.QUEUED)
        assert "make_coffee" in (found().error or "")
        with house.db.write() as connection:
            (taken,) = leases.take(connection, "newer", 1)
            assert (taken.uuid, taken.leases) == (uuid, 1)
            leases.give_back(connection, taken)
            conductors.retire(connection, "newer")
        house.wait(lambda: found().state == JobState.STUCK)


def test_a_job_that_nobody_has_begun_can_be_cancelled_at_once_though_a_conductor_passed_it_on(make: Callable[..., House]) -> None:
    house = make(unknown_job_seconds=60.0)
    with house.db.write() as connection:
        uuid = jobs.post(connection, kind="make_coffee", instance_uuid="i1", inputs={})
    with house.conductor(), house.db.read() as connection:
        house.wait(lambda: jobs.get(connection, uuid).error is not None)
    with house.db.write() as connection:
        jobs.cancel_open(connection, "i1")
        assert jobs.get(connection, uuid).state == JobState.CANCELLED


# --- What is urgent ----------------------------------------------------------------------------------------------------------


def test_questions_and_deletes_do_not_wait_for_long_builds(make: Callable[..., House]) -> None:
    house = make(max_concurrent_jobs=2)
    house.add_host("h1")
    with house.conductor():
        first, second = house.create(2)
        house.rest()
        house.faults("h1", {"operation": "ensure_image", "hang": True})
        long = house.create(4, image_id=house.add_image())
        house.wait(lambda: sum(_is_driven(house, uuid, "build_instance") for uuid in long) == 2)
        assert isinstance(house.client.query("console_log", first, {}, PATIENCE_SECONDS), str)
        house.faults("h1", {"operation": ["ensure_image", "destroy"], "hang": True})
        house.delete(first)
        house.wait(lambda: _is_driven(house, first, "delete_instance"))
        assert isinstance(house.client.query("console_log", second, {}, PATIENCE_SECONDS), str), "though every place for deletes is taken"
        house.faults("h1")
        house.rest()
    assert house.get(first).vm_state == VmState.DELETED
    assert house.states(long) == {VmState.ACTIVE: 4}


# --- What is ours no more ----------------------------------------------------------------------------------------------------


def test_a_hung_call_whose_job_another_conductor_took_keeps_no_place(make: Callable[..., House]) -> None:
    house = make(step_timeouts={"spawn": 2.0}, poll_interval=0.05)
    house.add_host("h1")
    _enlist(house, "other", "0")
    with house.conductor() as conductor:
        house.faults("h1", {"operation": "spawn", "hang": True})
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).task_state == "spawning")
        with house.db.write() as connection:
            connection.execute(sa.update(jobs_table).values(owner="other", fence=jobs_table.c.fence + 1))
        house.wait(lambda: not conductor._driving)
        job = house.build_of(uuid)
        assert (job.owner, job.state) == ("other", JobState.RUNNING), "it was taken back from the one who has it"
        assert house.get(uuid).task_state == "spawning"
        house.faults("h1")


def test_a_conductor_that_stumbles_over_anything_goes_on(make: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    house.add_host("h1")
    monkeypatch.setattr("hullwright.conductor.service._STUMBLE_PAUSE_SECONDS", 0.05)
    real, stumbled = leases.can_take, []

    def can_take(*args: Any, **options: Any) -> bool:
        if len(stumbled) < 2:
            stumbled.append(1)
            raise RuntimeError("unforeseen")
        return real(*args, **options)

    monkeypatch.setattr(leases, "can_take", can_take)
    with house.conductor():
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
    assert len(stumbled) == 2


# --- Steps side by side ------------------------------------------------------------------------------------------------------


def test_calls_that_never_return_take_no_threads_from_the_steps_of_other_builds(make: Callable[..., House]) -> None:
    house = make(engine="parallel", max_concurrent_jobs=1, step_timeouts={"spawn": 1.0}, poll_interval=0.05)
    house.add_host("h1")
    instances = [house.new_instance(f"vm{number}") for number in range(6)]
    *hanging, last = [instance.uuid for instance in instances]
    house.faults("h1", *({"operation": "spawn", "uuid": uuid, "hang": True} for uuid in hanging))  # more than one job has steps at a time
    with house.conductor():
        house.client.create_servers(instances, ASKER)
        house.wait(lambda: house.get(last).vm_state == VmState.ACTIVE)
        assert house.states(hanging) == {VmState.ERROR: 5}
        house.faults("h1")


@pytest.mark.parametrize("engine", ["serial", "parallel"])
def test_a_conductor_told_to_stop_ends_though_a_call_never_returns(make: Callable[..., House], engine: str) -> None:
    house = make(engine=engine, drain_timeout=0.3)
    house.add_host("h1")
    house.faults("h1", {"operation": "spawn", "hang": True})
    (uuid,) = house.create()
    process = house.start_conductor()
    house.wait(lambda: house.get(uuid).task_state == "spawning")
    process.terminate()
    assert process.wait(20) == 0, house.logs()
