"""Filters and weighers by name: this package's files, others' entry points, and options that say how much."""

import dataclasses
import sys
import types
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from hullwright.conf import opts
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts
from hullwright.objects.instances import RequestSpec
from hullwright.objects.placement import PlacementReport, Rejection
from hullwright.scheduler import extra_specs, filters, plugins, select, weighers, weighing
from hullwright.scheduler.columns import Columns, HostRow, Labels
from hullwright.scheduler.request import Request


@pytest.fixture
def foreign(monkeypatch):
    """A filter and a weigher that somebody else installed."""
    module = types.ModuleType("somebody_elses")

    def check(hosts, request):
        yield hosts.ids % 2 == 0, "odd"

    module.check = check
    module.weigh = lambda hosts, request: hosts.ids.astype(float)
    monkeypatch.setitem(sys.modules, "somebody_elses", module)
    points = [EntryPoint("even", "somebody_elses", group) for group in ("hullwright.filters", "hullwright.weighers")]
    monkeypatch.setattr(plugins, "entry_points", lambda group, name: [p for p in points if (p.group, p.name) == (group, name)])


def request(conf):
    return Request(RequestSpec("i", "p", "u", Flavor("1", "f", 1, 1, 1)), {}, {}, 0.0, conf)


def test_a_foreign_filter_counts_like_our_own(foreign, conf):
    hosts = Columns([HostRow(number, f"h{number}") for number in range(1, 6)])
    outcome = select.apply_filters(hosts, request(conf), filters.load(["even", "AllHostsFilter"]))
    assert outcome.passing.tolist() == [False, True, False, True, False]
    assert [(r.check, r.reason, r.count, r.hosts) for r in outcome.rejections] == [("even", "odd", 3, ("h1", "h3", "h5"))]


def refusing(monkeypatch, passes):
    """The outcome of a filter for one host at a time, on 40 hosts."""
    monkeypatch.setattr(filters.plugins, "load", lambda *_: [("own", types.SimpleNamespace(passes=passes))])
    hosts = Columns([HostRow(number, f"h{number}") for number in range(1, 41)])
    return select.apply_filters(hosts, request(opts.load([])), filters.load(["own"]))


def test_a_filter_for_one_host_at_a_time_may_answer_with_a_truth_of_numpys(monkeypatch):
    outcome = refusing(monkeypatch, lambda host, request: np.int64(host.columns.ids[host.position]) > 30)
    assert outcome.passing.tolist() == [False] * 30 + [True] * 10
    assert [(each.reason, each.count) for each in outcome.rejections] == [("refused by own", 30)]


def test_of_a_text_for_each_host_the_most_frequent_are_told_apart_and_administrators_are_told_all(monkeypatch):
    outcome = refusing(monkeypatch, lambda host, request: "full" if host.name == "h40" or host.position < 3 else f"no {host.name}")
    assert not outcome.passing.any()
    assert len(outcome.falls) == 13
    assert (outcome.falls[0].reason, int(outcome.falls[0].hosts.sum())) == ("full", 4)
    rest = outcome.falls[-1]
    assert (rest.reason, int(rest.hosts.sum())) == ("refused by own for other reasons", 25)
    assert rest.details[39] == "no h39"


def test_a_foreign_weigher_without_an_option_counts_once(foreign, conf):
    hosts = Columns([HostRow(number, f"h{number}") for number in (1, 2, 3)])
    chain = weighers.load(["even"], conf)
    assert weighing.weigh(hosts, request(conf), hosts.all(), chain).total.tolist() == [0.0, 0.5, 1.0]


def test_a_weigher_with_multiplier_zero_is_not_even_asked(conf):
    conf.set_override("ram_weight_multiplier", 0.0, "scheduler")
    conf.set_override("cpu_weight_multiplier", 0.0, "scheduler")
    hosts = Columns([HostRow(number, f"h{number}") for number in (1, 2)])
    asked: list[str] = []
    chain = [dataclasses.replace(each, weigh=lambda *_: asked.append("asked")) for each in weighers.load(["ram", "cpu"], conf)]
    assert weighing.weigh(hosts, request(conf), hosts.all(), chain).total.tolist() == [0.0, 0.0]
    assert asked == []


@pytest.mark.parametrize("name", ["nonsense", "", "../filters/retry", "os.path"])
def test_a_name_that_nobody_provides_is_refused(name):
    with pytest.raises(plugins.UnknownPlugin):
        filters.load([name])


