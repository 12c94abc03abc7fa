"""What is known of aggregates follows the database by change: it is read where it changed and nowhere else, and nothing old stays."""

import random

import pytest

from hullwright.objects.errors import AggregateHostExists, AggregateHostNotFound, AggregateNotFound, Conflict, HostNotFound
from hullwright.objects.errors import InvalidAggregateAction as Refused
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.persistence import aggregates, allocations, hosts
from hullwright.persistence.database import Database
from hullwright.scheduler.select import Scheduler
from hullwright.scheduler.snapshot import Snapshot
from hullwright.scheduler.surroundings import Surroundings

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=16384, disk_gb=100, disk_free_gb=100)
SIZES = [Inventory("VCPU", 8), Inventory("MEMORY_MB", 16384), Inventory("DISK_GB", 100)]


def add_host(conn, name: str) -> int:
    host = hosts.register(conn, name, f"fake:///{name}", "fake")
    hosts.record_facts(conn, name, FACTS, SIZES)
    return host.id


def add_aggregate(conn, name: str, members: list[str], **metadata: str) -> int:
    id = aggregates.create(conn, name).id
    aggregates.set_metadata(conn, id, metadata)
    for host in members:
        aggregates.add_host(conn, id, host)
    return id


class View:
    """A snapshot and its surroundings, without a scheduler."""

    def __init__(self, db: Database) -> None:
        self.snapshot, self.surroundings = Snapshot(db), Surroundings(db, ())

    def read(self) -> int:
        """Refresh both; how many rows of aggregates and memberships that read."""
        before = self.surroundings.rows_read
        self.snapshot.refresh(0.0)
        self.surroundings.refresh(self.snapshot.columns)
        return self.surroundings.rows_read - before

    def told(self) -> dict[str, list[dict[str, str]]]:
        """Host -> the metadata of its aggregates."""
        columns = self.snapshot.columns
        return {name: sorted(columns.aggregates.of_host(at), key=str) for at, name in enumerate(columns.names)}


def asked(number: int, project: str) -> RequestSpec:
    return RequestSpec(f"00000000-0000-0000-0000-{number:012}", project, "u", Flavor("1", "small", vcpus=1, memory_mb=128, root_gb=1))


def test_an_aggregate_made_where_another_was_removed_is_not_taken_for_it(db, conf):
    """However alike their histories are: here the new one keeps the other host for another project."""
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    conf.set_override("enabled_filters", ["AggregateMultiTenancyIsolation"], "scheduler")
    with db.write() as conn:
        add_host(conn, "a")
        add_host(conn, "b")
        old = add_aggregate(conn, "of-p", ["a"], filter_tenant_id="p")
    scheduler = Scheduler(db, conf)
    assert scheduler.select(asked(1, "q"), {}).host == "b"
    with db.write() as conn:
        aggregates.remove_host(conn, old, "a")
        aggregates.delete(conn, old)
    with db.write() as conn:
        new = add_aggregate(conn, "of-p", ["b"], filter_tenant_id="p")
    assert scheduler.select(asked(2, "q"), {}).host == "a"
    assert new != old


def test_a_refresh_reads_the_aggregates_and_memberships_that_changed_and_no_others(db):
    names = [f"h{number}" for number in range(20)]
    with db.write() as conn:
        ids = [add_host(conn, name) for name in names]
        racks = [add_aggregate(conn, f"rack-{number}", names[number::4], rack=str(number)) for number in range(4)]
        everywhere = add_aggregate(conn, "all", names, of="all")
    view = View(db)
    assert view.read() == 2 * 20 + 5, "the first one reads all"
    assert view.read() == 0
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="i", host_id=ids[7], resources={"VCPU": 1})
        hosts.count_build(conn, "h3", failed=True)
    assert view.read() == 0, "what is no news of aggregates"
    with db.write() as conn:
        aggregates.set_metadata(conn, everywhere, {"of": "everybody"})
    assert view.read() == 1, "its metadata, whatever the number of its hosts"
    with db.write() as conn:
        aggregates.remove_host(conn, racks[1], "h1")
        aggregates.add_host(conn, racks[0], "h1")
    assert view.read() == 2 + 2, "two aggregates, and what one host is in"
    assert view.told()["h1"] == [{"of": "everybody"}, {"rack": "0"}]
    with db.write() as conn:
        add_host(conn, "new")
        aggregates.add_host(conn, racks[2], "new")
    assert view.read() == 1 + 1, "one aggregate, and what the host that came is in"
    with db.write() as conn:
        hosts.remove(conn, "h2")
    assert view.read() == 0
    with db.write() as conn:
        aggregates.remove_host(conn, racks[2], "new")
        for name in names[6::4]:
            aggregates.remove_host(conn, racks[2], name)
        aggregates.delete(conn, racks[2])
    assert view.read() == 1 + 4, "the removal, and what its hosts are in now"
    assert view.told()["new"] == []
    assert view.told()["h6"] == [{"of": "everybody"}]
    assert view.read() == 0


