"""Claims that others were quicker at: what the attempt's report says of the hosts that were lost, and of the one that it went to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hullwright.api.builds.views import report_view
from hullwright.cli.placement import rows
from hullwright.objects.placement import PlacementReport
from hullwright.objects.states import VmState
from hullwright.persistence import allocations, hosts
from hullwright.scheduler.select import Scheduler
from support.house import House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house with three hosts, the best first; between a choice and its claim, another one takes all of the best."""
    made = House(tmp_path, compute={"cpu_allocation_ratio": 1.0})
    for name, vcpus in (("h1", 50), ("h2", 40), ("h3", 30)):
        made.add_host(name, vcpus=vcpus)
    select = Scheduler.select

    def slow(self: Scheduler, spec: Any, tried: Any, **more: Any) -> Any:
        found = select(self, spec, tried, **more)
        with made.db.write() as connection:
            host_id = hosts.get(connection, "h1").id
            allocations.claim(connection, instance_uuid="other", host_id=host_id, resources={"VCPU": 50}, job_uuid="job")
        return found

    monkeypatch.setattr(Scheduler, "select", slow)
    yield made
    made.close()


def test_the_report_tells_the_host_that_was_claimed_and_why_the_one_before_it_was_lost(house: House) -> None:
    with house.conductor():
        (uuid,) = house.create(max_attempts=3)
        house.rest()
    assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h2")
    (attempt,) = house.attempts_of(uuid)
    report = PlacementReport.from_dict(attempt.report)
    assert (attempt.host, report.chosen) == ("h2", "h2")
    (lost,) = report.rejections
    assert (lost.check, lost.count, lost.hosts) == ("claim", 1, ("h1",))
    assert lost.details == ("h1: 1 vCPU asked, 0 free",)
    assert report.summary() == "2 of 3 hosts fit: 1 not to be had any more when they were claimed."
    told = [(what, which.machine_readable()) for _, _, what, _, which, _ in rows(1, report_view(report, admin=True))]
    assert told == [("rejected", ["h1"]), ("chosen", ["h2"]), ("fits", ["h3"])]
    assert "h1" not in str(report_view(report, admin=False))


def test_hosts_that_are_chosen_anew_are_reported_as_they_are_then(house: House) -> None:
    with house.conductor():
        (uuid,) = house.create(max_attempts=1)  # no alternates
        house.rest()
    (attempt,) = house.attempts_of(uuid)
    report = PlacementReport.from_dict(attempt.report)
    assert (attempt.host, report.chosen) == ("h2", "h2")
    assert [(each.check, each.hosts) for each in report.rejections] == [("capacity", ("h1",))]


def test_a_chosen_host_that_is_none_of_the_best_has_its_row() -> None:
    report = PlacementReport(considered=12, chosen="h11")
    assert [row[1:3] for row in rows(1, report_view(report, admin=True))] == [(1, "chosen"), (11, "fits")]
