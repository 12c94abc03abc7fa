"""HostMonitor: hosts are asked once per interval by one conductor, and one that hangs delays nobody."""

import dataclasses
import threading
import time
from collections import Counter

import pytest

from hullwright.conductor.hosts import HostMonitor, inventories_of
from hullwright.objects.errors import BadRequest, HostNotFound, HypervisorUnavailable
from hullwright.objects.hosts import HostFacts, is_up
from hullwright.persistence import aggregates, allocations, hosts

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=16384, disk_gb=100, disk_free_gb=90)


class Hypervisors:
    """Stands for the drivers of all hosts: answers, fails or hangs as told, and counts the questions."""

    def __init__(self):
        self.facts_of = {}
        self.broken = {}
        self.gates = {}
        self.asked = Counter()

    def __call__(self, ref):
        hypervisors = self

        class Driver:
            def facts(self):
                hypervisors.asked[ref.name] += 1
                if ref.name in hypervisors.gates:
                    hypervisors.gates[ref.name].wait(20)
                if ref.name in hypervisors.broken:
                    raise hypervisors.broken[ref.name]
                return hypervisors.facts_of.get(ref.name, FACTS)

        return Driver()


def register(db, *names):
    with db.write() as conn:
        for name in names:
            hosts.register(conn, name, f"fake:///{name}", "fake")


def get(db, name):
    with db.read() as conn:
        return hosts.get(conn, name)


def inventory(db, name):
    with db.read() as conn:
        host = hosts.get(conn, name)
        return {item.resource_class: item for item in hosts.list_inventories(conn, [host.id]).get(host.id, [])}


