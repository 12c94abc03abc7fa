"""What a scheduler knows beside hosts: aggregates as they change, instances and builds as they come and go, hosts one by one."""

import types

import pytest
import sqlalchemy as sa

from hullwright.objects.errors import NoValidHost
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.persistence import aggregates, allocations, hosts
from hullwright.persistence.models.hosts import hosts as hosts_table
from hullwright.scheduler import filters
from hullwright.scheduler.select import Scheduler

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=64, memory_mb=4096, disk_gb=100, disk_free_gb=100)


@pytest.fixture
def view(conf):
    """Always the newest view."""
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    return conf


def add_host(conn, name):
    host = hosts.register(conn, name, "fake:///h", "fake")
    hosts.record_facts(conn, name, FACTS, [Inventory("VCPU", 64), Inventory("MEMORY_MB", 4096), Inventory("DISK_GB", 100)])
    return host.id


def spec(number=1, *, extra_specs=None, **more):
    flavor = Flavor("1", "small", vcpus=1, memory_mb=128, root_gb=1, extra_specs=extra_specs or {})
    return RequestSpec(f"00000000-0000-0000-0000-{number:012}", "p", "u", flavor, **more)


def add_build(conn, asked, host):
    """A build that holds a host's resources."""
    where = {"host_id": hosts.get(conn, host).id, "resources": {"VCPU": 1, "MEMORY_MB": 1}}
    allocations.claim(conn, instance_uuid=asked.instance_uuid, job_uuid="job", **where)


def test_aggregates_are_followed_as_they_change(db, view):
    view.set_override("enabled_filters", ["aggregate_instance_extra_specs"], "scheduler")
    with db.write() as conn:
        add_host(conn, "a")
        id = aggregates.create(conn, "fast").id
    scheduler, fast = Scheduler(db, view), spec(extra_specs={"ssd": "true"})
    with pytest.raises(NoValidHost, match="1 are in no aggregate with ssd true"):
        scheduler.select(fast, {})
    with db.write() as conn:
        aggregates.add_host(conn, id, "a")
        aggregates.set_metadata(conn, id, {"ssd": "true"})
    assert scheduler.select(fast, {}).host == "a"
    with db.write() as conn:
        add_host(conn, "b")
        aggregates.add_host(conn, id, "b")
        aggregates.remove_host(conn, id, "a")
    assert scheduler.select(fast, {}).host == "b"
    with db.write() as conn:
        hosts.remove(conn, "a")
    assert scheduler.select(fast, {}).host == "b"
    with db.write() as conn:
        aggregates.remove_host(conn, id, "b")
        aggregates.delete(conn, id)
    with pytest.raises(NoValidHost):
        scheduler.select(fast, {})


def test_a_zone_given_by_an_aggregate_is_one_to_the_scheduler(db, view):
    with db.write() as conn:
        add_host(conn, "a")
        add_host(conn, "b")
        id = aggregates.create(conn, "west", "west").id
    scheduler = Scheduler(db, view)
    assert scheduler.select(spec(), {}).host == "a"
    with db.write() as conn:
        aggregates.add_host(conn, id, "b")
    assert scheduler.select(spec(availability_zone="west"), {}).host == "b"


def test_instances_and_builds_under_way_are_counted(db, view):
    view.set_override("enabled_filters", ["num_instances", "io_ops"], "scheduler")
    view.set_override("max_instances_per_host", 2, "scheduler")
    view.set_override("max_io_ops_per_host", 1, "scheduler")
    with db.write() as conn:
        ids = {name: add_host(conn, name) for name in ("a", "b", "c")}
        for number in (1, 2):
            allocations.claim(conn, instance_uuid=f"{number:036}", host_id=ids["a"], resources={"VCPU": 1, "MEMORY_MB": 1})
        add_build(conn, spec(3), "b")
    scheduler = Scheduler(db, view)
    selection = scheduler.select(spec(4), {})
    assert selection.host == "c"
    assert {(each.reason, each.count) for each in selection.report.rejections} == {
        ("hold 2 instances or more", 1),
        ("busy with 1 builds or more", 1),
    }
    with db.write() as conn:
        add_build(conn, spec(4), "c")
    with pytest.raises(NoValidHost, match="2 busy with 1 builds or more"):
        scheduler.select(spec(5), {})
    with db.write() as conn:
        allocations.end_build(conn, spec(4).instance_uuid)
        allocations.end_build(conn, spec(4).instance_uuid)
    assert scheduler.select(spec(5), {}).host == "c"


