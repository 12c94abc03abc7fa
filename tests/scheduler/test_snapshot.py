"""The snapshot follows the database by change: it reads what changed and no more, and misses nothing whatever order commits come in."""

import dataclasses
import random
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from hullwright.objects.errors import ComputeResourcesUnavailable, Conflict, HostNotFound
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.persistence import aggregates, allocations, hosts
from hullwright.persistence.database import Database
from hullwright.persistence.models.hosts import hosts as hosts_table
from hullwright.persistence.models.hosts import inventories
from hullwright.scheduler.host_view import HostView
from hullwright.scheduler.snapshot import Snapshot

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=16384, disk_gb=100, disk_free_gb=100)
SIZES = [Inventory("VCPU", 8, 0, 4.0), Inventory("MEMORY_MB", 16384), Inventory("DISK_GB", 100)]
ASKED = {"VCPU": 1, "MEMORY_MB": 512}


def add(conn, name: str) -> int:
    host = hosts.register(conn, name, f"fake:///{name}", "fake")
    hosts.record_facts(conn, name, dataclasses.replace(FACTS, hostname=name), SIZES)
    return host.id


def add_hosts(db: Database, count: int) -> list[int]:
    with db.write() as conn:
        return [add(conn, f"h{number}") for number in range(count)]


def read(snapshot: Snapshot) -> int:
    """Refresh, as soon as no transaction of any database of the server is open; how many rows that read.

    What was written while one was open is read again, in case that one has older news.
    """
    deadline = time.monotonic() + 60
    while is_anything_open(snapshot._db):
        assert time.monotonic() < deadline, "another transaction does not end"
        time.sleep(0.01)
    return read_at_once(snapshot)


def is_anything_open(db: Database) -> bool:
    if db.engine.dialect.name != "postgresql":
        return False
    with db.read() as conn:
        return bool(conn.exec_driver_sql("SELECT pg_snapshot_xmin(s) < pg_snapshot_xmax(s) FROM pg_current_snapshot() AS s").scalar_one())


def read_at_once(snapshot: Snapshot) -> int:
    """Refresh; how many rows that read."""
    before = snapshot.rows_read
    assert snapshot.refresh(0.0)
    return snapshot.rows_read - before


def test_a_long_first_reading_does_not_keep_the_view_old(sqlite_db, monkeypatch):
    """It reads everything, and tells nothing of what the readings of changes will take."""
    add_hosts(sqlite_db, 2)
    moments = iter([0.0, 4.0, 5.0, 9.0, 10.0])  # begun and ended, twice; then asked once more
    monkeypatch.setattr("hullwright.scheduler.snapshot.time", SimpleNamespace(monotonic=lambda: next(moments)))
    snapshot = Snapshot(sqlite_db)
    assert snapshot.refresh(1.0)
    assert snapshot.refresh(1.0), "five seconds later the view is too old"
    assert not snapshot.refresh(1.0), "a reading of changes that took so long is good for longer"


def used(snapshot: Snapshot, host_id: int, resource: str = "MEMORY_MB") -> int:
    return int(snapshot.columns.resource(resource).used[snapshot.columns.position_of_id(host_id)])


def told(snapshot: Snapshot) -> dict:
    """All that the columns say, by host."""
    columns = snapshot.columns
    plain = (
        "ids",
        "enabled",
        "forced_down",
        "silent_seconds",
        "failed_builds",
        "probed_at",
        "hypervisor_version",
        "instance_counts",
        "io_ops",
    )
    found = {}
    for at, name in enumerate(columns.names):
        assert columns.position(name) == columns.position_of_id(int(columns.ids[at])) == at
        found[name] = {column: getattr(columns, column)[at].item() for column in plain}
        found[name]["seen"] = bool(columns.last_seen_at[at] > 0)
        found[name]["zone"] = [zone for zone in ("nova", "west") if columns.availability_zone.equal(zone)[at]]
        found[name]["uuid"] = HostView(columns, at)["uuid"]
        found[name]["reason"] = columns.quarantine_reasons.get(int(columns.ids[at]))
        for resource in ("VCPU", "MEMORY_MB", "DISK_GB"):
            room = columns.resource(resource)
            found[name][resource] = tuple(getattr(room, amount)[at].item() for amount in ("usable", "ratio", "capacity", "used"))
    return found