def eventually(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def quick(conf):
    conf.set_override("report_interval", 0.2, "compute")
    return conf


def test_an_answer_fills_facts_and_inventory_with_reserves_and_ratios(sqlite_db, conf):
    conf.set_override("reserved_host_disk_mb", 1500, "compute")
    register(sqlite_db, "h1")
    facts = HostMonitor(sqlite_db, conf, Hypervisors()).refresh_now("h1")
    host = get(sqlite_db, "h1")
    assert host.facts == facts == FACTS
    assert abs(host.last_seen_at - time.time()) < 5
    sizes = {name: (item.total, item.reserved, item.allocation_ratio) for name, item in inventory(sqlite_db, "h1").items()}
    assert sizes == {"VCPU": (8, 0, 4.0), "MEMORY_MB": (16384, 512, 1.0), "DISK_GB": (100, 2, 1.0)}


def test_an_aggregate_has_the_allocation_ratios_of_its_hosts(db, conf):
    register(db, "h1")
    monitor = HostMonitor(db, conf, Hypervisors())
    monitor.refresh_now("h1")
    with db.write() as conn:
        for name, ratios in (("a", {"cpu_allocation_ratio": "16"}), ("b", {"cpu_allocation_ratio": "8", "disk_allocation_ratio": "none"})):
            id = aggregates.create(conn, name).id
            aggregates.set_metadata(conn, id, ratios)
            aggregates.add_host(conn, id, "h1")
    monitor.refresh_now("h1")
    assert {name: item.allocation_ratio for name, item in inventory(db, "h1").items()} == {"VCPU": 8.0, "MEMORY_MB": 1.0, "DISK_GB": 1.0}


def test_a_host_has_ratios_and_reserves_of_its_own_before_those_of_its_aggregates(db, conf):
    register(db, "h1")
    monitor = HostMonitor(db, conf, Hypervisors())
    with db.write() as conn:
        id = aggregates.create(conn, "a").id
        aggregates.set_metadata(conn, id, {"cpu_allocation_ratio": "16", "ram_allocation_ratio": "2"})
        aggregates.add_host(conn, id, "h1")
        hosts.change_settings(conn, "h1", {"cpu_allocation_ratio": 1.5, "reserved_host_memory_mb": 4096, "reserved_host_disk_mb": 1025})
    monitor.refresh_now("h1")
    assert {name: (item.reserved, item.allocation_ratio) for name, item in inventory(db, "h1").items()} == {
        "VCPU": (0, 1.5),
        "MEMORY_MB": (4096, 2.0),
        "DISK_GB": (2, 1.0),
    }
    with db.write() as conn:
        hosts.change_settings(conn, "h1", {"cpu_allocation_ratio": None, "reserved_host_disk_mb": None})
    monitor.refresh_now("h1")
    assert get(db, "h1").settings == {"reserved_host_memory_mb": 4096}
    assert {name: (item.reserved, item.allocation_ratio) for name, item in inventory(db, "h1").items()} == {
        "VCPU": (0, 16.0),
        "MEMORY_MB": (4096, 2.0),
        "DISK_GB": (0, 1.0),
    }
    for wrong in ({"cpu_allocation_ratio": 0.0}, {"reserved_host_cpus": -1}, {"ram_allocation_ratio": float("nan")}, {"name": 1}):
        with pytest.raises(BadRequest), db.write() as conn:
            hosts.change_settings(conn, "h1", wrong)
    with pytest.raises(HostNotFound), db.write() as conn:
        hosts.change_settings(conn, "nobody", {"cpu_allocation_ratio": 1.0})


def test_what_may_have_changed_on_a_host_has_it_asked_soon_and_not_when_its_interval_is_over(db, conf):
    conf.set_override("report_interval", 3600.0, "compute")
    register(db, "h1")
    with db.write() as conn:
        id = aggregates.create(conn, "a").id

    def due() -> bool:
        with db.write() as conn:
            return bool(hosts.take_due_checks(conn, interval_seconds=3600.0, limit=1))

    events = [
        lambda conn: aggregates.set_metadata(conn, id, {"cpu_allocation_ratio": "2"}),
        lambda conn: aggregates.add_host(conn, id, "h1"),
        lambda conn: aggregates.set_metadata(conn, id, {"cpu_allocation_ratio": "3"}),
        lambda conn: aggregates.set_metadata(conn, id, {"colour": "red"}),
        lambda conn: aggregates.remove_host(conn, id, "h1"),
        lambda conn: hosts.count_build(conn, "h1", failed=True, step="spawn", reason="broke"),
        lambda conn: hosts.count_build(conn, "h1", failed=False),
        lambda conn: hosts.disable(conn, "h1"),
        lambda conn: hosts.enable(conn, "h1"),
        lambda conn: hosts.change_settings(conn, "h1", {"ram_allocation_ratio": 2.0}),
    ]
    assert due(), "a new one is asked at once"
    found = []
    for event in events:
        with db.write() as conn:
            event(conn)
        found.append(due())
    assert found == [False, True, True, False, True, True, False, False, True, True]


def test_more_reserved_than_there_is_leaves_nothing_rather_than_less(conf):
    small = dataclasses.replace(FACTS, memory_mb=100)
    assert [item.capacity for item in inventories_of(small, conf)] == [32, 0, 100]


def test_a_silent_host_keeps_its_last_answer_and_tells_why_until_it_answers_again(sqlite_db, conf):
    register(sqlite_db, "h1")
    world = Hypervisors()
    monitor = HostMonitor(sqlite_db, conf, world)
    monitor.refresh_now("h1")
    seen = get(sqlite_db, "h1").last_seen_at
    world.broken["h1"] = HypervisorUnavailable(host="h1", reason="connection refused")
    with pytest.raises(HypervisorUnavailable):
        monitor.refresh_now("h1")
    host = get(sqlite_db, "h1")
    assert (host.last_seen_at, host.facts) == (seen, FACTS)
    assert host.error == "Hypervisor of host h1 cannot be reached: connection refused"
    world.broken["h1"] = OSError("no route")
    with pytest.raises(HypervisorUnavailable, match="OSError: no route"):
        monitor.refresh_now("h1")
    world.broken.clear()
    monitor.refresh_now("h1")
    assert get(sqlite_db, "h1").error is None
    with pytest.raises(HostNotFound):
        monitor.refresh_now("nobody")


def test_a_new_answer_never_touches_what_is_used_and_is_written_only_when_it_differs(sqlite_db, conf):
    register(sqlite_db, "h1")
    world = Hypervisors()
    monitor = HostMonitor(sqlite_db, conf, world)
    monitor.refresh_now("h1")
    with sqlite_db.write() as conn:
        allocations.claim(conn, instance_uuid="i", host_id=get(sqlite_db, "h1").id, resources={"VCPU": 6})
    before = sqlite_db.statements
    monitor.refresh_now("h1")
    # Read; BEGIN, read aggregates, settings, the host, UPDATE of the last answer, read inventories, COMMIT.
    assert sqlite_db.statements - before <= 8
    world.facts_of["h1"] = dataclasses.replace(FACTS, vcpus=1)
    monitor.refresh_now("h1")
    cpus = inventory(sqlite_db, "h1")["VCPU"]
    assert (cpus.total, cpus.used, cpus.capacity) == (1, 6, 4)


def test_two_monitors_ask_each_host_once_per_interval(db, conf):
    conf.set_override("report_interval", 1.0, "compute")
    names = [f"h{number}" for number in range(6)]
    register(db, *names)
    world = Hypervisors()
    monitors = [HostMonitor(db, conf, world) for _ in range(2)]
    begun = time.monotonic()
    for monitor in monitors:
        monitor.start()
    eventually(lambda: all(world.asked[name] >= 2 for name in names))
    for monitor in monitors:
        monitor.stop()
    lasted = time.monotonic() - begun
    assert max(world.asked.values()) <= lasted / 1.0 + 1


def test_a_host_that_hangs_delays_nobody_and_counts_as_silent(sqlite_db, quick):
    quick.set_override("facts_timeout_seconds", 0.3, "compute")
    quick.set_override("max_concurrent_facts", 1, "compute")
    register(sqlite_db, "a-hangs", "b")
    world = Hypervisors()
    world.gates["a-hangs"] = threading.Event()
    monitor = HostMonitor(sqlite_db, quick, world)
    monitor.start()
    eventually(lambda: world.asked["b"] >= 3)
    hung = get(sqlite_db, "a-hangs")
    assert world.asked["a-hangs"] == 1
    assert hung.last_seen_at == 0.0
    assert hung.error == "no answer within 0.3 seconds"
    world.gates["a-hangs"].set()
    eventually(lambda: get(sqlite_db, "a-hangs").error is None)
    eventually(lambda: world.asked["a-hangs"] >= 2)
    monitor.stop()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_host_that_is_asked_and_stays_silent_is_down_until_it_answers(sqlite_db, quick, hangs):
    quick.set_override("facts_timeout_seconds", 0.1 if hangs else 5.0, "compute")
    register(sqlite_db, "h1")
    world = Hypervisors()
    monitor = HostMonitor(sqlite_db, quick, world)
    monitor.refresh_now("h1")
    assert is_up(get(sqlite_db, "h1"), 0.5)
    if hangs:
        world.gates["h1"] = threading.Event()  # one question hangs for all the time
    else:
        world.broken["h1"] = HypervisorUnavailable(host="h1", reason="connection refused")
    monitor.start()
    eventually(lambda: get(sqlite_db, "h1").silent_since is not None)
    assert is_up(get(sqlite_db, "h1"), 60.0), "it may answer the next question"
    eventually(lambda: not is_up(get(sqlite_db, "h1"), 0.5))
    if hangs:
        world.gates.pop("h1").set()
    world.broken.clear()
    eventually(lambda: is_up(get(sqlite_db, "h1"), 0.5))
    monitor.stop()
    assert get(sqlite_db, "h1").silent_since is None


def test_a_monitor_that_starts_asks_all_hosts_that_are_due_at_once(sqlite_db, conf, monkeypatch):
    conf.set_override("report_interval", 60.0, "compute")
    names = [f"h{number}" for number in range(conf.compute.max_concurrent_facts)]
    register(sqlite_db, *names)
    world = Hypervisors()
    world.gates = {name: threading.Event() for name in names}
    take, taken = hosts.take_due_checks, []

    def take_due_checks(conn, **limits):
        found = take(conn, **limits)
        taken.append([host.name for host in found])
        return found

    monkeypatch.setattr(hosts, "take_due_checks", take_due_checks)
    monitor = HostMonitor(sqlite_db, conf, world)
    monitor.start()
    eventually(lambda: set(world.asked) == set(names))
    assert sorted(taken[0]) == sorted(names), "by its first look"
    for gate in world.gates.values():
        gate.set()
    monitor.stop()
    assert max(world.asked.values()) == 1


def test_a_driver_that_blows_up_or_a_host_removed_meanwhile_does_not_end_the_monitor(sqlite_db, quick):
    register(sqlite_db, "a", "b", "c")
    world = Hypervisors()
    world.broken["a"] = ValueError("unexpected")
    world.gates["c"] = threading.Event()
    monitor = HostMonitor(sqlite_db, quick, world)
    monitor.start()
    eventually(lambda: world.asked["c"] == 1)
    with sqlite_db.write() as conn:
        hosts.remove(conn, "c")
    world.gates["c"].set()
    eventually(lambda: world.asked["b"] >= 3)
    monitor.stop()
    assert get(sqlite_db, "a").error == "ValueError: unexpected"
    with pytest.raises(HostNotFound):
        get(sqlite_db, "c")


def test_a_monitor_that_stumbles_over_anything_goes_on_and_one_answer_that_cannot_be_noted_spoils_no_other(sqlite_db, quick, monkeypatch):
    register(sqlite_db, "h1", "h2")
    real_due, real_record, stumbled = hosts.next_check_due, hosts.record_facts, []

    def next_check_due(conn):
        if not stumbled:
            stumbled.append(1)
            raise RuntimeError("unforeseen")
        return real_due(conn)

    def record_facts(conn, name, *rest):
        if name == "h1":
            raise ValueError("what no column holds")
        real_record(conn, name, *rest)

    monkeypatch.setattr(hosts, "next_check_due", next_check_due)
    monkeypatch.setattr(hosts, "record_facts", record_facts)
    hypervisors = Hypervisors()
    gate = hypervisors.gates["h1"] = hypervisors.gates["h2"] = threading.Event()
    monitor = HostMonitor(sqlite_db, quick, hypervisors)
    monitor.start()
    try:
        eventually(lambda: set(hypervisors.asked) == {"h1", "h2"})
        gate.set()
        eventually(lambda: get(sqlite_db, "h2").facts is not None and hypervisors.asked["h1"] > 1)
    finally:
        monitor.stop()
