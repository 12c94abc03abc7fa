"""Whose a job is, when clocks are wrong and conductors come and go: by the database's clock, and never two owners at once."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from durability import histories
from durability.test_histories import PATHS, _read
from hullwright.conductor import heartbeat
from hullwright.conductor.runner import Drive
from hullwright.conductor.service import Conductor
from hullwright.drivers.virt.fake.state import Guests
from hullwright.objects import fence
from hullwright.objects.errors import LeaseLost
from hullwright.objects.states import VmState
from hullwright.persistence import attempts, conductors, jobs, leases, ports
from hullwright.persistence.database import Database, DatabaseUnavailable, now, read_clock
from hullwright.persistence.models.jobs import conductors as conductors_table
from hullwright.persistence.session import FlowSession
from support import invariants
from support.house import House

HOUR = 3600.0
_JUMP = "from durability.child import jump_clock; jump_clock({file!r}, {seconds})"


def _enlist(db: Database, name: str, seconds: float = 60.0) -> None:
    with db.write() as connection:
        conductors.enlist(connection, id=name, hostname="elsewhere", pid=1, version="0", lease_seconds=seconds)


def _take(db: Database, owner: str, **options: Any) -> list[jobs.Job]:
    with db.write() as connection:
        return leases.take(connection, owner, 10, **options)


def _post(db: Database) -> None:
    with db.write() as connection:
        jobs.post(connection, kind="build_instance", instance_uuid=None, inputs={})


def test_leases_go_by_the_databases_clock(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.read() as connection:
        assert abs(read_clock(connection) - time.time()) < 5
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + HOUR)
    _enlist(db, "fast", 60)
    monkeypatch.setattr(time, "time", lambda real=time.time: real() - 2 * HOUR)
    _enlist(db, "slow", 60)
    _post(db)
    assert [job.owner for job in _take(db, "slow")] == ["slow"]
    assert _take(db, "fast", orphans=True) == [], "the other one lives, whatever o'clock it has"
    with db.write() as connection:
        assert conductors.beat(connection, "slow", 60)
        found = connection.execute(sa.select(conductors_table.c.expires_at)).scalars().all()
        assert max(found) - min(found) < 10


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "back"])
def test_a_conductor_whose_clock_jumps_neither_loses_its_jobs_nor_takes_others(tmp_path: Path, db_url: str, seconds: float) -> None:
    house = House(tmp_path, db_url, conductor={"lease_seconds": 3.0, "build_timeout": 600.0, "max_concurrent_jobs": 3})
    try:
        house.add_host("h1")
        house.faults("h1", {"operation": "spawn", "hang": True})
        file = tmp_path / "jump"
        house.start_conductor(_JUMP.format(file=str(file), seconds=seconds))
        house.start_conductor()
        uuids = house.create(6)
        house.wait(lambda: sum(house.get(uuid).task_state == "spawning" for uuid in uuids) == 6, 30)
        file.touch()
        time.sleep(3.5)  # longer than the lease
        house.faults("h1")
        house.rest(30)
        assert house.states(uuids) == {VmState.ACTIVE: 6}
        with house.db.read() as connection:
            made = [jobs.latest(connection, uuid) for uuid in uuids]
            assert [job.leases for job in made if job is not None] == [1] * 6, "each was driven by one conductor from its start to its end"
            assert {len(attempts.list_for(connection, job.uuid)) for job in made if job is not None} == {1}
        invariants.check(house)
    finally:
        house.close()


def test_the_jobs_of_one_that_died_are_taken_although_the_clock_was_set_back(db: Database) -> None:
    _enlist(db, "dead", 2.0 + HOUR)  # as its lease looks after the clock went back by an hour
    _enlist(db, "c2")
    _post(db)
    _take(db, "dead")
    assert _take(db, "c2", orphans=True) == []
    with db.write() as connection:
        conductors.shorten(connection, 2.0)
        ends = connection.execute(sa.select(conductors_table.c.expires_at).where(conductors_table.c.id == "dead")).scalar_one()
        assert ends - read_clock(connection) <= 2.0
        conductors.shorten(connection, 0.0)  # the two seconds are over
        connection.execute(sa.update(conductors_table).where(conductors_table.c.id == "c2").values(expires_at=now() + 60))
    time.sleep(0.05)
    assert [job.owner for job in _take(db, "c2", orphans=True)] == ["c2"]


def test_a_conductor_whose_clock_is_ahead_by_an_hour_does_not_think_that_builds_are_too_late(tmp_path: Path, db_url: str) -> None:
    house = House(tmp_path, db_url, conductor={"build_timeout": 600.0})
    try:
        house.add_host("h1")
        file = tmp_path / "jump"
        file.touch()
        house.start_conductor("import time\n" + _JUMP.format(file=str(file), seconds=HOUR) + "\ntime.sleep(0.2)")
        uuids = house.create(3)
        house.rest(30)
        assert house.states(uuids) == {VmState.ACTIVE: 3}
        invariants.check(house)
    finally:
        house.close()


@pytest.mark.postgresql
def test_a_lease_that_has_ended_cannot_be_renewed_while_its_jobs_are_being_taken(postgres_tables_url: str) -> None:
    db = Database(postgres_tables_url)
    _enlist(db, "late", 0.2)
    _enlist(db, "c2")
    _post(db)
    _take(db, "late")
    time.sleep(0.3)
    renewed: list[bool] = []

    def beat() -> None:
        with db.write() as connection:
            renewed.append(conductors.beat(connection, "late", 60))

    with db.write() as connection:
        taken = leases.take(connection, "c2", 10, orphans=True)
        beating = threading.Thread(target=beat)
        beating.start()
        time.sleep(0.3)
    beating.join(10)
    assert ([job.owner for job in taken], renewed) == (["c2"], [False])
    db.close()


def test_what_a_store_writes_for_a_step_whose_job_was_taken_is_refused(db: Database) -> None:
    _enlist(db, "c1")
    _enlist(db, "c2")
    _post(db)
    (job,) = _take(db, "c1")
    session = FlowSession(db, job, "build_instance", {})

    class Behind:
        """A fence of this session."""

        def check(self) -> None:
            session.check_open()

        def prove(self, connection: Any) -> None:
            session.prove(connection)

    with fence.standing_behind(Behind()):
        ports.SqlPortStore(db).release("somebody")
        with db.write() as connection:
            pass
    with db.write() as connection:
        conductors.retire(connection, "c1")
    _take(db, "c2", orphans=True)
    with fence.standing_behind(Behind()), pytest.raises(LeaseLost):
        ports.SqlPortStore(db).release("somebody")
    ports.SqlPortStore(db).release("somebody")  # whoever stands behind no fence may


def test_our_own_clock_ends_a_lease_before_the_databases_does(db: Database) -> None:
    lost: list[int] = []
    ours = heartbeat.Heartbeat(db, 3.0, "0", lambda: lost.append(1))
    ours.start()
    try:
        ours._stop.set()  # its heart stands still
        with db.read() as connection:
            left = float(connection.execute(sa.select(conductors_table.c.expires_at)).scalar_one()) - read_clock(connection)
        assert ours._good_until - heartbeat._clock() < left - 0.2
    finally:
        ours.stop()


def test_a_lease_that_is_known_to_have_lapsed_is_not_counted_on_while_the_next_one_cannot_be_had(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = heartbeat.Heartbeat(db, 60.0, "0", lambda: None)
    ours.start()
    try:
        ours._stop.set()
        with db.write() as connection:
            conductors.retire(connection, ours.id)

        def away(*_args: Any, **_kwargs: Any) -> None:
            raise DatabaseUnavailable(reason="away")

        monkeypatch.setattr(conductors, "enlist", away)
        assert ours.is_good(ours.id), "it has not heard of it"
        with pytest.raises(DatabaseUnavailable):
            ours._beat()
        assert not ours.is_good(ours.id)
    finally:
        ours.stop()


def test_only_conductors_of_this_kernel_and_namespace_are_known_to_be_dead(db: Database) -> None:
    """Machines and containers may share a host's name, and each has process numbers of its own."""
    elsewhere, here = str(uuid.uuid4()), heartbeat._new_id()
    for id in (elsewhere, here):
        with db.write() as connection:
            conductors.enlist(connection, id=id, hostname=socket.gethostname(), pid=2**22 + 1, version="0", lease_seconds=60)
    ours = heartbeat.Heartbeat(db, 3.0, "0", lambda: None)
    ours.start()
    try:
        with db.read() as connection:
            assert set(connection.execute(sa.select(conductors_table.c.id)).scalars()) == {elsewhere, ours.id}
    finally:
        ours.stop()


