"""Many requests at once, through one scheduler and through several: exact, spread, and nobody refused while there is room."""

import dataclasses
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from hullwright.objects.errors import ComputeResourcesUnavailable, NoValidHost
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.persistence import allocations, conductors, hosts
from hullwright.scheduler import snapshot, weighing
from hullwright.scheduler.claim import claim_first
from hullwright.scheduler.select import Scheduler

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=64, memory_mb=1024, disk_gb=100, disk_free_gb=100)
FLAVOR = Flavor("1", "small", vcpus=1, memory_mb=128, root_gb=1)
SIZES = [Inventory("VCPU", 64), Inventory("MEMORY_MB", 1024), Inventory("DISK_GB", 100)]
HOSTS = 10


@pytest.fixture
def ten_hosts(db):
    """Ten hosts with room for eight instances each."""
    with db.write() as conn:
        for number in range(HOSTS):
            host = hosts.register(conn, f"h{number}", "fake:///h", "fake")
            hosts.record_facts(conn, host.name, dataclasses.replace(FACTS, hostname=host.name), SIZES)
    return db


def asked(number):
    return RequestSpec(f"{number:036}", "p", "u", FLAVOR)


def claim(db, scheduler, spec, selection):
    """Claim as the step of a build does, on another host when others were first."""
    while True:
        try:
            with db.write() as conn:
                return claim_first(conn, selection, spec.resources(), spec.instance_uuid, "job").host
        except ComputeResourcesUnavailable:
            selection = scheduler.select(spec, {}, fresh=True)


def place(db, scheduler, number):
    """Select and claim as the steps of a build do; the reason when it is refused."""
    spec = asked(number)
    try:
        return claim(db, scheduler, spec, scheduler.select(spec, {}))
    except NoValidHost as error:
        return error.report.summary()


@pytest.mark.parametrize("conductors", [1, 3])
def test_a_hundred_requests_against_room_for_eighty_fill_it_exactly(ten_hosts, conf, conductors):
    schedulers = [Scheduler(ten_hosts, conf) for _ in range(conductors)]
    with ThreadPoolExecutor(12) as pool:
        placed = list(pool.map(lambda number: place(ten_hosts, schedulers[number % conductors], number), range(100)))
    assert placed.count("0 of 10 hosts fit: 10 lack 128 MB memory.") == 20
    counts = Counter(host for host in placed if " " not in host)
    assert set(counts.values()) == {8}


def test_requests_of_one_conductor_spread_evenly_while_there_is_room(ten_hosts, conf):
    scheduler = Scheduler(ten_hosts, conf)
    with ThreadPoolExecutor(12) as pool:
        placed = list(pool.map(lambda number: place(ten_hosts, scheduler, number), range(40)))
    counts = Counter(placed)
    assert sum(counts.values()) == 40
    assert max(counts.values()) - min(counts[f"h{number}"] for number in range(HOSTS)) <= 1


@pytest.mark.parametrize(("turns", "most"), [([(number, 4) for number in range(4)], 1), ([(0, 1)] * 4, 4)])
def test_conductors_that_have_not_seen_each_others_claims_spread_when_each_has_a_turn_of_its_own(db, conf, turns, most):
    conf.set_override("snapshot_max_age_seconds", 3600.0, "scheduler")
    with db.write() as conn:
        for number in range(40):
            hosts.register(conn, f"h{number:02}", "fake:///h", "fake")
            hosts.record_facts(conn, f"h{number:02}", FACTS, SIZES)
    schedulers = [Scheduler(db, conf) for _ in turns]
    for scheduler, turn in zip(schedulers, turns, strict=True):
        scheduler.turn = turn
        scheduler.refresh()
    counts = Counter(place(db, schedulers[number % 4], number) for number in range(40))
    assert sum(counts.values()) == 40
    assert max(counts.values()) == most


@pytest.mark.parametrize("count", [10, 100])
def test_a_thousand_requests_through_four_conductors_put_no_host_a_fifth_over_the_mean(db, conf, monkeypatch, count):
    """Each conductor has two at a time, of which all have chosen before any claims."""
    monkeypatch.setattr(weighing, "random", random.Random(1))
    monkeypatch.setattr(snapshot, "READ_SHARE", 0)  # a pause of this machine makes no view older
    with db.write() as conn:
        for number in range(count):
            hosts.register(conn, f"h{number:02}", "fake:///h", "fake")
            hosts.record_facts(conn, f"h{number:02}", FACTS, [Inventory("VCPU", 64, 0, 4.0), Inventory("MEMORY_MB", 65536), SIZES[2]])
    schedulers = [Scheduler(db, conf) for _ in range(4)]
    for number, scheduler in enumerate(schedulers):
        scheduler.turn = (number, 4)
    counts = Counter()
    for first in range(0, 1000, 8):
        chosen = [(schedulers[number % 4], asked(number)) for number in range(first, first + 8)]
        chosen = [(scheduler, spec, scheduler.select(spec, {})) for scheduler, spec in chosen]
        counts.update(claim(db, *each) for each in chosen)
    assert sum(counts.values()) == 1000
    assert max(counts.values()) <= 1.2 * 1000 / count
    assert len(counts) == count


