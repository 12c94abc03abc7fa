"""Rounds: made by one conductor at a time, twice before anything is mended, on record, and never at the cost of anything healthy.

What happens by chance goes by a number that is printed when a test fails; HULLWRIGHT_DURABILITY_SEED repeats it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor.reconcile import caretaker as caretakers
from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conductor.reconcile.findings import KINDS, Outcome
from hullwright.conductor.reconcile.rounds import RECONCILE, mended_kinds
from hullwright.conf.reconcile import SAFE
from hullwright.objects.builds import Job
from hullwright.objects.errors import InstanceNotFound, LeaseLost
from hullwright.objects.states import JobState, VmState
from hullwright.persistence import jobs, volumes
from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import jobs as jobs_table
from reconcile import drift
from support import invariants
from support.house import House

SEED = int(os.environ.get("HULLWRIGHT_DURABILITY_SEED") or time.strftime("%Y%m%d"))
_SEEDED = "import random; random.seed({seed!r})"  # of faults that happen by chance
# Kills leave these behind, and mending them is right.
_OF_KILLS = {"conductor_stale", "job_orphaned"}


def rounds(house: House) -> list[Job]:
    """All that are on record, newest first."""
    with house.db.read() as conn:
        return jobs.list_jobs(conn, kinds=[RECONCILE], limit=1000)


def outcomes(house: House) -> list[dict[str, Any]]:
    """What all rounds did."""
    return [outcome for job in rounds(house) for outcome in (job.result or {}).get("outcomes", ())]


def quick(house: House, **options: Any) -> None:
    """Rounds that follow each other at once."""
    for name, value in ({"interval": 0.1, "grace_seconds": 0.05} | options).items():
        house.conf.set_override(name, value, group="reconcile")
        house.overrides.setdefault("reconcile", {})[name] = value


def test_the_kinds_that_are_mended_without_asking_exist_and_destroy_nothing_doubtful() -> None:
    assert set(SAFE) <= set(KINDS)
    assert not {kind for kind in SAFE if KINDS[kind].needs_consent}


def test_rounds_mend_what_is_safe_and_report_the_rest(house: House) -> None:
    house.add_host("h1")
    reserved, unknown = drift.volume_reserved(house), drift.guest_unknown(house)
    quick(house)
    with house.conductor():
        house.wait(lambda: len(outcomes(house)) >= 2)
    told = {outcome["kind"]: outcome for outcome in outcomes(house)}
    assert (told["volume_stuck"]["subject"], told["volume_stuck"]["state"]) == (reserved, "mended")
    assert (told["guest_unknown"]["subject"], told["guest_unknown"]["state"]) == (unknown, "found")
    assert drift.fake(house).things.get("guests", unknown) is not None


def test_a_round_whose_job_was_taken_while_it_looked_mends_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add_host("h1")
    reserved, mend, lost = drift.volume_reserved(house), Doctor.mend, []

    def mend_late(doctor: Doctor, *args: Any, **options: Any) -> list[Outcome]:
        """Once, somebody else has taken the job by then."""
        if not lost:
            drift.execute(house, sa.update(jobs_table).where(jobs_table.c.state == JobState.RUNNING).values(fence=jobs_table.c.fence + 1))
            try:
                return mend(doctor, *args, **options)
            except LeaseLost:
                with house.db.read() as conn:
                    lost.append(volumes.get(conn, reserved).status)
                raise
        return mend(doctor, *args, **options)

    monkeypatch.setattr(Doctor, "mend", mend_late)
    quick(house)
    with house.conductor():
        house.wait(lambda: outcomes(house))
    assert lost == ["reserved"]
    assert [outcome["state"] for outcome in outcomes(house)] == ["mended"], "by whoever has taken it"


def test_a_finding_that_stays_is_told_once_and_rounds_without_news_are_cleared_away(house: House) -> None:
    house.add_host("h1")
    drift.guest_unknown(house)
    quick(house)
    with house.conductor():
        house.wait(lambda: outcomes(house))
        time.sleep(2.0)
        assert len(outcomes(house)) == 1
    assert len(rounds(house)) < 8


def test_nothing_is_mended_that_is_not_listed(house: House) -> None:
    house.add_host("h1")
    drift.volume_reserved(house)
    quick(house, mend=[])
    with house.conductor():
        house.wait(lambda: outcomes(house))
    assert [outcome["state"] for outcome in outcomes(house)] == ["found"]


@pytest.mark.parametrize(("action", "told", "is_left"), [("reap", "posted", False), ("log", "found", True), ("noop", None, True)])
def test_the_guest_of_a_deleted_instance_is_dealt_with_as_configured(house: House, action: str, told: str | None, is_left: bool) -> None:
    house.add_host("h1")
    instance_uuid = drift.guest_of_deleted(house)
    quick(house, running_deleted_instance_action=action)
    assert ("guest_of_deleted" in mended_kinds(house.conf)) is (action == "reap")
    with house.conductor():
        if told is None:
            time.sleep(1.0)
            assert outcomes(house) == []
        else:
            house.wait(lambda: outcomes(house))
            assert outcomes(house)[0]["state"] == told
        if not is_left:
            house.wait(lambda: drift.fake(house).things.get("guests", instance_uuid) is None)
    assert (drift.fake(house).things.get("guests", instance_uuid) is not None) is is_left


def test_of_many_conductors_one_posts_a_round(house: House) -> None:
    house.add_host("h1")
    with house.conductor() as conductor:
        keepers = [caretakers.Caretaker(conductor.shared, house.wakeup) for _ in range(8)]
        barrier = threading.Barrier(8)

        def post(keeper: caretakers.Caretaker) -> None:
            barrier.wait()
            keeper._post(RECONCILE)

        threads = [threading.Thread(target=post, args=(keeper,)) for keeper in keepers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(rounds(house)) == 1
        house.rest()


def test_the_next_round_is_made_when_the_interval_is_over_and_not_before(house: House) -> None:
    house.add_host("h1")
    with house.conductor() as conductor:
        keeper = caretakers.Caretaker(conductor.shared, house.wakeup)
        due = keeper._post(RECONCILE)
        house.rest()
        assert due == pytest.approx(now() + 600, abs=5)
        assert keeper._post(RECONCILE) == pytest.approx(now() + 600, abs=5)
        assert len(rounds(house)) == 1
        with house.db.write() as conn:
            conn.execute(sa.update(jobs_table).where(jobs_table.c.kind == RECONCILE).values(created_at=now() - 601))
        keeper._post(RECONCILE)
        house.rest()
        assert [job.state for job in rounds(house)] == [JobState.DONE]  # the first had no news and is cleared away
        assert rounds(house)[0].created_at > now() - 60


def test_a_round_whose_conductor_dies_is_made_by_the_next(house: House) -> None:
    house.add_host("h1")
    drift.volume_reserved(house)
    quick(house)
    house.faults("h1", {"operation": "leftovers", "nth": 2, "kill": True})
    process = house.start_conductor()
    assert process.wait(20) == -signal.SIGKILL
    assert outcomes(house) == []
    house.start_conductor()
    house.wait(lambda: outcomes(house), 30)
    mended = [(outcome["kind"], outcome["state"]) for outcome in outcomes(house) if outcome["kind"] not in _OF_KILLS]
    assert mended == [("volume_stuck", "mended")]


@pytest.mark.slow
def test_on_a_busy_house_whose_conductors_are_killed_nothing_healthy_is_mended(house_on_each: House) -> None:
    """100 builds and deletes, two conductors of which one is killed all the time, rounds and a doctor without any patience."""
    house, rng = house_on_each, random.Random(SEED)
    print(f"seed {SEED}")
    quick(house, interval=0.05, grace_seconds=0.05, sync_power_state_interval=0.05, mend=list(KINDS))
    for number in range(3):
        house.add_host(f"h{number}")
        slow = {"operation": ["spawn", "destroy"], "delay": [0.01, 0.06]}
        house.faults(f"h{number}", slow, {"operation": "spawn", "probability": 0.1, "error": "HypervisorError"})
    network = drift.new_network(house)
    done: list[Outcome] = []
    looks, stop = [0], threading.Event()

    failures: list[Exception] = []

    def examine() -> None:
        drivers = house.drivers()
        doctor = Doctor(house.db, drivers, house.conf)
        try:
            while not stop.is_set():
                look = doctor.examine(grace_seconds=0.05)
                done.extend(doctor.mend(look, kinds=tuple(KINDS), with_consent=True, request_id="req-doctor"))
                looks[0] += 1
        except Exception as error:  # noqa: BLE001  told by the assertion below
            failures.append(error)
        finally:
            drivers.close()

    thread = threading.Thread(target=examine)
    thread.start()
    uuids: list[str] = []
    try:
        house.start_conductor(_SEEDED.format(seed=SEED))
        for number in range(10):
            victim = house.start_conductor(_SEEDED.format(seed=f"{SEED} {number}"))
            for _ in range(10):
                volume = house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True)
                uuids += house.create(networks=(house.request_port(network),), block_devices=(volume,))
            time.sleep(0.3)
            for instance_uuid in rng.sample(uuids, len(uuids) // 4):
                with contextlib.suppress(InstanceNotFound):  # it is deleted already
                    house.delete(instance_uuid)
            time.sleep(0.3)
            victim.kill()
        resting = (VmState.ACTIVE, VmState.ERROR, VmState.DELETED)
        house.wait(lambda: all(house.get(uuid).vm_state in resting and house.get(uuid).task_state is None for uuid in uuids), 150)
        house.wait(lambda: looks[0] > 20 or failures, 150)
    finally:
        stop.set()
        thread.join(30)
    assert failures == []
    mended = [
        (it.finding.kind, it.finding.evidence, it.text)
        for it in done
        if it.state in ("mended", "posted") and it.finding.kind not in _OF_KILLS
    ]
    assert mended == []
    assert [told for told in done if told.state == "refused"] == [], "nothing was taken for a defect"
    assert [it for it in outcomes(house) if not KINDS[it["kind"]].is_mendable] == []
    by_rounds = [it for it in outcomes(house) if it["state"] in ("mended", "posted") and it["kind"] not in _OF_KILLS]
    assert by_rounds == []
    assert house.states(uuids).get(VmState.ACTIVE, 0) > 10
    for process in house.processes:
        process.terminate()
    for process in house.processes:
        process.wait(30)
    with house.db.write() as conn:
        conn.execute(sa.delete(jobs_table).where(jobs_table.c.kind.in_([RECONCILE, "sync_power_states"])))
    with house.db.read() as conn:
        powers = jobs.list_jobs(conn, kinds=["stop_instance"])
    assert powers == []
    # What a kill left open is finished by one last conductor, without rounds.
    for name in ("interval", "sync_power_state_interval"):
        house.conf.set_override(name, 0.0, group="reconcile")
    with house.conductor():
        house.rest(60)
    invariants.check(house)
