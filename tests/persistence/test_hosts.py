"""Hosts: registered, changed, asked by one at a time, and forgotten only when nothing is on them."""

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from hullwright.objects.errors import Conflict, HostExists, HostNotFound
from hullwright.objects.hosts import HostFacts, Inventory, is_up
from hullwright.persistence import aggregates, allocations, hosts
from hullwright.persistence.models.hosts import hosts as hosts_table
from hullwright.persistence.models.hosts import inventories as inventories_table

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=16384, disk_gb=100, disk_free_gb=90, cpu_features=("vmx", "ssse3"))


def register(db, *names):
    with db.write() as conn:
        return [hosts.register(conn, name, f"fake:///{name}", "fake") for name in names]


def generation(db, name):
    with db.read() as conn:
        return conn.execute(sa.select(hosts_table.c.generation).where(hosts_table.c.name == name)).scalar()


def test_a_registered_host_is_found_with_what_it_was_given(db):
    with db.write() as conn:
        made = hosts.register(conn, "h2", "qemu+tls://h2/system", availability_zone="west")
    register(db, "h1")
    with db.read() as conn:
        assert hosts.get(conn, "h2") == made
        assert [host.name for host in hosts.list_all(conn)] == ["h1", "h2"]
    assert (made.driver, made.availability_zone, made.enabled, made.facts, made.last_seen_at) == ("libvirt", "west", True, None, 0.0)


def test_a_name_is_taken_once(db):
    register(db, "h1")
    with pytest.raises(HostExists, match="h1"):
        register(db, "h1")


def test_an_unknown_host_is_said_to_be_unknown_by_everything(db):
    attempts = [
        hosts.get,
        hosts.enable,
        hosts.disable,
        hosts.remove,
        lambda conn, name: hosts.force_down(conn, name, True),
        lambda conn, name: aggregates.set_home_zone(conn, name, "west"),
        lambda conn, name: hosts.record_facts(conn, name, FACTS),
    ]
    for attempt in attempts:
        with pytest.raises(HostNotFound, match="nobody"), db.write() as conn:
            attempt(conn, "nobody")


def test_facts_come_back_as_they_were_told_and_a_reader_sees_that_they_changed(db):
    register(db, "h1")
    with db.write() as conn:
        hosts.record_facts(conn, "h1", FACTS, at=100.0)
    changed = generation(db, "h1")
    with db.write() as conn:
        hosts.record_facts(conn, "h1", FACTS, at=110.0)
    with db.read() as conn:
        host = hosts.get(conn, "h1")
    assert (host.facts, host.last_seen_at) == (FACTS, 110.0)
    assert generation(db, "h1") == changed
    with db.write() as conn:
        hosts.record_facts(conn, "h1", dataclasses.replace(FACTS, vcpus=16))
        hosts.disable(conn, "h1", "bad disk")
    assert generation(db, "h1") == changed + 2


def test_silence_lasts_from_the_first_question_without_an_answer_to_the_latest_and_ends_with_an_answer(db):
    register(db, "h1", "other")

    def after(record, *args, **more):
        with db.write() as conn:
            record(conn, "h1", *args, **more)
            return hosts.get(conn, "h1")

    assert not is_up(after(hosts.record_silence, "no route", at=10.0), 60), "it was never seen"
    answered = after(hosts.record_facts, FACTS, at=100.0)
    assert (answered.silent_since, answered.silent_seconds, answered.error) == (None, 0.0, None)
    assert is_up(answered, 60), "however long ago that was: nobody asked since"
    once = after(hosts.record_silence, "no route", at=5000.0)
    assert (once.silent_since, once.silent_seconds, once.last_seen_at, once.error) == (5000.0, 0.0, 100.0, "no route")
    assert is_up(once, 60)
    assert is_up(after(hosts.record_silence, "no route", at=5060.0), 60)
    long = after(hosts.record_silence, "timeout", at=5060.5)
    assert (long.silent_since, long.silent_seconds, long.error) == (5000.0, 60.5, "timeout")
    assert not is_up(long, 60)
    assert is_up(after(hosts.record_facts, FACTS, at=5061.0), 60)
    assert not is_up(after(hosts.force_down, True), 60)
    with db.read() as conn:
        assert hosts.get(conn, "other").silent_since is None


def test_an_operators_word_is_kept(db):
    register(db, "h1")
    with db.write() as conn:
        hosts.disable(conn, "h1", "bad disk")
        hosts.force_down(conn, "h1", True)
        aggregates.set_home_zone(conn, "h1", "west")
        host = hosts.get(conn, "h1")
    assert (host.enabled, host.disabled_reason, host.forced_down, host.availability_zone) == (False, "bad disk", True, "west")
    with db.write() as conn:
        hosts.enable(conn, "h1")
        hosts.force_down(conn, "h1", False)
        host = hosts.get(conn, "h1")
    assert (host.enabled, host.disabled_reason, host.forced_down) == (True, None, False)


def test_a_host_with_claims_is_not_forgotten_and_one_without_takes_its_inventory_along(db):
    (host,) = register(db, "h1")
    with db.write() as conn:
        hosts.set_inventory(conn, host.id, [Inventory("VCPU", 4)])
        allocations.claim(conn, instance_uuid="i", host_id=host.id, resources={"VCPU": 1})
    with pytest.raises(Conflict, match="still holds instances"), db.write() as conn:
        hosts.remove(conn, "h1")
    with db.write() as conn:
        allocations.release(conn, "i")
        hosts.remove(conn, "h1")
    with db.read() as conn:
        assert hosts.list_all(conn) == []
        assert conn.execute(sa.select(sa.func.count()).select_from(inventories_table)).scalar() == 0


def test_failed_builds_are_counted_until_one_succeeds(db):
    register(db, "h1")
    with db.write() as conn:
        for _ in range(3):
            hosts.count_build(conn, "h1", failed=True)
        assert hosts.get(conn, "h1").failed_builds == 3
        hosts.count_build(conn, "h1", failed=False)
        assert hosts.get(conn, "h1").failed_builds == 0


def test_checks_are_due_once_per_interval_oldest_first_and_no_more_than_asked_for(db):
    register(db, "h1", "h2", "h3")
    with db.write() as conn:
        taken = hosts.take_due_checks(conn, interval_seconds=10, limit=2, at=1000.0)
        rest = hosts.take_due_checks(conn, interval_seconds=10, limit=2, at=1000.0)
        assert hosts.take_due_checks(conn, interval_seconds=10, limit=2, at=1009.0) == []
        assert len(taken) == 2
        assert sorted(host.name for host in taken + rest) == ["h1", "h2", "h3"]
        assert hosts.next_check_due(conn) == 1000.0
        assert len(hosts.take_due_checks(conn, interval_seconds=10, limit=9, at=1010.0)) == 3


def test_many_takers_at_once_never_take_the_same_host(db):
    register(db, *[f"h{number}" for number in range(12)])

    def take(_):
        with db.write() as conn:
            return [host.name for host in hosts.take_due_checks(conn, interval_seconds=10, limit=5)]

    with ThreadPoolExecutor(8) as pool:
        taken = Counter(name for names in pool.map(take, range(16)) for name in names)
    assert max(taken.values()) == 1
    with db.write() as conn:  # whom a taker missed because another was quicker is still due
        taken.update(host.name for host in hosts.take_due_checks(conn, interval_seconds=10, limit=12))
    assert taken == Counter({f"h{number}": 1 for number in range(12)})
