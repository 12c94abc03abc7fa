"""Claims: exact under any concurrency, idempotent, and given back whole."""

import multiprocessing
import uuid
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import sqlalchemy as sa

from hullwright.objects.errors import ComputeResourcesUnavailable, InvalidAggregateAction
from hullwright.objects.hosts import Inventory
from hullwright.persistence import aggregates, allocations, hosts, instances
from hullwright.persistence.database import Database
from hullwright.persistence.models.hosts import allocations as allocations_table
from support.house import House

SMALL = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 5}


def add_host(db: Database, name: str = "h1", *, vcpus: int = 8, memory_mb: int = 16384, disk_gb: int = 100, **more: float) -> int:
    ratio = more.get("allocation_ratio", 1.0)
    with db.write() as conn:
        host = hosts.register(conn, name, f"fake:///{name}", "fake")
        sizes = {"VCPU": vcpus, "MEMORY_MB": memory_mb, "DISK_GB": disk_gb}
        hosts.set_inventory(conn, host.id, [Inventory(key, total, 0, ratio) for key, total in sizes.items()])
    return host.id


def used(db: Database, host_id: int) -> dict[str, int]:
    with db.read() as conn:
        return {item.resource_class: item.used for item in hosts.list_inventories(conn)[host_id]}


def summed(db: Database, host_id: int) -> dict[str, int]:
    table = allocations_table
    query = (
        sa.select(table.c.resource_class, sa.func.sum(table.c.amount)).where(table.c.host_id == host_id).group_by(table.c.resource_class)
    )
    with db.read() as conn:
        return {name: int(amount) for name, amount in conn.execute(query)}


def claim(db: Database, host_id: int, resources: dict[str, int] | None = None, instance: str | None = None) -> str:
    instance = instance or str(uuid.uuid4())
    with db.write() as conn:
        allocations.claim(conn, instance_uuid=instance, host_id=host_id, resources=resources or SMALL, job_uuid="job")
    return instance


def test_a_claim_is_counted_and_its_release_gives_back_exactly_that(db):
    host_id = add_host(db)
    instance = claim(db, host_id)
    assert used(db, host_id) == SMALL
    with db.read() as conn:
        held = allocations.held_by(conn, instance)
    assert held is not None
    assert (held.host_id, held.resources, held.job_uuid) == (host_id, SMALL, "job")
    with db.write() as conn:
        allocations.release(conn, instance)
    assert used(db, host_id) == dict.fromkeys(SMALL, 0)
    with db.read() as conn:
        assert allocations.held_by(conn, instance) is None


def test_claiming_again_and_releasing_again_change_nothing(db):
    host_id = add_host(db)
    instance = claim(db, host_id)
    claim(db, host_id, instance=instance)
    assert used(db, host_id) == SMALL
    for _ in range(2):
        with db.write() as conn:
            allocations.release(conn, instance)
        assert used(db, host_id) == dict.fromkeys(SMALL, 0)


def test_a_claim_on_another_host_moves_it_whole(db):
    first, second = add_host(db, "h1"), add_host(db, "h2")
    instance = claim(db, first)
    claim(db, second, {"VCPU": 2, "MEMORY_MB": 64}, instance)
    assert used(db, first) == dict.fromkeys(SMALL, 0)
    assert used(db, second) == {"VCPU": 2, "MEMORY_MB": 64, "DISK_GB": 0}
    with db.read() as conn:
        assert allocations.hosts_of(conn, [instance]) == {instance: second}


def test_a_claim_of_another_size_on_the_same_host_replaces_the_old_one(db):
    host_id = add_host(db, vcpus=4)
    instance = claim(db, host_id, {"VCPU": 3})
    claim(db, host_id, {"VCPU": 4}, instance)
    assert used(db, host_id)["VCPU"] == 4


def test_a_claim_is_all_or_nothing_and_names_what_is_missing(db):
    host_id = add_host(db, memory_mb=1024, disk_gb=1)
    with db.write() as conn, pytest.raises(ComputeResourcesUnavailable) as caught:
        allocations.claim(conn, instance_uuid="i", host_id=host_id, resources={"VCPU": 2, "MEMORY_MB": 4096, "DISK_GB": 5})
    assert caught.value.text == "Insufficient compute resources on h1: 5 GB disk asked, 1 free, 4096 MB memory asked, 1024 free"
    assert used(db, host_id) == dict.fromkeys(SMALL, 0)
    assert summed(db, host_id) == {}


