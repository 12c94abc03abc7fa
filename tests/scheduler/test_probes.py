"""A host in quarantine: counted into it, left out by the scheduler, and claimed by one probe at a time."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from hullwright.objects.errors import ComputeResourcesUnavailable, NoValidHost
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import Host, HostFacts, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.objects.placement import Selection
from hullwright.persistence import allocations, hosts
from hullwright.persistence.database import Database, now
from hullwright.persistence.models.hosts import hosts as hosts_table
from hullwright.scheduler.claim import claim_first
from hullwright.scheduler.select import Scheduler

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=64, memory_mb=65536, disk_gb=1000, disk_free_gb=1000)
INTERVAL = 300.0


def add_host(db: Database, name: str, *, memory_mb: int = 65536) -> int:
    with db.write() as conn:
        host = hosts.register(conn, name, f"fake:///{name}", "fake")
        hosts.record_facts(conn, name, FACTS, [Inventory("VCPU", 64), Inventory("MEMORY_MB", memory_mb), Inventory("DISK_GB", 1000)])
    return host.id


def get(db: Database, name: str) -> Host:
    with db.read() as conn:
        return hosts.get(conn, name)


def fail(db: Database, name: str, step: str = "spawn", times: int = 1, *, threshold: int = 2, reason: str | None = "broke") -> list[bool]:
    with db.write() as conn:
        return [hosts.count_build(conn, name, True, step, reason, threshold) for _ in range(times)]


def age(db: Database, name: str, seconds: float = INTERVAL + 1) -> float:
    """Have the latest probe be so long ago."""
    at = now() - seconds
    with db.write() as conn:
        conn.execute(hosts_table.update().where(hosts_table.c.name == name).values(probed_at=at))
    return at


def spec(number: int = 1, **more) -> RequestSpec:
    return RequestSpec(f"{number:036}", "p", "u", Flavor("1", "small", vcpus=1, memory_mb=512, root_gb=1), **more)


def claim(db: Database, selection: Selection, asked: RequestSpec) -> str:
    with db.write() as conn:
        return claim_first(conn, selection, asked.resources(), asked.instance_uuid, "job").host


@pytest.fixture
def scheduler(db, conf) -> Scheduler:
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    return Scheduler(db, conf)


# --- Counting ---------------------------------------------------------------------------------------------------------


def test_failures_in_a_row_at_one_step_quarantine_once(db):
    add_host(db, "h1")
    add_host(db, "h2")
    assert fail(db, "h1", times=4) == [False, True, False, False]
    host = get(db, "h1")
    assert (host.failed_builds, host.failed_step, host.failed_in_step) == (4, "spawn", 4)
    assert host.quarantine_reason == "2 builds in a row failed at spawn; the last one: broke"
    assert host.probed_at == host.quarantined_at is not None
    assert get(db, "h2").quarantined_at is None


def test_a_failure_at_another_step_starts_the_count_anew(db):
    add_host(db, "h1")
    for step in ("spawn", "plug_network", "spawn", "fetch_image"):
        assert fail(db, "h1", step) == [False]
    assert (get(db, "h1").failed_builds, get(db, "h1").failed_in_step) == (4, 1)
    assert fail(db, "h1", "fetch_image") == [True]


def test_a_success_ends_quarantine_and_counts_and_says_so_once(db):
    add_host(db, "h1")
    with db.write() as conn:
        assert hosts.count_build(conn, "h1", failed=False) is False
    fail(db, "h1")
    with db.write() as conn:
        assert hosts.count_build(conn, "h1", failed=False) is False
    fail(db, "h1", times=3)
    with db.write() as conn:
        assert hosts.count_build(conn, "h1", failed=False) is True
        assert hosts.count_build(conn, "h1", failed=False) is False
    host = get(db, "h1")
    assert (host.failed_builds, host.failed_step, host.failed_in_step) == (0, None, 0)
    assert (host.quarantined_at, host.quarantine_reason, host.probed_at) == (None, None, None)


def test_a_success_without_failures_before_it_costs_one_statement(sqlite_db):
    add_host(sqlite_db, "h1")
    with sqlite_db.write() as conn:
        before = sqlite_db.statements
        hosts.count_build(conn, "h1", failed=False)
        assert sqlite_db.statements == before + 1


def test_a_long_reason_is_cut_and_a_host_that_is_gone_is_nobodys_failure(db):
    add_host(db, "h1")
    fail(db, "h1", times=2, reason="x" * 5000)
    assert len(get(db, "h1").quarantine_reason) == 1000
    assert fail(db, "gone", times=3) == [False, False, False]


def test_disabled_and_quarantined_a_host_tells_what_the_operator_said(db):
    add_host(db, "h1")
    fail(db, "h1", times=2)
    assert (get(db, "h1").takes_builds, get(db, "h1").idle_reason) == (
        False,
        "quarantined: 2 builds in a row failed at spawn; the last one: broke",
    )
    with db.write() as conn:
        hosts.disable(conn, "h1", "mending it")
    assert (get(db, "h1").takes_builds, get(db, "h1").idle_reason) == (False, "mending it")
    with db.write() as conn:
        hosts.enable(conn, "h1")
    host = get(db, "h1")
    assert (host.takes_builds, host.idle_reason, host.failed_builds) == (True, None, 0)


# --- Choosing ---------------------------------------------------------------------------------------------------------


def test_a_quarantined_host_is_rejected_and_only_administrators_are_told_why(db, scheduler):
    add_host(db, "h1")
    fail(db, "h1", times=2, reason="no QEMU on h1")
    with pytest.raises(NoValidHost) as caught:
        scheduler.select(spec(), {})
    assert caught.value.text.startswith("No valid host was found. 0 of 1 host fit: 1 in quarantine after failed builds. An operator sees ")
    assert "h1" not in caught.value.text
    (rejection,) = caught.value.report.rejections
    assert (rejection.check, rejection.hosts) == ("compute_up", ("h1",))
    assert rejection.details == ("h1: 2 builds in a row failed at spawn; the last one: no QEMU on h1",)
    with db.write() as conn:
        hosts.enable(conn, "h1")
    assert scheduler.select(spec(), {}).probe_before is None


def test_a_probe_that_is_due_comes_first_and_is_no_alternate(db, scheduler):
    add_host(db, "broken", memory_mb=8192)
    add_host(db, "well")
    fail(db, "broken", times=2)
    assert (scheduler.select(spec(), {}).host, scheduler.select(spec(), {}).alternates) == ("well", ())
    began = age(db, "broken")
    selection = scheduler.select(spec(), {})
    assert (selection.host, selection.alternates) == ("broken", ("well",))
    assert selection.probe_before is not None
    assert selection.probe_before >= began


@pytest.mark.parametrize(("max_attempts", "tried"), [(1, {}), (3, {"other": "it broke"})])
def test_a_build_that_would_end_with_its_probe_goes_elsewhere(db, scheduler, max_attempts, tried):
    add_host(db, "broken")
    add_host(db, "well", memory_mb=8192)
    fail(db, "broken", times=2)
    age(db, "broken")
    selection = scheduler.select(spec(max_attempts=max_attempts), tried)
    assert (selection.host, selection.alternates, selection.probe_before) == ("well", (), None)


def test_a_forced_host_is_claimed_without_being_probed(db, scheduler):
    add_host(db, "broken")
    fail(db, "broken", times=2)
    before = get(db, "broken").probed_at
    selection = scheduler.select(spec(force_host="broken"), {})
    assert (selection.host, selection.probe_before) == ("broken", None)
    assert claim(db, selection, spec()) == "broken"
    assert get(db, "broken").probed_at == before


def test_requests_of_one_conductor_choose_one_probe_before_anything_is_claimed(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 3600.0, "scheduler")
    add_host(sqlite_db, "broken")
    add_host(sqlite_db, "well")
    fail(sqlite_db, "broken", times=2)
    age(sqlite_db, "broken")
    scheduler = Scheduler(sqlite_db, conf)
    chosen = Counter(scheduler.select(spec(number), {}).host for number in range(8))
    assert chosen == {"broken": 1, "well": 7}


def test_a_probe_that_was_chosen_and_given_up_does_not_refuse_the_next_one(sqlite_db, conf):
    add_host(sqlite_db, "only")
    fail(sqlite_db, "only", times=2)
    age(sqlite_db, "only")
    scheduler = Scheduler(sqlite_db, conf)
    assert [scheduler.select(spec(number), {}).host for number in range(3)] == ["only"] * 3


# --- Claiming ---------------------------------------------------------------------------------------------------------


def test_the_claim_of_a_probe_moves_the_time_and_found_again_is_the_same_probe(db, scheduler):
    add_host(db, "h1")
    fail(db, "h1", times=2)
    since = get(db, "h1").quarantined_at
    age(db, "h1")
    first, second = scheduler.select(spec(1), {}), Scheduler(db, scheduler._conf).select(spec(2), {})
    assert claim(db, first, spec(1)) == "h1"
    assert now() - get(db, "h1").probed_at < 60
    assert get(db, "h1").quarantined_at == since
    assert claim(db, first, spec(1)) == "h1", "the step runs twice after a crash"
    with pytest.raises(ComputeResourcesUnavailable, match="another build probes it"):
        claim(db, second, spec(2))
    with db.read() as conn:
        assert allocations.held_by(conn, spec(2).instance_uuid) is None
    with pytest.raises(NoValidHost, match="1 in quarantine after failed builds"):
        scheduler.select(spec(2), {}, fresh=True)


def test_a_probe_that_finds_no_room_leaves_the_time_to_the_next_one(db, scheduler):
    host_id = add_host(db, "h1", memory_mb=1024)
    fail(db, "h1", times=2)
    began = age(db, "h1")
    selection = scheduler.select(spec(), {})
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="other", host_id=host_id, resources={"MEMORY_MB": 1024})
    with pytest.raises(ComputeResourcesUnavailable, match="512 MB memory asked, 0 free"):
        claim(db, selection, spec())
    assert get(db, "h1").probed_at == began


def test_only_the_claim_of_a_quarantined_host_costs_a_statement_more(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    add_host(sqlite_db, "broken")
    scheduler = Scheduler(sqlite_db, conf)

    def cost(number: int) -> int:
        selection = scheduler.select(spec(number), {})
        with sqlite_db.write() as conn:
            before = sqlite_db.statements
            claim_first(conn, selection, spec(number).resources(), spec(number).instance_uuid, "job")
            return sqlite_db.statements - before

    usual = cost(1)
    fail(sqlite_db, "broken", times=2)
    age(sqlite_db, "broken")
    assert cost(2) == usual + 1


def test_of_many_conductors_at_once_one_build_probes(db, conf):
    add_host(db, "broken")
    add_host(db, "well")
    fail(db, "broken", times=2)
    age(db, "broken")
    schedulers = [Scheduler(db, conf) for _ in range(6)]

    def place(number: int) -> str:
        selection = schedulers[number % 6].select(spec(number), {})
        while True:
            try:
                return claim(db, selection, spec(number))
            except ComputeResourcesUnavailable:
                selection = schedulers[number % 6].select(spec(number), {}, fresh=True)

    with ThreadPoolExecutor(6) as pool:
        placed = Counter(pool.map(place, range(18)))
    assert placed == {"broken": 1, "well": 17}
