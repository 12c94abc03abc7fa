"""What is told of a choice: shortages with their numbers, advice, weights by weigher, and a dry run that leaves nothing behind."""

import dataclasses

import pytest

from hullwright.objects.errors import NoValidHost
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.objects.placement import Explanation
from hullwright.persistence import allocations, hosts
from hullwright.scheduler.select import Scheduler

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=8192, disk_gb=100, disk_free_gb=100)


def add_host(db, name: str, *, memory_mb: int = 8192, ratio: float = 1.0) -> int:
    with db.write() as conn:
        host = hosts.register(conn, name, f"fake:///{name}", "fake")
        sizes = [Inventory("VCPU", 8, 0, 4.0), Inventory("MEMORY_MB", memory_mb, 0, ratio), Inventory("DISK_GB", 100)]
        hosts.record_facts(conn, name, dataclasses.replace(FACTS, hostname=name), sizes)
    return host.id


def spec(memory_mb: int = 512, number: int = 1, **more) -> RequestSpec:
    return RequestSpec(f"{number:036}", "p", "u", Flavor("1", "f", 1, memory_mb, 1), **more)


def report_of_refusal(scheduler, asked):
    with pytest.raises(NoValidHost) as caught:
        scheduler.select(asked, {})
    return caught.value.report


def test_a_shortage_tells_asked_free_total_and_ratio_of_each_host_and_users_the_most_there_is(sqlite_db, conf):
    add_host(sqlite_db, "small", memory_mb=2048)
    host_id = add_host(sqlite_db, "wide", memory_mb=4096, ratio=1.5)
    with sqlite_db.write() as conn:
        allocations.claim(conn, instance_uuid="other", host_id=host_id, resources={"MEMORY_MB": 3000})
    report = report_of_refusal(Scheduler(sqlite_db, conf), spec(4000))
    (rejection,) = report.rejections
    assert rejection.reason == "lack 4000 MB memory"
    assert rejection.details == (
        "small: 4000 MB memory asked, 2048 free of 2048 (2048 x 1)",
        "wide: 4000 MB memory asked, 3144 free of 6144 (4096 x 1.5)",
    )
    assert report.advice() == ("The most that one of these hosts has free is 3144 MB memory: ask for less, or wait for room.",)


def test_a_server_larger_than_a_host_is_told_that_it_may_not_overcommit_against_itself(sqlite_db, conf):
    """Else "4 free" would seem to be room for 3."""
    add_host(sqlite_db, "narrow", memory_mb=2, ratio=2.0)
    add_host(sqlite_db, "plain", memory_mb=2)
    (rejection,) = report_of_refusal(Scheduler(sqlite_db, conf), spec(3)).rejections
    assert rejection.details == (
        "narrow: 3 MB memory asked, 4 free of 4 (2 x 2), at most 2 for one server",
        "plain: 3 MB memory asked, 2 free of 2 (2 x 1)",
    )


def test_where_no_host_is_that_large_the_advice_says_how_large_they_are(sqlite_db, conf):
    add_host(sqlite_db, "a", memory_mb=2048)
    add_host(sqlite_db, "b", memory_mb=49152, ratio=4.0)
    report = report_of_refusal(Scheduler(sqlite_db, conf), spec(65536))
    assert report.summary() == "0 of 2 hosts fit: 2 lack 65536 MB memory."
    assert report.advice() == ("The largest of these hosts has 49152 MB memory: ask for less, or have a larger one added.",)


def test_a_host_that_has_nothing_of_a_resource_says_so(sqlite_db, conf):
    with sqlite_db.write() as conn:
        hosts.register(conn, "bare", "fake:///bare", "fake")
        hosts.record_facts(conn, "bare", FACTS, [Inventory("VCPU", 8)])
    (rejection,) = report_of_refusal(Scheduler(sqlite_db, conf), spec()).rejections
    assert rejection.details == ("bare: 512 MB memory asked, the host has none",)
    assert "0 MB memory" in rejection.advice


def test_advice_comes_with_the_most_frequent_reason_first_and_not_at_all_with_a_host(sqlite_db, conf):
    for name in ("a", "b", "c"):
        add_host(sqlite_db, name, memory_mb=256 if name == "c" else 8192)
    with sqlite_db.write() as conn:
        hosts.disable(conn, "a")
        hosts.disable(conn, "b")
    scheduler = Scheduler(sqlite_db, conf)
    first, second = report_of_refusal(scheduler, spec()).advice()
    assert "hullwright host list" in first
    assert "256 MB memory" in second
    with sqlite_db.write() as conn:
        hosts.enable(conn, "a")
    assert scheduler.select(spec(), {}).report.advice() == ()


