"""Hosts that lack a metric, and from a fake host's answer to the choice."""

from dataclasses import replace

import numpy as np
import pytest

from hullwright.conf import opts
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, HostRef, Inventory
from hullwright.objects.instances import RequestSpec
from hullwright.persistence import hosts
from hullwright.scheduler import filters, select, weighers, weighing
from hullwright.scheduler.columns import Columns, HostRow
from hullwright.scheduler.relations import Relations
from hullwright.scheduler.request import Request
from hullwright.scheduler.select import Scheduler

SPEC = RequestSpec("i", "p", "u", Flavor("1", "small", 1, 1, 1))
SETTING = {"cpu.percent": -1.0, "cpu.frequency": 0.0}


def columns_of(tmp_path, setting, *queries):
    """Hosts h1, h2, ... that tell what their URIs have them tell."""
    rows = []
    for number, query in enumerate(queries, 1):
        driver = FakeDriver(HostRef(f"h{number}", f"fake://{tmp_path}/{number}?{query}", "fake"), opts.load([], {}))
        rows.append(HostRow(number, f"h{number}", facts=driver.facts()))
    return Columns(rows, setting)


def weights_of(columns, metrics):
    conf = opts.load([], {"metrics": metrics})
    request = Request(SPEC, {}, {}, 0.0, conf, Relations(None, {}))
    weighed = weighing.weigh(columns, request, columns.all(), weighers.load(["metrics"], conf))
    return weighed.total.tolist(), request


BUSY = ("metrics=cpu.percent:80,cpu.frequency:2400", "metrics=cpu.percent:20,cpu.frequency:1", "", "metrics=cpu.percent:40")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"weight_setting": SETTING}, [0.0, 1.0, 0.0, 2 / 3]),
        ({"weight_setting": SETTING, "required": False, "weight_of_unavailable": -140.0}, [0.5, 1.0, 0.0, 5 / 6]),
        ({"weight_setting": SETTING, "weight_multiplier": -2.0}, [0.0, -2.0, 0.0, -4 / 3]),
        ({"weight_setting": SETTING, "weight_multiplier": 0.0}, [0.0] * 4),
        ({"weight_setting": {"cpu.other": 1.0}}, [0.0] * 4),
        ({}, [0.0] * 4),
    ],
)
def test_a_host_that_lacks_a_metric_counts_as_the_least_or_as_the_option_says(tmp_path, metrics, expected):
    columns = columns_of(tmp_path, metrics.get("weight_setting", ()), *BUSY)
    assert weights_of(columns, metrics)[0] == pytest.approx(expected)


def test_the_filter_says_which_metric_is_lacking(tmp_path):
    columns = columns_of(tmp_path, SETTING, *BUSY)
    outcome = select.apply_filters(columns, weights_of(columns, {"weight_setting": SETTING})[1], filters.load(["MetricsFilter"]))
    assert {(each.reason, each.hosts) for each in outcome.rejections} == {
        ("not telling the metric cpu.percent", ("h3",)),
        ("not telling the metric cpu.frequency", ("h4",)),
    }


def test_without_a_setting_no_metric_is_kept_and_no_host_is_weighed(tmp_path):
    columns = columns_of(tmp_path, (), *BUSY)
    assert columns.metrics.by_name == {}
    assert np.isnan(columns.metrics.of("cpu.percent")).all()
    [weigher] = weighers.load(["metrics"], opts.load([]))
    assert weigher.multipliers(columns) == 0.0


def test_what_a_setting_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"cpu\.other"):
        opts.load([], {"compute": {"compute_monitors": "cpu.other"}})
    with pytest.raises(ValueError, match="much"):
        opts.load([], {"metrics": {"weight_setting": "cpu.percent=much"}})


def test_the_choice_follows_what_hosts_tell(db, conf):
    conf.set_override("weight_setting", {"cpu.percent": -1.0}, "metrics")
    facts = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=16384, disk_gb=100, disk_free_gb=100)
    with db.write() as conn:
        for name in ("a", "b"):
            hosts.register(conn, name, f"fake:///{name}", "fake")
    scheduler = Scheduler(db, conf)
    for busy, idle in (("a", "b"), ("b", "a")):
        with db.write() as conn:
            for name, percent in ((busy, 90), (idle, 10)):
                sizes = [Inventory("VCPU", 8, 0, 4.0), Inventory("MEMORY_MB", 16384), Inventory("DISK_GB", 100)]
                hosts.record_facts(conn, name, replace(facts, metrics={"cpu.percent": percent}), sizes)
        selection = scheduler.select(SPEC, {}, fresh=True)
        assert selection.host == idle
        assert [(each.host, each.parts) for each in selection.report.candidates] == [(idle, {"metrics": 1.0}), (busy, {"metrics": 0.0})]
