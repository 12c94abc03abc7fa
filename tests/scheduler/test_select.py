"""Scheduler.select: which host, which alternates, and what is said of the others."""

import dataclasses
import sys
import time
import types

import pytest

from hullwright.objects.errors import ComputeResourcesUnavailable, NoValidHost
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.persistence import aggregates, allocations, hosts
from hullwright.persistence.database import Database
from hullwright.scheduler.claim import claim_first
from hullwright.scheduler.filters import Filter
from hullwright.scheduler.plugins import UnknownPlugin
from hullwright.scheduler.select import Scheduler

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=16384, disk_gb=100, disk_free_gb=100)


def add_host(db: Database, name: str, *, memory_mb: int = 16384, vcpus: int = 8, availability_zone: str = "nova", **facts) -> int:
    told = dataclasses.replace(FACTS, memory_mb=memory_mb, vcpus=vcpus, **facts)
    with db.write() as conn:
        host = hosts.register(conn, name, f"fake:///{name}", "fake", availability_zone=availability_zone)
        sizes = [Inventory("VCPU", vcpus, 0, 4.0), Inventory("MEMORY_MB", memory_mb), Inventory("DISK_GB", told.disk_gb)]
        hosts.record_facts(conn, name, told, sizes)
    return host.id


def spec(number: int = 1, *, memory_mb: int = 512, **more) -> RequestSpec:
    flavor = Flavor("1", "small", vcpus=more.pop("vcpus", 1), memory_mb=memory_mb, root_gb=1)
    return RequestSpec(f"00000000-0000-0000-0000-{number:012}", "project", "user", flavor, **more)


def refusal(scheduler: Scheduler, *args, **more) -> NoValidHost:
    with pytest.raises(NoValidHost) as caught:
        scheduler.select(*args, **more)
    return caught.value


def test_the_host_with_most_room_is_chosen_and_the_next_best_are_alternates(db, conf):
    for name, memory_mb in (("small", 4096), ("large", 16384), ("middle", 8192), ("tiny", 2048)):
        add_host(db, name, memory_mb=memory_mb)
    selection = Scheduler(db, conf).select(spec(), {})
    assert (selection.host, selection.alternates) == ("large", ("middle", "small"))
    with db.read() as conn:
        assert [hosts.get(conn, name).id for name in ("large", "middle", "small")] == [selection.host_id, *selection.alternate_ids]
    report = selection.report
    assert report.chosen == "large"
    assert report.considered == 4
    assert [found.host for found in report.candidates] == ["large", "middle", "small", "tiny"]
    assert [found.weight for found in report.candidates][::3] == [1.0, 0.125]


def test_negative_multipliers_pack(sqlite_db, conf):
    conf.set_override("ram_weight_multiplier", -1.0, "scheduler")
    add_host(sqlite_db, "large")
    add_host(sqlite_db, "small", memory_mb=4096)
    assert Scheduler(sqlite_db, conf).select(spec(), {}).host == "small"


def test_without_any_host_it_says_so_plainly(sqlite_db, conf):
    error = refusal(Scheduler(sqlite_db, conf), spec(), {})
    assert error.text == "No valid host was found. No host is registered: an operator has to add one."
    assert error.report.considered == 0


def test_the_refusal_counts_each_reason_and_names_no_host(sqlite_db, conf):
    for name in ("alpha", "beta", "gamma"):
        add_host(sqlite_db, name, memory_mb=16384 if name == "gamma" else 2048)
    tried = {"gamma": "libvirt: cannot start domain on host gamma."}
    error = refusal(Scheduler(sqlite_db, conf), spec(memory_mb=4096), tried)
    assert error.text == (
        "No valid host was found. 0 of 3 hosts fit: 2 lack 4096 MB memory, 1 already tried. "
        "The largest of these hosts has 2048 MB memory: ask for less, or have a larger one added. "
        "Each of these hosts was tried: the attempts tell what failed there."
    )
    assert [(r.check, r.count, r.hosts) for r in error.report.rejections] == [
        ("capacity", 2, ("alpha", "beta")),
        ("retry", 1, ("gamma",)),
    ]
    assert error.report.rejections[1].details == ("gamma: libvirt: cannot start domain on host gamma.",), "for administrators"