def test_a_removed_aggregate_takes_no_number_of_a_change_with_it(db):
    """A number that was given twice would be a change that somebody never hears of."""
    with db.write() as conn:
        host_id = add_host(conn, "a")
        last = add_aggregate(conn, "last", [])
    view = View(db)
    view.read()
    with db.write() as conn:
        aggregates.delete(conn, last)
        allocations.claim(conn, instance_uuid="i", host_id=host_id, resources={"VCPU": 1})
    view.read()
    assert view.snapshot.columns.resource("VCPU").used.tolist() == [1]


def test_after_a_reading_that_failed_no_host_is_chosen_whose_aggregates_are_not_known(sqlite_db, conf, monkeypatch):
    conf.set_override("enabled_filters", ["AggregateMultiTenancyIsolation"], "scheduler")
    conf.set_override("snapshot_max_age_seconds", 3600.0, "scheduler")
    with sqlite_db.write() as conn:
        add_host(conn, "a")
        add_host(conn, "b")
        add_aggregate(conn, "of-p", ["a"], filter_tenant_id="p")
    scheduler = Scheduler(sqlite_db, conf)
    with monkeypatch.context() as patch:
        patch.setattr(Surroundings, "_read_aggregates", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scheduler.select(asked(1, "q"), {})
    assert scheduler.select(asked(1, "q"), {}).host == "b"


@pytest.mark.postgresql
def test_memberships_of_transactions_that_commit_late_are_seen(postgres_tables_url):
    db = Database(postgres_tables_url)
    try:
        with db.write() as conn:
            for name in ("a", "b"):
                add_host(conn, name)
            slow_one, quick_one = add_aggregate(conn, "slow", [], is_="slow"), add_aggregate(conn, "quick", [], is_="quick")
        view = View(db)
        view.read()
        with db.write() as slow:
            aggregates.add_host(slow, slow_one, "a")
            with db.write() as quick:
                aggregates.add_host(quick, quick_one, "b")
            view.read()
            assert view.told() == {"a": [], "b": [{"is_": "quick"}]}
        view.read()
        assert view.told() == {"a": [{"is_": "slow"}], "b": [{"is_": "quick"}]}
    finally:
        db.close()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_a_view_that_followed_it_is_one_that_was_read_anew(db, seed):
    luck = random.Random(seed)
    names, made, number = ["a", "b", "c", "d"], [], 0
    with db.write() as conn:
        for name in names:
            add_host(conn, name)
    view = View(db)
    for _ in range(80):
        name, id = luck.choice(names), luck.choice(made or [0])
        try:
            with db.write() as conn:
                match luck.randrange(8):
                    case 0:
                        number += 1
                        made.append(aggregates.create(conn, f"aggregate-{number}").id)
                    case 1:
                        aggregates.set_metadata(conn, id, {luck.choice(["x", "y"]): luck.choice(["1", "2", None])})
                    case 2 | 3:
                        aggregates.add_host(conn, id, name)
                    case 4:
                        aggregates.remove_host(conn, id, name)
                    case 5:
                        aggregates.delete(conn, id)
                    case 6:
                        hosts.remove(conn, name)
                    case _:
                        add_host(conn, name)
                if luck.random() < 0.1:
                    raise Conflict("given up")
        except (AggregateHostExists, AggregateHostNotFound, AggregateNotFound, Conflict, HostNotFound, Refused):
            pass
        if luck.random() < 0.5:
            view.read()
            anew = View(db)
            anew.read()
            assert view.told() == anew.told()
