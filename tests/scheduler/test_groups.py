"""Server groups hold whatever happens at once: the policy is checked in the claim's own transaction."""

from __future__ import annotations

import uuid as uuids
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hullwright.objects.errors import ComputeResourcesUnavailable, NoValidHost, ServerGroupPolicyViolated
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.server_groups import GroupPolicy, ServerGroup
from hullwright.objects.states import VmState
from hullwright.persistence import allocations, faults, hosts, instances, server_groups
from hullwright.persistence.database import Database, now
from hullwright.scheduler.claim import claim_first
from hullwright.scheduler.select import Scheduler
from support.house import House

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=64, memory_mb=4096, disk_gb=100, disk_free_gb=100)
FLAVOR = Flavor("1", "small", vcpus=1, memory_mb=128, root_gb=1)
GROUP = "11111111-1111-1111-1111-111111111111"


def add_hosts(db: Database, count: int, memory_mb: int = 4096) -> None:
    with db.write() as conn:
        for number in range(count):
            host = hosts.register(conn, f"h{number}", "fake:///h", "fake")
            sizes = [Inventory("VCPU", 64), Inventory("MEMORY_MB", memory_mb), Inventory("DISK_GB", 100)]
            hosts.record_facts(conn, host.name, FACTS, sizes)


def add_group(db: Database, policy: str, most: int | None = None) -> str:
    with db.write() as conn:
        server_groups.create(conn, ServerGroup(GROUP, "g", "p", "u", GroupPolicy(policy), most, created_at=now()))
    return GROUP


def member(db: Database, number: int, **more: Any) -> RequestSpec:
    """A new instance of the group."""
    spec = RequestSpec(f"00000000-0000-0000-0000-{number:012}", "p", "u", FLAVOR, scheduler_hints={"group": GROUP}, **more)
    row = Instance(spec.instance_uuid, "vm", "p", "u", VmState.BUILDING, None, 0, FLAVOR, None, "vm", now(), now(), spec)
    with db.write() as conn:
        instances.create(conn, row)
        server_groups.add_members(conn, {spec.instance_uuid: GROUP})
    return spec


def place(db: Database, scheduler: Scheduler, spec: RequestSpec) -> str:
    """Select and claim as the steps of a build do; the reason when it is refused."""
    try:
        selection = scheduler.select(spec, {})
        while True:
            try:
                with db.write() as conn:
                    return claim_first(conn, selection, spec.resources(), spec.instance_uuid, "job", spec.server_group).host
            except ComputeResourcesUnavailable:
                selection = scheduler.select(spec, {}, fresh=True)
    except NoValidHost as error:
        return error.report.summary() if error.report else ""


def test_members_of_an_anti_affinity_group_go_to_different_hosts_and_then_nowhere(db: Database, conf: Any) -> None:
    add_hosts(db, 3)
    add_group(db, "anti-affinity")
    scheduler = Scheduler(db, conf)
    placed = [place(db, scheduler, member(db, number)) for number in range(4)]
    assert set(placed[:3]) == {"h0", "h1", "h2"}
    assert placed[3] == "0 of 3 hosts fit: 3 already hold a member of the server group (anti-affinity)."


def test_a_rule_allows_more_members_on_a_host(db: Database, conf: Any) -> None:
    add_hosts(db, 2)
    add_group(db, "anti-affinity", 2)
    scheduler = Scheduler(db, conf)
    placed = [place(db, scheduler, member(db, number)) for number in range(5)]
    assert Counter(placed[:4]) == {"h0": 2, "h1": 2}
    assert placed[4] == "0 of 2 hosts fit: 2 already hold 2 members of the server group (anti-affinity)."


def test_members_of_an_affinity_group_share_a_host_until_it_is_full(db: Database, conf: Any) -> None:
    add_hosts(db, 3, memory_mb=256)
    add_group(db, "affinity")
    scheduler = Scheduler(db, conf)
    placed = [place(db, scheduler, member(db, number)) for number in range(3)]
    assert placed[0] == placed[1]
    assert placed[2] == "0 of 3 hosts fit: 2 hold no member of the server group (affinity), 1 lack 128 MB memory."


def test_a_member_whose_claim_is_given_back_counts_no_more(db: Database, conf: Any) -> None:
    add_hosts(db, 1)
    add_group(db, "anti-affinity")
    scheduler = Scheduler(db, conf)
    first, second = member(db, 1), member(db, 2)
    assert place(db, scheduler, first) == "h0"
    assert "1 already hold" in place(db, scheduler, second)
    with db.write() as conn:
        allocations.release(conn, first.instance_uuid)
    assert place(db, scheduler, second) == "h0"


