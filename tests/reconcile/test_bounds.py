"""What a round costs grows with what there is, never with all that ever was; and what a round leaves out, a look by hand finds."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor.reconcile import view
from hullwright.conductor.reconcile.doctor import Doctor, Look
from hullwright.conductor.reconcile.rounds import RECONCILE, reconcile
from hullwright.objects.states import JobState
from hullwright.persistence import jobs
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs as jobs_table
from reconcile import drift
from support.effort import scans
from support.house import House

# Their rows stay as records; of the instances, most are deleted ones some day.
_FOR_EVER = {"jobs", "flows", "atoms", "attempts", "step_events", "instance_actions", "instances"}
_OF_OPEN_ONES = {"ix_jobs_open", "ix_jobs_stuck"}


@pytest.fixture
def doctor(house: House) -> Doctor:
    """A doctor for a house with one fake host."""
    house.add_host("h1")
    return Doctor(house.db, house.drivers(), house.conf)


def test_no_statement_of_a_round_goes_through_a_table_that_only_grows(house: House, doctor: Doctor) -> None:
    drift.with_a_port(house)
    drift.with_a_volume(house)
    drift.delete(house, drift.build(house))
    looks: list[Look] = []
    statements, found = scans(house.db, lambda: looks.append(doctor.look(since=now() - 60)))
    assert looks[0].findings == ()
    assert statements > 20
    assert [(table, text) for table, index, text in found if table in _FOR_EVER and index not in _OF_OPEN_ONES] == []


_OF_THE_PAST = ["action_unclosed", "attempt_unclosed", "history_broken", "job_inconsistent"]


@pytest.mark.parametrize("name", ["action_unclosed", "attempt_unclosed", "history_with_a_gap", "job_done_and_flow_reverted"])
def test_a_round_examines_what_ended_since_the_last_and_a_look_by_hand_what_ended_before(house: House, doctor: Doctor, name: str) -> None:
    kind, maker = drift.MAKERS[name]
    subject = maker(house)
    assert doctor.look(since=now() + 1).findings == ()
    for since in (now() - 60, 0.0, None):
        assert [(it.kind, it.subject) for it in doctor.look(since=since).findings] == [(kind, subject)]


@pytest.mark.parametrize("name", ["action_unclosed", "attempt_unclosed"])
def test_what_a_round_finds_of_the_past_it_mends(house: House, doctor: Doctor, name: str) -> None:
    drift.MAKERS[name][1](house)
    look = doctor.look(since=now() - 60)
    assert [outcome.state for outcome in doctor.mend(look, kinds=_OF_THE_PAST, request_id="r")] == ["mended"]
    assert doctor.look().findings == ()


@pytest.mark.parametrize("name", ["port_lost", "attachment_lost"])
def test_a_round_compares_with_their_requests_the_instances_that_changed(house: House, doctor: Doctor, name: str) -> None:
    kind, maker = drift.MAKERS[name]
    subject = maker(house)
    drift.execute(house, sa.update(instances).where(instances.c.uuid == subject).values(updated_at=now() - 100))
    assert doctor.look(since=now() - 60).findings == ()
    for since in (now() - 200, None):
        assert [(it.kind, it.subject) for it in doctor.look(since=since).findings] == [(kind, subject)]


def test_histories_are_read_of_the_latest_jobs_and_of_no_more_than_told(
    house: House, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = drift.history_with_a_gap(house)
    drift.execute(house, sa.update(jobs_table).where(jobs_table.c.uuid == older).values(finished_at=now() - 50))
    newer = drift.history_with_a_gap(house)
    monkeypatch.setattr(view, "HISTORY_MAX", 1)
    assert [it.subject for it in doctor.look().findings] == [newer]
    monkeypatch.undo()
    assert {it.subject for it in doctor.look().findings} == {older, newer}
    drift.execute(house, sa.update(jobs_table).where(jobs_table.c.uuid == older).values(finished_at=now() - view.HISTORY_SECONDS - 1))
    assert [it.subject for it in doctor.look().findings] == [newer]


def test_each_round_begins_an_interval_before_the_last_one(house: House) -> None:
    house.add_host("h1")
    with house.conductor() as conductor:
        conductor._caretaker._post(RECONCILE)
        house.rest()
        (first,) = _rounds(house)
        drift.execute(house, sa.update(jobs_table).where(jobs_table.c.kind == RECONCILE).values(created_at=now() - 700))
        conductor._caretaker._post(RECONCILE)
        house.rest()
        (second,) = _rounds(house)
    assert first.inputs["since"] == 0.0
    assert second.inputs["since"] == pytest.approx(now() - 1300, abs=30)


def test_the_second_look_of_a_round_goes_as_far_back_as_its_first(house: House) -> None:
    house.add_host("h1")
    drift.history_with_a_gap(house)
    since = now() - 60
    with house.conductor() as conductor:
        reconcile(conductor.shared, {"request_id": "r", "since": since})
        found = _rounds(house)[0]
        assert found.inputs["since"] == since
        told = reconcile(conductor.shared, found.inputs)
        house.rest()
    assert told is not None
    assert [(it["kind"], it["state"]) for it in told["outcomes"]] == [("history_broken", "found")]


def _rounds(house: House) -> list[Any]:
    with house.db.read() as connection:
        return jobs.list_jobs(connection, kinds=[RECONCILE], states=list(JobState), limit=100)