def test_candidates_tell_what_each_weigher_gave_them(sqlite_db, conf):
    add_host(sqlite_db, "roomy", memory_mb=8192)
    add_host(sqlite_db, "small", memory_mb=4096)
    first, second = Scheduler(sqlite_db, conf).select(spec(), {}).report.candidates
    assert (first.host, first.weight, dict(first.parts)) == ("roomy", 1.0, {"ram": 1.0})
    assert (second.host, second.weight, dict(second.parts)) == ("small", 0.5, {"ram": 0.5})


def test_an_explanation_is_what_select_would_answer_and_changes_nothing(db, conf):
    conf.set_override("snapshot_max_age_seconds", 3600.0, "scheduler")
    add_host(db, "large")
    add_host(db, "small", memory_mb=1024)
    scheduler = Scheduler(db, conf)
    for _ in range(5):
        told = scheduler.explain(spec())
        assert (told.report.chosen, told.hosts, told.more) == ("large", (), False)
    assert not scheduler._snapshot.has_choices()
    selection = scheduler.select(spec(), {})
    assert selection.report == told.report
    assert Explanation.from_dict(told.to_dict()) == told


def test_an_explanation_counts_what_others_were_given_a_moment_ago(sqlite_db, conf):
    add_host(sqlite_db, "only", memory_mb=1024)
    scheduler = Scheduler(sqlite_db, conf)
    scheduler.select(spec(1024, number=1), {})
    told = scheduler.explain(spec(1024, number=2))
    assert told.report.summary() == "0 of 1 host fit: 1 lack 1024 MB memory."
    with sqlite_db.write() as conn:
        hosts.disable(conn, "only")
    assert scheduler.explain(spec(number=2)).report.summary() == "0 of 1 host fit: 1 disabled."


def test_in_detail_every_host_is_told_page_by_page(sqlite_db, conf):
    for number in range(5):
        add_host(sqlite_db, f"h{number}", memory_mb=1024 * (number + 1))
    with sqlite_db.write() as conn:
        hosts.disable(conn, "h4")
    scheduler = Scheduler(sqlite_db, conf)
    first = scheduler.explain(spec(2048), detail=True, limit=3)
    assert [each.host for each in first.hosts] == ["h0", "h1", "h2"]
    assert [each.fits for each in first.hosts] == [False, True, True]
    assert first.more
    assert (first.hosts[0].check, first.hosts[0].reason) == ("capacity", "lack 2048 MB memory")
    assert first.hosts[0].detail == "2048 MB memory asked, 1024 free of 1024 (1024 x 1)"
    assert first.hosts[1].weight == 0.5
    rest = scheduler.explain(spec(2048), detail=True, after="h2", limit=3)
    assert [(each.host, each.fits, each.reason) for each in rest.hosts] == [("h3", True, ""), ("h4", False, "disabled")]
    assert not rest.more
    assert (rest.report.chosen, rest.hosts[0].weight) == ("h3", 1.0)


def test_pages_are_in_the_order_of_names_while_hosts_come_and_go(sqlite_db, conf):
    for name in ("c", "a", "e"):
        add_host(sqlite_db, name)
    scheduler = Scheduler(sqlite_db, conf)

    def pages(limit: int) -> list[list[str]]:
        found, after, more = [], "", True
        while more:
            told = scheduler.explain(spec(), detail=True, after=after, limit=limit)
            found.append([each.host for each in told.hosts])
            after, more = found[-1][-1], told.more
        return found

    assert pages(2) == [["a", "c"], ["e"]]
    add_host(sqlite_db, "b")
    with sqlite_db.write() as conn:
        hosts.remove(conn, "c")
        hosts.remove(conn, "a")
    assert pages(1) == [["b"], ["e"]]
    assert pages(2) == [["b", "e"]]


def test_hosts_are_sorted_once_for_all_pages(sqlite_db, conf, monkeypatch):
    for name in ("c", "a", "b"):
        add_host(sqlite_db, name)
    sorts = []
    monkeypatch.setattr("hullwright.scheduler.columns.sorted", lambda names: sorts.append("sort") or sorted(names), raising=False)
    scheduler = Scheduler(sqlite_db, conf)
    for after in ("", "a", "b"):
        scheduler.explain(spec(), detail=True, after=after, limit=1)
    assert sorts == ["sort"]


def test_without_hosts_an_explanation_says_so(sqlite_db, conf):
    told = Scheduler(sqlite_db, conf).explain(spec(), detail=True)
    assert (told.report.considered, told.hosts, told.more) == (0, (), False)