def test_what_a_host_did_for_one_that_had_lost_its_lease_is_cleaned_though_the_call_and_its_step_came_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hypervisor had the request before the lease ended, and carries it out when all is over."""
    house = House(tmp_path, conductor={"poll_interval": 0.05})
    switch, asked, is_over = Guests.switch, threading.Event(), threading.Event()

    def late(guests: Guests, guest: dict[str, Any], *state: Any) -> None:
        if asked.is_set():
            switch(guests, guest, *state)
            return
        asked.set()
        assert is_over.wait(30)
        with fence.standing_behind(None):
            guests._things.make("guests", guest["uuid"], guest, "define")

    monkeypatch.setattr(Guests, "switch", late)
    try:
        house.add_host("h1")
        with house.conductor() as first:
            (uuid,) = house.create()
            assert asked.wait(30)
            _stop_its_heart(first)
            with house.conductor():
                house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE)
                house.delete(uuid)
                house.rest()
                is_over.set()
                house.wait(lambda: not first._driving)
                house.rest()
        with house.db.read() as connection:
            assert [job.state for job in jobs.list_jobs(connection, kinds=["clean_host"])] == ["done"]
        invariants.check(house, twins_on=["h1"])
    finally:
        house.close()


def _stop_its_heart(conductor: Conductor) -> None:
    """Its lease has ended, and is not renewed."""
    heart = conductor._heartbeat
    heart._stop.set()
    heart._thread.join()
    heart._good_until = 0.0
    with conductor._db.write() as connection:
        conductors.retire(connection, heart.id)


def test_a_heart_that_fails_in_an_unforeseen_way_beats_again(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def beat(*_args: Any) -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("unforeseen")
        return True

    monkeypatch.setattr(conductors, "beat", beat)
    ours = heartbeat.Heartbeat(db, 0.3, "0", lambda: None)
    ours.start()
    deadline = time.monotonic() + 10
    while len(calls) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    ours.stop()
    assert len(calls) >= 3


def test_a_job_taken_up_by_a_conductor_that_is_told_to_stop_is_handed_on_whole() -> None:
    """TaskFlow calls a flow reverted that is suspended before a step which was under way is taken up; nothing would have been undone."""
    history = _read(next(path for path in PATHS if path.stem.endswith("build_instance_v1.build")))
    under_way = [n for n, moment in enumerate(history["moments"]) if moment["after"].endswith("RUNNING")]
    assert len(under_way) > 4
    for number in under_way:
        with histories.restored(history, number) as house:
            with house.db.write() as connection:
                (job,) = leases.take(connection, "stopping", 1, orphans=True)
            with histories._runner(house, hesitant=True) as runner:
                runner.run(Drive(job))
            with house.db.read() as connection:
                assert jobs.get(connection, job.uuid).state in ("queued", "done"), history["moments"][number]["after"]
            histories.resume(house)
            assert house.get(history["facts"]["uuids"][0]).vm_state == VmState.ACTIVE
            invariants.check(house)