def test_disabled_down_and_silent_hosts_get_nothing(sqlite_db, conf):
    for name in ("off", "forced", "silent"):
        add_host(sqlite_db, name)
    with sqlite_db.write() as conn:
        hosts.register(conn, "unasked", "fake:///unasked", "fake")
        hosts.disable(conn, "off", "maintenance")
        hosts.force_down(conn, "forced", True)
        hosts.record_silence(conn, "silent", "no route", at=1000.0)
        hosts.record_silence(conn, "silent", "no route", at=1061.0)
    scheduler = Scheduler(sqlite_db, conf)
    error = refusal(scheduler, spec(), {})
    assert error.report.summary() == "0 of 4 hosts fit: 3 down, 1 disabled."
    with sqlite_db.write() as conn:
        hosts.enable(conn, "off")
    assert scheduler.select(spec(), {}).host == "off"


def test_a_view_that_was_read_before_follows_a_hosts_silence_and_its_return(db, conf):
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    add_host(db, "h")
    scheduler = Scheduler(db, conf)
    assert scheduler.select(spec(1), {}).host == "h"
    with db.write() as conn:
        hosts.record_silence(conn, "h", "no route", at=1000.0)
    assert scheduler.select(spec(2), {}).host == "h", "one question without an answer is no long silence"
    with db.write() as conn:
        hosts.record_silence(conn, "h", "no route", at=1061.0)
    assert refusal(scheduler, spec(3), {}).report.summary() == "0 of 1 host fit: 1 down."
    with db.write() as conn:
        hosts.record_facts(conn, "h", FACTS)
    assert scheduler.select(spec(4), {}).host == "h"


def test_a_host_that_nobody_asked_for_an_hour_is_as_good_as_before(sqlite_db, conf):
    add_host(sqlite_db, "h")
    with sqlite_db.write() as conn:
        hosts.record_facts(conn, "h", FACTS, at=time.time() - 3600)
    assert Scheduler(sqlite_db, conf).select(spec(), {}).host == "h"


def test_a_host_registered_a_moment_ago_is_found_whatever_the_age_of_the_view(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 3600.0, "scheduler")
    scheduler = Scheduler(sqlite_db, conf)
    refusal(scheduler, spec(), {})
    add_host(sqlite_db, "new")
    assert scheduler.select(spec(), {}).host == "new"