def test_the_claim_refuses_what_the_choice_did_not_know(db: Database, conf: Any) -> None:
    add_hosts(db, 1)
    add_group(db, "anti-affinity")
    first, second = member(db, 1), member(db, 2)
    choices = [Scheduler(db, conf).select(spec, {}) for spec in (first, second)]
    with db.write() as conn:
        claim_first(conn, choices[0], first.resources(), first.instance_uuid, "job", GROUP)
    with pytest.raises(ServerGroupPolicyViolated, match="Host h0 would break the anti-affinity policy"), db.write() as conn:
        claim_first(conn, choices[1], second.resources(), second.instance_uuid, "job", GROUP)
    with db.write() as conn:  # a step that runs twice finds its own claim, not a member in its way
        assert claim_first(conn, choices[0], first.resources(), first.instance_uuid, "job", GROUP).host == "h0"
        assert allocations.held_by(conn, second.instance_uuid) is None


def test_a_forced_host_does_not_break_a_group(db: Database, conf: Any) -> None:
    add_hosts(db, 2)
    add_group(db, "anti-affinity")
    scheduler = Scheduler(db, conf)
    assert place(db, scheduler, member(db, 1, force_host="h1")) == "h1"
    assert "1 already hold a member" in place(db, scheduler, member(db, 2, force_host="h1"))


def test_the_policy_is_kept_even_when_no_filter_of_it_is_configured(db: Database, conf: Any) -> None:
    conf.set_override("enabled_filters", ["capacity"], "scheduler")
    add_hosts(db, 2)
    add_group(db, "anti-affinity")
    scheduler = Scheduler(db, conf)
    assert {place(db, scheduler, member(db, number)) for number in (1, 2)} == {"h0", "h1"}


def test_a_group_that_is_deleted_holds_nobody(db: Database, conf: Any) -> None:
    add_hosts(db, 1)
    add_group(db, "anti-affinity")
    scheduler = Scheduler(db, conf)
    first, second = member(db, 1), member(db, 2)
    assert place(db, scheduler, first) == "h0"
    with db.write() as conn:
        server_groups.delete(conn, GROUP)
    assert place(db, scheduler, second) == "h0"


@pytest.mark.parametrize("conductors", [1, 3])
def test_of_fifty_requests_at_once_ten_get_a_host_each_and_forty_a_plain_answer(db: Database, conf: Any, conductors: int) -> None:
    add_hosts(db, 10)
    add_group(db, "anti-affinity")
    specs = [member(db, number) for number in range(50)]
    schedulers = [Scheduler(db, conf) for _ in range(conductors)]
    with ThreadPoolExecutor(12) as pool:
        placed = list(pool.map(lambda each: place(db, schedulers[each[0] % conductors], each[1]), enumerate(specs)))
    assert sorted(host for host in placed if " " not in host) == [f"h{number}" for number in range(10)]
    assert {host for host in placed if " " in host} == {"0 of 10 hosts fit: 10 already hold a member of the server group (anti-affinity)."}


@pytest.mark.parametrize("conductors", [1, 3])
def test_of_thirty_affine_requests_at_once_all_get_the_same_host(db: Database, conf: Any, conductors: int) -> None:
    add_hosts(db, 10)
    add_group(db, "affinity")
    specs = [member(db, number) for number in range(30)]
    schedulers = [Scheduler(db, conf) for _ in range(conductors)]
    with ThreadPoolExecutor(12) as pool:
        placed = list(pool.map(lambda each: place(db, schedulers[each[0] % conductors], each[1]), enumerate(specs)))
    assert len(set(placed)) == 1
    assert " " not in placed[0]


@pytest.mark.slow
@pytest.mark.parametrize("conductors", [1, 2])
def test_fifty_servers_of_an_anti_affinity_group_on_ten_hosts(house_on_each: House, conductors: int) -> None:
    house = house_on_each
    for number in range(10):
        house.add_host(f"h{number}")
    group = ServerGroup(str(uuids.uuid4()), "g", "p", "u", GroupPolicy.ANTI_AFFINITY, created_at=now())
    with house.db.write() as conn:
        server_groups.create(conn, group)
    made = house.create(50, scheduler_hints={"group": group.uuid})
    for _ in range(conductors):
        house.start_conductor()
    house.rest(120)
    built = [house.get(each) for each in made]
    active = [each for each in built if each.vm_state == VmState.ACTIVE]
    assert sorted(each.host or "" for each in active) == [f"h{number}" for number in range(10)]
    assert house.states(made) == {"active": 10, "error": 40}
    with house.db.read() as conn:
        told = {(fault.code, fault.message) for each in built if (fault := faults.latest(conn, each.uuid))}
    expected = (
        "No valid host was found. 0 of 10 hosts fit: 10 already hold a member of the server group (anti-affinity). "
        "The group keeps its servers apart and has one on each host: leave the group out, or make another."
    )
    assert told == {(500, expected)}