def test_a_choice_in_flight_counts_as_a_build_until_it_is_seen(sqlite_db, view):
    with sqlite_db.write() as conn:
        for name in ("a", "b"):
            add_host(conn, name)
    scheduler = Scheduler(sqlite_db, view)
    first = scheduler.select(spec(1), {})
    columns = scheduler._snapshot.columns
    assert columns.io_ops.tolist() == [1, 0]
    with sqlite_db.write() as conn:
        add_build(conn, spec(1), first.host)
    scheduler.select(spec(2), {})
    assert columns.io_ops.tolist() == [1, 1], "seen in the database and chosen here, and counted once"


def test_hints_name_instances_that_are_found_where_they_are(db, view):
    view.set_override("enabled_filters", ["same_host", "different_host"], "scheduler")
    with db.write() as conn:
        ids = {name: add_host(conn, name) for name in ("a", "b")}
        allocations.claim(conn, instance_uuid=spec(9).instance_uuid, host_id=ids["b"], resources={"VCPU": 1})
    scheduler = Scheduler(db, view)
    assert scheduler.select(spec(1, scheduler_hints={"same_host": spec(9).instance_uuid}), {}).host == "b"
    assert scheduler.select(spec(2, scheduler_hints={"different_host": [spec(9).instance_uuid.upper()]}), {}).host == "a"


def test_an_aggregate_says_how_much_a_weigher_counts_for_its_hosts(db, view):
    view.set_override("weight_classes", ["ram"], "scheduler")
    with db.write() as conn:
        add_host(conn, "roomy")
        hosts.record_facts(conn, "roomy", FACTS, [Inventory("MEMORY_MB", 8192)])
        add_host(conn, "small")
        id = aggregates.create(conn, "packed").id
        aggregates.add_host(conn, id, "roomy")
    scheduler = Scheduler(db, view)
    assert scheduler.select(spec(1), {}).host == "roomy"
    with db.write() as conn:
        aggregates.set_metadata(conn, id, {"ram_weight_multiplier": "-1"})
    assert scheduler.select(spec(2), {}).host == "small"


def test_where_an_aggregate_says_that_failures_count_for_nothing_hosts_are_as_good_as_those_without(db, view):
    """Not worse than healthy hosts elsewhere, and a probe that is due still comes first."""
    with db.write() as conn:
        for name, memory_mb in (("roomy", 8192), ("usual", 4096), ("failing", 16384), ("quarantined", 2048)):
            add_host(conn, name)
            hosts.record_facts(conn, name, FACTS, [Inventory("MEMORY_MB", memory_mb)])
        hosts.count_build(conn, "failing", failed=True)
        id = aggregates.create(conn, "lenient").id
        aggregates.set_metadata(conn, id, {"build_failure_weight_multiplier": "0"})
        aggregates.add_host(conn, id, "roomy")
    scheduler = Scheduler(db, view)
    assert scheduler.select(spec(1), {}).host == "roomy"
    with db.write() as conn:
        hosts.count_build(conn, "quarantined", True, "spawn", "broke", 1)
        conn.execute(sa.update(hosts_table).where(hosts_table.c.name == "quarantined").values(probed_at=1.0))
    assert scheduler.select(spec(2), {}).host == "quarantined"
    assert scheduler.select(spec(3), {"usual": "no network"}).host == "roomy", "who cannot go elsewhere does not probe"


def test_a_filter_of_one_host_at_a_time_sees_those_that_still_pass(db, view, monkeypatch):
    asked = []

    def passes(host, request):
        asked.append(host.name)
        assert (host["free_ram_mb"], host.aggregates, host.availability_zone) == (4096, [], "nova")
        with pytest.raises(KeyError):
            host["nothing"]
        return host.name == "c" or ("not c" if host.name == "b" else False)

    monkeypatch.setattr(filters.plugins, "load", lambda *_: [("only_c", types.SimpleNamespace(passes=passes))])
    with db.write() as conn:
        for name in ("a", "b", "c", "d"):
            add_host(conn, name)
    monkeypatch.setattr("hullwright.scheduler.weighers.load", lambda *_: [])
    scheduler = Scheduler(db, view)
    selection = scheduler.select(spec(ignore_hosts=("d",)), {})
    assert (selection.host, asked) == ("c", ["a", "b", "c"])
    assert {(each.check, each.reason) for each in selection.report.rejections} == {
        ("destination", "ignored as asked"),
        ("only_c", "not c"),
        ("only_c", "refused by only_c"),
    }