def test_hosts_of_a_hundred_thousand_are_filtered_and_weighed_in_one_go(conf):
    count = 100_000
    hosts = Columns([HostRow(number, f"h{number}", last_seen_at=10.0) for number in range(1, count + 1)])
    everywhere = np.arange(count)
    hosts.set_resource("VCPU", everywhere, 8, 0, 4.0, everywhere % 33)
    asked = Request(RequestSpec("i", "p", "u", Flavor("1", "f", 2, 1, 1)), {"VCPU": 2}, {"h1": "broken"}, 20.0, conf)
    outcome = select.apply_filters(hosts, asked, filters.load(["retry", "compute_up", "capacity"]))
    assert {r.reason: r.count for r in outcome.rejections} == {
        "lack 2 vCPUs": int((everywhere % 33 > 30).sum()),
        "already tried": 1,
    }
    weights = weighing.weigh(hosts, asked, outcome.passing, weighers.load(["cpu"], conf)).total
    best = weighing.best(weights, 3)
    assert [hosts.names[np.flatnonzero(outcome.passing)[at]] for at in best] == ["h34", "h67", "h100"]


def test_only_what_is_available_may_be_enabled(foreign):
    assert [each.name for each in filters.load(["ComputeFilter"], ["nova.scheduler.filters.all_filters"])] == ["compute_up"]
    assert [each.name for each in filters.load(["RetryFilter"], ["retry", "ComputeFilter"])] == ["retry"]
    with pytest.raises(plugins.UnknownPlugin, match="'JsonFilter', which is not among available_filters"):
        filters.load(["JsonFilter"], ["retry", "ComputeFilter"])