def test_after_a_refused_claim_another_host_may_be_claimed_in_the_same_transaction(db):
    small, large = add_host(db, "small", vcpus=1), add_host(db, "large")
    with db.write() as conn:
        with pytest.raises(ComputeResourcesUnavailable):
            allocations.claim(conn, instance_uuid="i", host_id=small, resources={"MEMORY_MB": 1, "VCPU": 2})
        allocations.claim(conn, instance_uuid="i", host_id=large, resources={"MEMORY_MB": 1, "VCPU": 2})
    assert used(db, small)["MEMORY_MB"] == 0
    assert used(db, large)["VCPU"] == 2


def test_a_transaction_that_fails_after_the_claim_leaves_none(db):
    host_id = add_host(db)

    def claim_and_fail():
        with db.write() as conn:
            allocations.claim(conn, instance_uuid="i", host_id=host_id, resources=SMALL)
            raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        claim_and_fail()
    assert used(db, host_id) == dict.fromkeys(SMALL, 0)
    assert summed(db, host_id) == {}


def test_an_instance_may_overcommit_against_others_but_not_against_itself(db):
    host_id = add_host(db, vcpus=4, allocation_ratio=4.0)
    for _ in range(4):
        claim(db, host_id, {"VCPU": 4})
    with pytest.raises(ComputeResourcesUnavailable):
        claim(db, host_id, {"VCPU": 1})
    other = add_host(db, "h2", vcpus=4, allocation_ratio=4.0)
    with pytest.raises(ComputeResourcesUnavailable, match="5 vCPUs asked, 4 free"):
        claim(db, other, {"VCPU": 5})


def test_a_host_or_a_resource_that_is_not_there_refuses(db):
    host_id = add_host(db)
    with pytest.raises(ComputeResourcesUnavailable, match="1 VGPU asked, the host has none"):
        claim(db, host_id, {"VGPU": 1})
    with pytest.raises(ComputeResourcesUnavailable):
        claim(db, 4711)
    assert summed(db, host_id) == {}


def test_a_host_that_shrank_below_what_is_used_takes_no_new_claims_and_keeps_count(db):
    host_id = add_host(db, vcpus=4)
    instance = claim(db, host_id, {"VCPU": 3})
    with db.write() as conn:
        hosts.set_inventory(conn, host_id, [Inventory("VCPU", 2)])
    assert used(db, host_id)["VCPU"] == 3
    with pytest.raises(ComputeResourcesUnavailable, match="1 vCPU asked, 0 free"):
        claim(db, host_id, {"VCPU": 1})
    with db.write() as conn:
        allocations.release(conn, instance)
    assert used(db, host_id)["VCPU"] == 0


def _try_claim(db: Database, host_id: int) -> bool:
    try:
        claim(db, host_id)
    except ComputeResourcesUnavailable:
        return False
    return True


def test_fifty_threads_against_room_for_forty_make_exactly_forty_claims(db):
    host_id = add_host(db, vcpus=40, memory_mb=512 * 45, disk_gb=1000)
    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(lambda _: _try_claim(db, host_id), range(50)))
    assert outcomes.count(True) == 40
    assert used(db, host_id) == summed(db, host_id) == {"VCPU": 40, "MEMORY_MB": 40 * 512, "DISK_GB": 200}


def _claims_in_process(url: str, host_id: int, count: int, answers: "multiprocessing.Queue[int]") -> None:
    db = Database(url)
    answers.put(sum(_try_claim(db, host_id) for _ in range(count)))
    db.close()