def test_a_host_that_was_removed_is_chosen_no_more(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    add_host(sqlite_db, "a", memory_mb=65536)
    add_host(sqlite_db, "b")
    scheduler = Scheduler(sqlite_db, conf)
    assert scheduler.select(spec(), {}).host == "a"
    with sqlite_db.write() as conn:
        hosts.remove(conn, "a")
    assert scheduler.select(spec(), {}).host == "b"


def test_choices_not_yet_claimed_count_so_that_concurrent_requests_spread(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 3600.0, "scheduler")
    for number in range(4):
        add_host(sqlite_db, f"h{number}")
    scheduler = Scheduler(sqlite_db, conf)
    chosen = [scheduler.select(spec(number), {}).host for number in range(40)]
    assert {chosen.count(f"h{number}") for number in range(4)} == {10}


def test_choices_that_are_given_up_do_not_make_a_host_full(sqlite_db, conf):
    add_host(sqlite_db, "only", memory_mb=1024)
    scheduler = Scheduler(sqlite_db, conf)
    for number in range(5):  # two fit at a time, none is ever claimed
        assert scheduler.select(spec(number), {}).host == "only"


def test_a_choice_that_became_a_claim_is_counted_once(sqlite_db, conf):
    host_id = add_host(sqlite_db, "only", memory_mb=1024)
    scheduler = Scheduler(sqlite_db, conf)
    for number in (1, 2):
        selection = scheduler.select(spec(number), {})
        with sqlite_db.write() as conn:
            claim_first(conn, selection, spec(number).resources(), spec(number).instance_uuid, "job")
    assert refusal(scheduler, spec(3), {}).report.summary() == "0 of 1 host fit: 1 lack 512 MB memory."
    with sqlite_db.write() as conn:
        assert hosts.list_inventories(conn, [host_id])[host_id][1].used == 1024
        allocations.release(conn, spec(1).instance_uuid)
    assert scheduler.select(spec(3), {}).host == "only"


def test_hosts_where_builds_failed_come_last_until_one_succeeds(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    add_host(sqlite_db, "roomy", memory_mb=65536)
    add_host(sqlite_db, "small")
    scheduler = Scheduler(sqlite_db, conf)
    with sqlite_db.write() as conn:
        hosts.count_build(conn, "roomy", failed=True)
    assert scheduler.select(spec(), {}).host == "small"
    with sqlite_db.write() as conn:
        hosts.count_build(conn, "roomy", failed=False)
    assert scheduler.select(spec(), {}).host == "roomy"


def test_a_forced_host_skips_the_filters_but_for_room_and_is_not_tried_twice(sqlite_db, conf):
    add_host(sqlite_db, "good")
    add_host(sqlite_db, "off")
    add_host(sqlite_db, "full", memory_mb=128)
    with sqlite_db.write() as conn:
        hosts.disable(conn, "off")
    scheduler = Scheduler(sqlite_db, conf)
    selection = scheduler.select(spec(force_host="off", availability_zone="elsewhere"), {})
    assert (selection.host, selection.alternates) == ("off", ())
    with sqlite_db.write() as conn:
        asked = spec(force_host="off").resources()
        assert claim_first(conn, selection, asked, "me", "job").host == "off"
    error = refusal(scheduler, spec(force_host="full"), {})
    assert "1 lack 512 MB memory" in error.text
    error = refusal(scheduler, spec(force_host="off"), {"off": "spawn failed"})
    assert "1 already tried" in error.text
    assert ("off: spawn failed",) in [each.details for each in error.report.rejections]
    error = refusal(scheduler, spec(force_host="nowhere"), {})
    assert "3 not the host asked for (no host of that name is registered)" in error.text


def test_a_requested_host_goes_through_the_filters(sqlite_db, conf):
    add_host(sqlite_db, "good")
    add_host(sqlite_db, "full", memory_mb=128)
    scheduler = Scheduler(sqlite_db, conf)
    assert scheduler.select(spec(requested_host="good"), {}).host == "good"
    assert "1 lack 512 MB memory" in refusal(scheduler, spec(requested_host="full"), {}).text


def test_only_the_host_that_has_the_volumes_passes_also_when_it_is_forced(sqlite_db, conf):
    for number in range(5):
        add_host(sqlite_db, f"h{number}", memory_mb=16384 + 1024 * number)
    scheduler = Scheduler(sqlite_db, conf)
    assert scheduler.select(spec(volume_host="h0"), {}).host == "h0"
    error = refusal(scheduler, spec(2, volume_host="h0", memory_mb=17000), {})
    assert "4 not the host that has the bytes of a volume" in error.text
    error = refusal(scheduler, spec(3, volume_host="gone"), {})
    assert "5 not the host that has the bytes of a volume (that host is not registered any more)" in error.text
    assert "not the host that has" in refusal(scheduler, spec(4, volume_host="h0", force_host="h1"), {}).text


def test_ignored_hosts_are_left_out(sqlite_db, conf):
    add_host(sqlite_db, "a")
    add_host(sqlite_db, "b")
    scheduler = Scheduler(sqlite_db, conf)
    assert scheduler.select(spec(ignore_hosts=("a", "unknown")), {}).host == "b"
    assert "2 ignored as asked" in refusal(scheduler, spec(ignore_hosts=("a", "b")), {}).text
    assert "1 ignored as asked" in refusal(scheduler, spec(ignore_hosts=("a",), force_host="a"), {}).text, "a forced host too"
    assert scheduler.select(spec(ignore_hosts=("a",), force_host="b"), {}).host == "b"


def test_an_availability_zone_is_kept_to(sqlite_db, conf):
    add_host(sqlite_db, "a")
    add_host(sqlite_db, "b")
    with sqlite_db.write() as conn:
        aggregates.set_home_zone(conn, "b", "west")
    scheduler = Scheduler(sqlite_db, conf)
    assert scheduler.select(spec(availability_zone="west"), {}).host == "b"
    assert "2 outside availability zone east" in refusal(scheduler, spec(availability_zone="east"), {}).text


def test_a_volume_as_root_disk_takes_no_disk_of_the_host(sqlite_db, conf):
    from hullwright.objects.volumes import BlockDeviceRequest

    boot = {field.name: None for field in dataclasses.fields(BlockDeviceRequest)} | {"boot_index": 0}
    asked = spec(block_devices=(BlockDeviceRequest(**boot),))
    assert asked.boots_from_volume
    assert asked.resources() == {"VCPU": 1, "MEMORY_MB": 512}


def test_a_subset_or_a_shuffle_chooses_at_random_among_the_best(sqlite_db, conf):
    conf.set_override("snapshot_max_age_seconds", 0.0, "scheduler")
    conf.set_override("host_subset_size", 2, "scheduler")
    for name, memory_mb in (("a", 16384), ("b", 15000), ("c", 1024)):
        add_host(sqlite_db, name, memory_mb=memory_mb)
    scheduler = Scheduler(sqlite_db, conf)
    assert {scheduler.select(spec(), {}).host for _ in range(40)} == {"a", "b"}
    conf.set_override("host_subset_size", 1, "scheduler")
    assert {scheduler.select(spec(), {}).host for _ in range(20)} == {"a"}
    conf.set_override("weight_classes", [], "scheduler")
    assert {Scheduler(sqlite_db, conf).select(spec(), {}).host for _ in range(20)} == {"a"}
    conf.set_override("shuffle_best_same_weighed_hosts", True, "scheduler")
    assert {Scheduler(sqlite_db, conf).select(spec(), {}).host for _ in range(80)} == {"a", "b", "c"}


def test_one_attempt_has_no_alternates(sqlite_db, conf):
    for number in range(3):
        add_host(sqlite_db, f"h{number}")
    assert Scheduler(sqlite_db, conf).select(spec(max_attempts=1), {}).alternates == ()


def test_a_claim_walks_down_the_alternates_and_stays_where_it_was_found(db, conf):
    for name in ("a", "b"):
        add_host(db, name, memory_mb=1024)
    scheduler = Scheduler(db, conf)
    selection = scheduler.select(spec(1, memory_mb=1024), {})
    assert (selection.host, selection.alternates) == ("a", ("b",))
    with db.write() as conn:
        allocations.claim(conn, instance_uuid="other", host_id=selection.host_id, resources={"MEMORY_MB": 1024})
        assert claim_first(conn, selection, {"MEMORY_MB": 1024}, "me", "job").host == "b"
    with db.write() as conn:
        allocations.release(conn, "other")  # room on the first again: a step that runs twice still finds its own claim
        assert claim_first(conn, selection, {"MEMORY_MB": 1024}, "me", "job").host == "b"
        allocations.claim(conn, instance_uuid="other", host_id=selection.host_id, resources={"MEMORY_MB": 1024})
        with pytest.raises(ComputeResourcesUnavailable, match="on a"):
            claim_first(conn, selection, {"MEMORY_MB": 1024}, "third", "job")
        assert allocations.held_by(conn, "third") is None


def test_a_report_stays_small_and_survives_json(sqlite_db, conf):
    for number in range(40):
        add_host(sqlite_db, f"h{number:02}")
    scheduler = Scheduler(sqlite_db, conf)

    def each_for_its_own_reason(hosts, request):
        for number in range(30):
            yield ~hosts.named([f"h{number:02}"]), f"reason {number}"

    scheduler._filters.append(Filter("various", each_for_its_own_reason))
    selection = scheduler.select(spec(), {})
    report = selection.report
    assert len(report.rejections) == 12
    assert sum(rejection.count for rejection in report.rejections) == 30
    assert report.rejections[-1].reason == "for other reasons"
    assert len(report.candidates) == 10
    assert type(selection).from_dict(selection.to_dict()) == selection


def test_an_unknown_filter_is_refused_at_the_start_and_novas_names_are_known(sqlite_db, conf):
    conf.set_override("enabled_filters", ["ComputeFilter", "RamFilter", "CoreFilter", "ImagePropertiesFilter"], "scheduler")
    assert [each.name for each in Scheduler(sqlite_db, conf)._filters] == [
        "destination",
        "retry",
        "compute_up",
        "availability_zone",
        "capacity",
        "traits",
        "image_properties",
        "server_group_anti_affinity",
        "server_group_affinity",
    ]
    conf.set_override("enabled_filters", ["../select"], "scheduler")
    with pytest.raises(UnknownPlugin, match="select"):
        Scheduler(sqlite_db, conf)


NOVAS_LINE = [
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
]


def test_with_novas_own_line_of_filters_zone_room_traits_and_failed_hosts_are_heeded_all_the_same(sqlite_db, conf):
    conf.set_override("enabled_filters", NOVAS_LINE, "scheduler")
    conf.set_override("available_filters", ["nova.scheduler.filters.all_filters"], "scheduler")
    add_host(sqlite_db, "small", memory_mb=64, availability_zone="west")
    add_host(sqlite_db, "east", memory_mb=1024, availability_zone="east")
    add_host(sqlite_db, "west", memory_mb=1024, availability_zone="west")
    scheduler = Scheduler(sqlite_db, conf)
    assert scheduler.select(spec(1, memory_mb=128, availability_zone="west"), {}).host == "west"
    with pytest.raises(NoValidHost) as caught:
        scheduler.select(spec(2, memory_mb=128, availability_zone="west"), {"west": "it broke"})
    assert [(each.check, each.hosts) for each in sorted(caught.value.report.rejections, key=lambda each: each.check)] == [
        ("availability_zone", ("east",)),
        ("capacity", ("small",)),
        ("retry", ("west",)),
    ]
    gold = dataclasses.replace(spec(3), flavor=dataclasses.replace(spec(3).flavor, extra_specs={"trait:CUSTOM_GOLD": "required"}))
    with pytest.raises(NoValidHost, match="without trait CUSTOM_GOLD"):
        scheduler.select(gold, {})


def test_a_filter_of_ones_own_takes_the_place_of_one_that_is_always_on(sqlite_db, conf, monkeypatch):
    mine = types.ModuleType("mine.capacity")
    mine.check = lambda hosts, request: iter([(hosts.none(), "refused by mine")])
    monkeypatch.setitem(sys.modules, "mine.capacity", mine)
    conf.set_override("available_filters", ["all", "mine.capacity"], "scheduler")
    conf.set_override("enabled_filters", ["capacity"], "scheduler")
    add_host(sqlite_db, "a")
    with pytest.raises(NoValidHost, match="1 refused by mine"):
        Scheduler(sqlite_db, conf).select(spec(), {})


def test_among_hosts_that_are_about_as_free_the_one_where_the_image_lies_is_chosen_and_no_other(sqlite_db, conf):
    fuller = add_host(sqlite_db, "fuller", memory_mb=262_144, vcpus=64, cached_images=("image",))
    add_host(sqlite_db, "emptier", memory_mb=262_144, vcpus=64)
    with sqlite_db.write() as conn:
        allocations.claim(conn, instance_uuid="other", host_id=fuller, resources=spec(2, memory_mb=2048).resources())
    asked = spec(1, memory_mb=2048, image_id="image")
    selection = Scheduler(sqlite_db, conf).select(asked, {})
    assert (selection.host, selection.report.candidates[1].parts["ram"]) == ("fuller", 1.0)
    with sqlite_db.write() as conn:
        allocations.claim(conn, instance_uuid="large", host_id=fuller, resources={"MEMORY_MB": 200_000})
    assert Scheduler(sqlite_db, conf).select(asked, {}).host == "emptier"