def test_a_refresh_reads_the_rows_that_changed_and_no_others(db):
    ids = add_hosts(db, 40)
    snapshot = Snapshot(db)
    assert read(snapshot) == 40 + 40 + 3 * 40, "the first one reads beats, facts and inventories of all"
    assert read(snapshot) == 0
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="i", host_id=ids[7], resources=ASKED)
    assert read(snapshot) == 2
    assert used(snapshot, ids[7]) == 512
    with db.write() as conn:
        allocations.release(conn, "i")
        hosts.count_build(conn, "h3", failed=True)
    assert read(snapshot) == 3
    assert used(snapshot, ids[7]) == 0
    assert snapshot.columns.failed_builds.sum() == 1
    with db.write() as conn:
        hosts.disable(conn, "h4")
    assert read(snapshot) == 2, "its row, and what is known of it"
    assert read(snapshot) == 0


def test_answers_without_news_are_not_read(db):
    add_hosts(db, 10)
    snapshot = Snapshot(db)
    read(snapshot)
    with db.write() as conn:
        assert len(hosts.take_due_checks(conn, interval_seconds=-1.0, limit=10)) == 10
        for number in range(10):
            hosts.record_facts(conn, f"h{number}", dataclasses.replace(FACTS, hostname=f"h{number}"), SIZES)
    assert read(snapshot) == 0
    with db.write() as conn:
        hosts.record_silence(conn, "h1", "no route", at=1000.0)
        hosts.record_silence(conn, "h1", "no route", at=1090.0)
    assert read(snapshot) == 1
    assert snapshot.columns.silent_seconds.tolist() == [0.0, 90.0, *[0.0] * 8]
    with db.write() as conn:
        hosts.record_facts(conn, "h1", dataclasses.replace(FACTS, hostname="h1"), SIZES)
    assert read(snapshot) == 1
    assert snapshot.columns.silent_seconds.sum() == 0


def test_what_was_rolled_back_was_never_there(db):
    (host_id,) = add_hosts(db, 1)
    snapshot = Snapshot(db)
    read(snapshot)
    with pytest.raises(HostNotFound), db.write() as conn:  # noqa: PT012
        allocations.claim(conn, instance_uuid="i", host_id=host_id, resources=ASKED)
        hosts.get(conn, "nobody")
    assert read(snapshot) == 0
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="j", host_id=host_id, resources=ASKED)
    assert read(snapshot) == 2
    assert used(snapshot, host_id) == 512


def test_removed_hosts_go_and_their_ids_do_not_come_back(db):
    ids = add_hosts(db, 3)
    snapshot = Snapshot(db)
    read(snapshot)
    with db.write() as conn:
        hosts.remove(conn, "h2")  # the one with the largest numbers
        new = add(conn, "h2")
    assert new not in ids
    read(snapshot)
    assert snapshot.columns.names == ["h0", "h1", "h2"]
    assert snapshot.columns.ids.tolist() == [*ids[:2], new]
    with db.write() as conn:
        hosts.remove(conn, "h2")
    assert read(snapshot) == 1
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="i", host_id=ids[0], resources=ASKED)
    assert read(snapshot) == 2
    assert (snapshot.columns.names, used(snapshot, ids[0])) == (["h0", "h1"], 512)


@pytest.mark.postgresql
def test_transactions_that_commit_in_another_order_than_they_began_are_all_seen(postgres_tables_url):
    db = Database(postgres_tables_url)
    try:
        ids = add_hosts(db, 3)
        snapshot = Snapshot(db)
        read(snapshot)
        with db.write() as slow:
            allocations.claim(slow, instance_uuid="slow", host_id=ids[0], resources=ASKED)
            for number in range(3):
                with db.write() as quick:
                    allocations.claim(quick, instance_uuid=f"q{number}", host_id=ids[1], resources=ASKED)
                read_at_once(snapshot)
                assert (used(snapshot, ids[0]), used(snapshot, ids[1])) == (0, 512 * (number + 1))
            allocations.claim(slow, instance_uuid="slow2", host_id=ids[1], resources=ASKED)  # after others, with an older number
        read(snapshot)
        assert (used(snapshot, ids[0]), used(snapshot, ids[1])) == (512, 512 * 4)
        read(snapshot)
        assert read(snapshot) == 0, "once nothing old is open, nothing is read twice"
    finally:
        db.close()