def test_builds_under_way_make_no_fuller_host_as_good(db, conf):
    """What a build under way weighs is much beside what a server takes of a large host."""
    host_ids = []
    with db.write() as conn:
        for number in range(8):
            host_ids.append(hosts.register(conn, f"h{number}", "fake:///h", "fake").id)
            hosts.record_facts(conn, f"h{number}", FACTS, [Inventory("VCPU", 256), Inventory("MEMORY_MB", 262144), SIZES[2]])
    scheduler = Scheduler(db, conf)
    scheduler.turn = (host_ids[0] % 4, 4)
    fuller = [host_id for host_id in host_ids if host_id % 4 == scheduler.turn[0]]
    for number, host_id in enumerate(fuller * 6):
        with db.write() as conn:
            allocations.claim(conn, instance_uuid=f"old-{number}", host_id=host_id, resources=RequestSpec("", "", "", FLAVOR).resources())
    chosen = []
    for number in range(3):
        spec = RequestSpec(f"{number:036}", "p", "u", FLAVOR)
        chosen.append(scheduler.select(spec, {}).host_id)
    assert not set(chosen) & set(fuller)


def test_one_of_four_conductors_that_alone_has_work_spreads_it_over_all_hosts(db, conf):
    with db.write() as conn:
        for number in range(20):
            hosts.register(conn, f"h{number:02}", "fake:///h", "fake")
            hosts.record_facts(conn, f"h{number:02}", FACTS, SIZES)
    scheduler = Scheduler(db, conf)
    scheduler.turn = (2, 4)
    counts = Counter(place(db, scheduler, number) for number in range(100))
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 2, "its own hosts are one request fuller than the rest, and another one under way"


def test_conductors_that_pack_choose_the_same_host(db, conf):
    for name in ("ram_weight_multiplier", "cpu_weight_multiplier", "disk_weight_multiplier"):
        conf.set_override(name, -1.0, "scheduler")
    conf.set_override("io_ops_weight_multiplier", 0.0, "scheduler")
    with db.write() as conn:
        for number in range(8):
            hosts.register(conn, f"h{number:02}", "fake:///h", "fake")
            hosts.record_facts(conn, f"h{number:02}", FACTS, SIZES)
    schedulers = [Scheduler(db, conf) for _ in range(4)]
    first = place(db, schedulers[0], 1)
    for number, scheduler in enumerate(schedulers):
        scheduler.turn = (number, 4)
        scheduler.refresh()
        assert place(db, scheduler, 10 + number) == first


def test_living_conductors_have_each_a_turn_and_one_alone_has_the_first(db):
    with db.write() as conn:
        for number in range(4):
            conductors.enlist(conn, id=f"c{number}", hostname="h", pid=number, version="1", lease_seconds=60.0)
        assert [conductors.turn(conn, f"c{number}") for number in range(4)] == [(0, 4), (1, 4), (2, 4), (3, 4)]
        for number in range(3):
            conductors.retire(conn, f"c{number}")
        assert (conductors.turn(conn, "c3"), conductors.turn(conn, "gone")) == ((0, 1), (0, 1))


def test_a_host_that_others_went_to_meanwhile_is_not_taken_when_others_are_as_good(db, conf):
    with db.write() as conn:
        for number in range(8):
            hosts.register(conn, f"h{number:02}", "fake:///h", "fake")
            hosts.record_facts(conn, f"h{number:02}", FACTS, SIZES)
    one, other = Scheduler(db, conf), Scheduler(db, conf)
    one.turn = (1, 4)
    spec = RequestSpec(f"{1:036}", "p", "u", FLAVOR)
    selection = one.select(spec, {})
    assert selection.used_at_most == {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 1}
    with db.write() as conn:
        for number in (10, 11):
            allocations.claim(conn, instance_uuid=f"{number:036}", host_id=selection.host_id, resources=spec.resources())
    with pytest.raises(ComputeResourcesUnavailable, match="others went there meanwhile"), db.write() as conn:
        claim_first(conn, selection, spec.resources(), spec.instance_uuid, "job")
    again = one.select(spec, {}, fresh=True)
    assert again.host != selection.host
    assert again.used_at_most is None, "a host is looked for anew once, then taken"
    assert other.select(spec, {}).used_at_most is None, "alone, a scheduler knows what is chosen"