def test_a_module_of_ones_own_goes_by_the_last_word_of_its_path(foreign, conf, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine.odd_ones", sys.modules["somebody_elses"])
    hosts = Columns([HostRow(number, f"h{number}") for number in range(1, 6)])
    chain = filters.load(["odd_ones", "AllHostsFilter"], ["all", "mine.odd_ones"])
    outcome = select.apply_filters(hosts, request(conf), chain)
    assert [(r.check, r.count) for r in outcome.rejections] == [("odd_ones", 3)]
    with pytest.raises(plugins.UnknownPlugin, match="cannot be loaded"):
        filters.load(["none"], ["there.is.none"])


def test_all_weighers_are_those_of_the_default_and_the_one_that_is_always_on(conf):
    everything = [each.name for each in weighers.load(["nova.scheduler.weights.all_weighers"], conf)]
    assert sorted(everything) == sorted([*conf.scheduler.weight_classes, "probes"])
    assert all(weighers.load([alias], conf) for alias in weighers.ALIASES)
    assert all(filters.load([alias]) for alias in filters.ALIASES if alias.endswith("Filter"))


def test_what_a_flavor_asks_of_a_host_is_asked_once_for_each_word_and_of_all_numbers_at_once(conf, monkeypatch):
    count = 100_000
    facts = [HostFacts("h", kind, 7002022, 1, 1, 1, 1, cpu_features=("aes", "avx2")) for kind in ("QEMU", "Xen")]
    hosts = Columns([HostRow(number, f"h{number}", facts=facts[number % 2]) for number in range(count)])
    hosts.set_resource("MEMORY_MB", np.arange(count), np.arange(count), 0, 1.0, 0)
    asked: list[str] = []
    match = extra_specs.match
    monkeypatch.setattr(extra_specs, "match", lambda value, wanted: asked.append(value) or match(value, wanted))
    specs = {"capabilities:hypervisor_type": "QEMU", "capabilities:cpu_info:features": "<in> avx", "capabilities:free_ram_mb": ">= 90000"}
    spec = RequestSpec("i", "p", "u", Flavor("1", "f", 1, 1, 1, extra_specs=specs))
    outcome = select.apply_filters(hosts, Request(spec, {}, {}, 0.0, conf), filters.load(["compute_capabilities"]))
    assert {each.reason: each.count for each in outcome.rejections} == {
        "without capability hypervisor_type QEMU": 50_000,
        "without capability free_ram_mb >= 90000": 45_000,
    }
    assert sorted(asked) == ["", "", "QEMU", "Xen", "aes avx2"]  # the empty word is that of hosts that tell nothing


@pytest.mark.parametrize("name", ["NUMATopologyFilter", "PciPassthroughFilter"])
def test_a_filter_of_novas_that_nobody_has_is_refused_by_what_is_lacking_and_may_be_plugged_in(monkeypatch, name):
    with pytest.raises(plugins.UnknownPlugin, match=rf"{name}.*Hullwright has no .*leave it out, or install .* group hullwright\.filters"):
        filters.load([name])
    mine = types.SimpleNamespace(check=lambda hosts, request: iter(()))
    monkeypatch.setattr(plugins, "entry_points", lambda group, name: [types.SimpleNamespace(load=lambda: mine)])
    assert [each.name for each in filters.load([name])] == [name]


@pytest.mark.parametrize("name", weighers.LACKING)
def test_a_weigher_of_novas_that_nobody_has_is_refused_by_what_is_lacking(conf, name):
    with pytest.raises(plugins.UnknownPlugin, match="Hullwright has no "):
        weighers.load([name], conf)


def test_a_weigher_of_ones_own_is_named_by_its_path(conf, tmp_path, monkeypatch):
    (tmp_path / "our_weights.py").write_text("class Ids:\n    weigh = staticmethod(lambda hosts, request: hosts.ids.astype(float))\n")
    (tmp_path / "our_package").mkdir()
    (tmp_path / "our_package" / "ids.py").write_text("def weigh(hosts, request):\n    return -hosts.ids.astype(float)\n")
    (tmp_path / "our_package" / "broken.py").write_text("import there_is_none\n")
    monkeypatch.syspath_prepend(tmp_path)
    hosts = Columns([HostRow(number, f"h{number}") for number in (1, 2, 3)])
    for path, name, expected in (("our_weights.Ids", "Ids", [0.0, 0.5, 1.0]), ("our_package.ids", "ids", [1.0, 0.5, 0.0])):
        chain = weighers.load(["ram", path], conf)
        assert [each.name for each in chain] == ["ram", name]
        assert weighing.weigh(hosts, request(conf), hosts.all(), chain).total.tolist() == expected
    for path, told in (("our_package.none", "cannot be loaded"), ("our_package.broken", "there_is_none"), ("os.path", "no function weigh")):
        with pytest.raises(plugins.UnknownPlugin, match=told):
            weighers.load([path], conf)


def test_every_filter_has_advice_for_those_whose_hosts_fell_for_it():
    for name in set(plugins.names_of("filters")) - {"all_hosts", "capacity"}:  # nobody falls; `Shortage` knows better
        assert PlacementReport(1, rejections=(Rejection(name, "why", 1),)).advice(), name


def test_options_in_the_group_that_nova_has_them_in_are_heeded(tmp_path):
    file = tmp_path / "hullwright.conf"
    file.write_text(
        "[filter_scheduler]\n"
        "available_filters = nova.scheduler.filters.all_filters\n"
        "enabled_filters = ComputeFilter,AggregateRamFilter\n"
        "weight_classes = nova.scheduler.weights.ram.RAMWeigher\n"
        "host_subset_size = 7\n"
        "ram_weight_multiplier = -2\n"
        "isolated_hosts = a,b\n"
        "image_props_weight_setting = os_distro=2\n"
    )
    found = opts.load([file]).scheduler
    assert found.enabled_filters == ["ComputeFilter", "AggregateRamFilter"]
    assert [each.name for each in filters.load(found.enabled_filters, found.available_filters)] == ["compute_up", "capacity"]
    assert (found.weight_classes, found.host_subset_size) == (["nova.scheduler.weights.ram.RAMWeigher"], 7)
    assert (found.ram_weight_multiplier, found.isolated_hosts, found.image_props_weight_setting) == (-2.0, ["a", "b"], {"os_distro": 2.0})


def test_a_label_is_made_a_number_once_also_when_words_come_later():
    asked: list[str] = []

    def size_of(word):
        asked.append(word)
        return len(word)

    labels = Labels()
    labels.resize(3)
    labels.put(0, "four")
    assert labels.numbers(size_of).tolist() == [4, 0, 0]
    labels.put(1, "three")
    labels.put(2, "four")
    assert labels.numbers(size_of).tolist() == [4, 5, 4]
    labels.keep(np.array([False, True, True]))
    assert labels.numbers(size_of).tolist() == [5, 4]
    assert asked == ["", "four", "three"]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_multiplier_that_would_spoil_every_sum_is_refused_at_the_start(conf, number):
    conf.set_override("ram_weight_multiplier", float(number), "scheduler")
    with pytest.raises(plugins.UnknownPlugin, match="'ram' counts, which is no finite number"):
        weighers.load(["ram"], conf)


@pytest.mark.parametrize("said", ["nan", "inf", "1e999"])
def test_what_an_aggregate_says_of_a_weigher_spoils_no_choice_of_several_conductors(conf, said):
    hosts = Columns([HostRow(number, f"h{number}") for number in (1, 2, 3)])
    hosts.set_resource("MEMORY_MB", np.arange(3), np.array([10, 20, 30]), 0, 1.0, 0)
    hosts.aggregates.put(1, {"ram_weight_multiplier": said})
    hosts.aggregates.place(hosts.positions([3]), {1: [2]})
    weighed = weighing.weigh(hosts, request(conf), hosts.all(), weighers.load(["ram"], conf))
    assert weighed.total.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert weighing.of_turn(weighed, hosts.ids, (0, 3)) == 2
