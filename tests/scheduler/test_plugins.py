"""Filters and weighers by name: this package's files, others' entry points, and options that say how much."""

import dataclasses
import sys
import types
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import RequestSpec
from hullwright.scheduler import filters, plugins, select, weighers, weighing
from hullwright.scheduler.columns import Columns, HostRow
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
        "already tried: broken": 1,
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


def test_all_weighers_are_those_of_the_default(conf):
    everything = [each.name for each in weighers.load(["nova.scheduler.weights.all_weighers"], conf)]
    assert sorted(everything) == sorted(conf.scheduler.weight_classes)
    assert all(weighers.load([alias], conf) for alias in weighers.ALIASES)
    assert all(filters.load([alias]) for alias in filters.ALIASES if alias.endswith("Filter"))
