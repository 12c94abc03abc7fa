"""Records of what was over long ago are removed with all that hangs on them, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.objects.errors import BadRequest
from hullwright.objects.states import JobState, VmState
from hullwright.persistence import idempotency_keys, jobs
from hullwright.persistence.database import now
from hullwright.persistence.models import metadata
from hullwright.persistence.models.changes import Horizon
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.persistence.models.jobs import step_events
from hullwright.persistence.purge import purge
from hullwright.scheduler.image_tally import ImageTally
from support.house import House

DAY = 86_400.0
YEAR = 365 * DAY


@pytest.fixture(name="house")
def house_with_three(house_on_each: House) -> House:
    """A host, two instances that were built and deleted a year ago, one that lives, and one that was deleted just now."""
    house = house_on_each
    house.add_host("h1")
    image_id = house.add_image()
    with house.conductor():
        old = house.create(2, image_id=image_id)
        house.create()
        house.rest()
        for uuid in old:
            house.delete(uuid)
        house.rest()
        age(house)
        (young,) = house.create()
        house.rest()
        house.delete(young)
        house.rest()
    return house


def age(house: House) -> None:
    """Have all that is over be over for a year."""
    with house.db.write() as connection:
        connection.execute(instances.update().where(instances.c.deleted_at.is_not(None)).values(deleted_at=now() - YEAR))
        connection.execute(jobs_table.update().where(jobs_table.c.finished_at.is_not(None)).values(finished_at=now() - YEAR))


def run(house: House, **more: Any) -> Mapping[str, int]:
    """Remove what was over a month ago; only the tables of which something went."""
    removed = purge(house.db, now() - 30 * DAY, keep_keys_seconds=2 * DAY, **more)
    return {table: count for table, count in removed.items() if count}


def everything(house: House) -> dict[str, set[str]]:
    """All rows of all tables, as text."""
    with house.db.read() as connection:
        return {name: {str(row) for row in connection.execute(sa.select(table))} for name, table in metadata.tables.items()}


def gone(house: House) -> list[str]:
    """The deleted instances that are on record, oldest first."""
    query = sa.select(instances.c.uuid).where(instances.c.deleted_at.is_not(None)).order_by(instances.c.id)
    with house.db.read() as connection:
        return list(connection.scalars(query))


def test_what_was_deleted_long_ago_goes_with_all_that_hangs_on_it_and_nothing_else_does(house: House) -> None:
    before, old = everything(house), gone(house)[:2]
    with house.db.read() as connection:
        work = list(connection.scalars(sa.select(jobs_table.c.uuid).where(jobs_table.c.instance_uuid.in_(old))))
        without = list(connection.scalars(sa.select(jobs_table.c.uuid).where(jobs_table.c.finished_at < now() - DAY)))
    would = run(house, is_dry=True)
    assert everything(house) == before
    removed = run(house)
    assert removed == would
    assert {"instances", "instance_actions", "jobs", "flows", "atoms", "attempts", "step_events", "step_progress"} <= set(removed)
    after = everything(house)
    assert {name: len(rows - after[name]) for name, rows in before.items() if rows - after[name]} == removed
    assert all(after[name] <= rows for name, rows in before.items())
    named = {*old, *work, *without}
    for name, rows in before.items():
        assert all(any(uuid in row for uuid in named) for row in rows - after[name]), name
        assert not any(uuid in row for row in after[name] for uuid in old), name
    assert run(house) == {}


def test_what_is_not_over_keeps_its_instance_on_record(house: House) -> None:
    open_one, cleaned = gone(house)[:2]
    with house.db.write() as connection:
        jobs.post(connection, kind="delete_instance", instance_uuid=open_one, inputs={"instance_uuid": open_one})
        jobs.post(connection, kind="clean_host", instance_uuid=None, inputs={"instance_uuid": cleaned, "host": "h1"})
    run(house)
    assert {open_one, cleaned} <= set(gone(house))
    with house.db.write() as connection:
        is_open = jobs_table.c.state == JobState.QUEUED
        connection.execute(jobs_table.update().where(is_open).values(state=JobState.STUCK, finished_at=now() - YEAR))
    run(house)
    assert {open_one, cleaned} <= set(gone(house))
    with house.db.write() as connection:
        connection.execute(jobs_table.update().where(jobs_table.c.state == JobState.STUCK).values(state=JobState.REVERTED))
        connection.exec_driver_sql(
            f"INSERT INTO allocations (instance_uuid, host_id, resource_class, amount, created_at) VALUES ('{open_one}', 1, 'VCPU', 1, 1)"
        )
    run(house)
    assert open_one in gone(house)
    assert cleaned not in gone(house)


def test_numbers_go_on_where_they_were(house: House) -> None:
    with house.conductor():
        (newest,) = house.create()
        house.rest()
        house.delete(newest)
        house.rest()
    age(house)
    with house.db.read() as connection:
        horizon = connection.scalar(sa.select(Horizon()))
        largest = connection.scalar(sa.select(sa.func.max(instances.c.id)))
    run(house)
    assert gone(house) == [newest]
    with house.db.read() as connection:
        assert connection.scalar(sa.select(Horizon())) >= horizon
    (next_one,) = house.create()
    with house.db.read() as connection:
        assert connection.scalar(sa.select(instances.c.id).where(instances.c.uuid == next_one)) > largest


def test_the_history_of_a_living_instance_stays_whole(house: House) -> None:
    with house.db.read() as connection:
        lives = connection.scalar(sa.select(instances.c.uuid).where(instances.c.vm_state == VmState.ACTIVE))
    assert lives is not None
    age(house)
    job = house.build_of(lives)
    with house.db.read() as connection:
        events = connection.scalar(sa.select(sa.func.count()).where(step_events.c.job_uuid == job.uuid))
    run(house)
    assert house.build_of(lives) == job
    with house.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(step_events.c.job_uuid == job.uuid)) == events > 0


def test_keys_that_still_count_stay(house: House) -> None:
    table = idempotency_keys.table
    with house.db.write() as connection:
        for number, days in enumerate((1, 20, 40, 60)):
            row = {"project_id": "p", "key": str(number), "fingerprint": "f", "server_ids": [], "reservation_id": "r"}
            connection.execute(sa.insert(table).values(**row, created_at=now() - days * DAY))
    purge(house.db, now() - 30 * DAY, keep_keys_seconds=50 * DAY)
    with house.db.read() as connection:
        assert list(connection.scalars(sa.select(table.c.key).order_by(table.c.key))) == ["0", "1", "2"]


def test_many_go_in_many_transactions(house_on_each: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullwright.persistence.purge._AT_ONCE", 2)
    house = house_on_each
    uuids = house.create(8)
    with house.db.write() as connection:
        connection.execute(jobs_table.update().values(state=JobState.DONE, finished_at=now() - YEAR))
        connection.execute(instances.update().values(vm_state=VmState.DELETED, task_state=None, deleted_at=now() - YEAR))
    commits = house.db.commits
    assert run(house)["instances"] == 7
    assert house.db.commits - commits >= 4
    assert gone(house) == uuids[-1:]


def test_what_was_over_less_than_a_day_ago_is_not_removed(house_on_each: House) -> None:
    with pytest.raises(BadRequest, match="a day ago"):
        purge(house_on_each.db, now() - 0.5 * DAY, keep_keys_seconds=0)


def test_a_scheduler_that_has_slept_while_an_instance_went_counts_it_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    image_properties = {"hw_disk_bus": "virtio"}
    with house.conductor():
        (uuid,) = house.create(image_properties=image_properties)
        house.rest()
        tally = ImageTally()
        with house.db.read() as connection:
            tally.refresh(connection)
        house.delete(uuid)
        house.rest()
        house.create()
        house.rest()
    assert tally._by_pair == {("hw_disk_bus", "virtio"): {"h1": 1}}
    age(house)
    run(house)
    assert uuid not in gone(house)
    slept = time.monotonic() + DAY
    monkeypatch.setattr(time, "monotonic", lambda: slept)
    with house.db.read() as connection:
        tally.refresh(connection)
    assert tally._by_pair == {}


def test_the_command_tells_what_would_go_and_what_went(house_on_each: House, tmp_path: Path) -> None:
    house = house_on_each
    house.create(3)
    with house.db.write() as connection:
        connection.execute(jobs_table.update().values(state=JobState.DONE, finished_at=now() - YEAR))
        connection.execute(instances.update().values(vm_state=VmState.DELETED, task_state=None, deleted_at=now() - YEAR))
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('0001')")
    (tmp_path / "c.conf").write_text(f"[database]\nconnection = {house.db.url}\n")
    command = [sys.executable, "-m", "hullwright.cli.main", "--config-file", str(tmp_path / "c.conf"), "db", "purge", "-f", "csv"]

    def told(*arguments: str) -> tuple[int, list[str]]:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout.splitlines() or done.stderr.splitlines()

    code, lines = told("--before", "30", "--dry-run")
    assert (code, lines[0]) == (0, '"Table","Would be removed"')
    assert '"instances",2' in lines
    code, lines = told("--before", "30")
    assert (code, lines[0]) == (0, '"Table","Removed"')
    assert '"instances",2' in lines
    assert len(gone(house)) == 1
    code, lines = told("--before", "0.5")
    assert (code, len(lines)) == (1, 1)