def test_a_choice_counts_until_its_claim_is_seen_and_never_twice(db):
    ids = add_hosts(db, 2)
    snapshot = Snapshot(db)
    read(snapshot)
    for number in range(4):
        snapshot.note_choice(f"i{number}", ids[0], ASKED)
    assert used(snapshot, ids[0]) == 4 * 512
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="i0", host_id=ids[0], resources=ASKED)
        allocations.claim(conn, instance_uuid="i1", host_id=ids[1], resources=ASKED)  # another host than was chosen
    read(snapshot)
    assert (used(snapshot, ids[0]), used(snapshot, ids[1])) == (3 * 512, 512)
    snapshot.refresh(0.0, count_choices=False)
    assert (used(snapshot, ids[0]), used(snapshot, ids[1])) == (512, 512)
    snapshot.forget_choice("i2")
    assert used(snapshot, ids[0]) == 512
    read(snapshot)
    assert used(snapshot, ids[0]) == 2 * 512


def test_a_probe_that_was_chosen_and_forgotten_is_as_the_database_says(db):
    (host_id,) = add_hosts(db, 1)
    with db.write() as conn:
        conn.execute(sa.update(hosts_table).values(probed_at=100.0))
    snapshot = Snapshot(db)
    read(snapshot)
    snapshot.note_choice("i", host_id, ASKED, probe_at=500.0)
    assert snapshot.columns.probed_at.tolist() == [500.0]
    assert read(snapshot) == 0
    assert snapshot.columns.probed_at.tolist() == [500.0]
    snapshot.forget_choice("i")
    read(snapshot)
    assert snapshot.columns.probed_at.tolist() == [100.0]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_a_snapshot_that_followed_it_is_one_that_was_read_anew(db, seed):
    luck = random.Random(seed)
    add_hosts(db, 6)
    snapshot = Snapshot(db)
    names, held = [f"h{number}" for number in range(6)], 0
    for step in range(60):
        name = luck.choice(names)
        try:
            with db.write() as conn:
                match luck.randrange(10):
                    case 0:
                        hosts.disable(conn, name)
                    case 1:
                        hosts.enable(conn, name)
                    case 2:
                        hosts.count_build(conn, name, failed=luck.random() < 0.8, step="spawn", reason="broke", threshold=2)
                    case 3:
                        hosts.record_silence(conn, name, "no route", at=1000.0 + step)
                    case 4:
                        version = luck.choice([7002022, 8000000])
                        more = [dataclasses.replace(SIZES[1], total=luck.choice([8192, 16384]))]
                        hosts.record_facts(conn, name, dataclasses.replace(FACTS, hypervisor_version=version), more)
                    case 5:
                        aggregates.set_home_zone(conn, name, luck.choice(["nova", "west"]))
                    case 6:
                        hosts.remove(conn, name)
                    case 7:
                        if not conn.execute(sa.select(hosts_table.c.id).where(hosts_table.c.name == name)).first():
                            add(conn, name)
                    case 8:
                        (allocations.release if luck.random() < 0.7 else allocations.end_build)(conn, f"i{luck.randrange(held + 1)}")
                    case _:
                        held += 1
                        job = luck.choice([None, "job"])
                        allocations.claim(conn, instance_uuid=f"i{held}", host_id=hosts.get(conn, name).id, resources=ASKED, job_uuid=job)
                if luck.random() < 0.1:
                    raise Conflict("given up")
        except (Conflict, HostNotFound, ComputeResourcesUnavailable):
            pass
        if luck.random() < 0.5:
            read(snapshot)
            anew = Snapshot(db)
            read(anew)
            assert told(snapshot) == told(anew)


def test_numbers_of_changes_only_grow_on_one_connection(db):
    ids = add_hosts(db, 2)
    seen = 0
    for number in range(4):
        with db.write() as conn:
            allocations.claim(conn, instance_uuid=f"i{number}", host_id=ids[number % 2], resources=ASKED)
            largest = conn.execute(sa.select(sa.func.max(inventories.c.changed))).scalar_one()
        assert largest > seen
        seen = largest