def test_five_processes_with_ten_claims_each_against_room_for_forty_make_exactly_forty(db, db_url):
    host_id = add_host(db, vcpus=40, memory_mb=512 * 45, disk_gb=1000)
    db.close()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [context.Process(target=_claims_in_process, args=(db_url, host_id, 10, answers)) for _ in range(5)]
    for worker in workers:
        worker.start()
    made = sum(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(30)
    assert made == 40
    assert used(db, host_id) == summed(db, host_id) == {"VCPU": 40, "MEMORY_MB": 40 * 512, "DISK_GB": 200}


def test_claims_and_releases_at_once_over_several_hosts_end_in_exact_counts(db):
    host_ids = [add_host(db, f"h{number}", vcpus=6) for number in range(3)]

    def live_and_die(number: int) -> None:
        instance = str(uuid.uuid4())
        with db.write() as conn:
            for host_id in host_ids[number % 3 :] + host_ids[: number % 3]:  # each walks another way round
                try:
                    allocations.claim(conn, instance_uuid=instance, host_id=host_id, resources=SMALL)
                    break
                except ComputeResourcesUnavailable:
                    continue
        if number % 2:
            with db.write() as conn:
                allocations.release(conn, instance)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(live_and_die, range(60)))
    for host_id in host_ids:
        counted = used(db, host_id)
        assert counted == dict.fromkeys(SMALL, 0) | summed(db, host_id)
        assert counted["VCPU"] <= 6


def test_a_claim_costs_the_same_number_of_statements_on_a_full_host_as_on_an_empty_one(db):
    host_id = add_host(db, vcpus=1000, memory_mb=10**6, disk_gb=10**5)

    def statements() -> int:
        before = db.statements
        claim(db, host_id)
        return db.statements - before

    empty = statements()
    for _ in range(50):
        claim(db, host_id)
    assert statements() == empty <= 6  # BEGIN, SAVEPOINT, UPDATE, INSERT, COMMIT


def test_a_claim_may_insist_on_a_host_in_service_and_in_its_zone(db):
    host_id = add_host(db)
    asked = {"host_id": host_id, "resources": SMALL, "only_in_service": True, "only_in_zone": "nova"}

    def refusal() -> str:
        with db.write() as conn, pytest.raises(ComputeResourcesUnavailable) as caught:
            allocations.claim(conn, instance_uuid="me", **asked)
        return caught.value.text

    with db.write() as conn:
        hosts.disable(conn, "h1")
    assert "it is disabled" in refusal()
    claim(db, host_id, instance="who insists on nothing")
    with db.write() as conn:
        hosts.enable(conn, "h1")
        hosts.force_down(conn, "h1", True)
    assert "it is down" in refusal()
    with db.write() as conn:
        hosts.force_down(conn, "h1", False)
        aggregates.set_home_zone(conn, "h1", "west")
    assert "it is not in availability zone nova any more" in refusal()
    with db.write() as conn:
        aggregates.set_home_zone(conn, "h1", "nova")
        assert allocations.claim(conn, instance_uuid="me", **asked) == host_id
        hosts.disable(conn, "h1")
        assert allocations.claim(conn, instance_uuid="me", **asked) == host_id, "what was claimed before stays claimed"
    assert used(db, host_id) == {name: 2 * amount for name, amount in SMALL.items()}


def test_a_host_that_leaves_its_zone_and_a_claim_in_it_wait_for_each_other(house_on_each: House):
    """Whichever commits first, no server that asked for a zone is on a host of another one."""
    db, asked = house_on_each.db, {"resources": SMALL, "only_in_service": True, "only_in_zone": "nova"}
    for name in ("h1", "h2"):
        house_on_each.add_host(name)
    with db.write() as conn:
        zone = aggregates.create(conn, "west", "west").id
    pinned = house_on_each.new_instance(availability_zone="nova", host="h1")

    def join(name: str) -> None:
        with db.write() as conn:
            aggregates.add_host(conn, zone, name)

    def claim_on(name: str) -> None:
        with db.write() as conn:
            allocations.claim(conn, instance_uuid=str(uuid.uuid4()), host_id=hosts.get(conn, name).id, **asked)

    with ThreadPoolExecutor(1) as pool:
        with db.write() as conn:
            allocations.claim(conn, instance_uuid=pinned.uuid, host_id=hosts.get(conn, "h1").id, **asked)
            instances.create(conn, pinned)
            joining = pool.submit(join, "h1")
            assert not wait([joining], timeout=0.3).done
        with pytest.raises(InvalidAggregateAction, match="1 of its instances asked for another"):
            joining.result(timeout=10)
        with db.write() as conn:
            aggregates.add_host(conn, zone, "h2")
            claiming = pool.submit(claim_on, "h2")
            assert not wait([claiming], timeout=0.3).done
        with pytest.raises(ComputeResourcesUnavailable, match="it is not in availability zone nova any more"):
            claiming.result(timeout=10)
