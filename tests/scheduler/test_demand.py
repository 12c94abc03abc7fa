"""What makes two requests wait for the same room."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import RequestSpec
from hullwright.scheduler import filters
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.demand import demand
from hullwright.scheduler.filters import Filter, image_properties
from hullwright.scheduler.request import Request

SMALL = Flavor("1", "small", vcpus=1, memory_mb=512, root_gb=1)
DEFAULT = filters.load(["retry", "compute_up", "availability_zone", "capacity", "traits", "image_properties", "compute_capabilities"])
ONE = RequestSpec("1", "p", "u", SMALL, image_id="i", image_properties={"os_distro": "debian"}, scheduler_hints={"wait_for_capacity": 600})
# What says nothing of where it fits, while no filter in use reads it.
OF_NO_ACCOUNT: dict[str, dict[str, Any]] = {
    "project": {"project_id": "other", "user_id": "other", "instance_uuid": "2"},
    "image": {"image_id": "j", "image_properties": {"os_distro": "fedora"}, "image_min_ram_mb": 64},
    "flavor's name": {"flavor": dataclasses.replace(SMALL, id="2", name="tiny")},
    "patience": {"wait_seconds": 900, "scheduler_hints": {"wait_for_capacity": 900}},
    "retries": {"max_attempts": 9},
}


def test_requests_of_the_same_size_wait_for_the_same_whoever_asks_and_for_whatever_image() -> None:
    others = {what: dataclasses.replace(ONE, **fields) for what, fields in OF_NO_ACCOUNT.items()}
    assert [what for what, other in others.items() if demand(other, (), DEFAULT) != demand(ONE, (), DEFAULT)] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"flavor": dataclasses.replace(SMALL, memory_mb=513)},
        {"flavor": dataclasses.replace(SMALL, extra_specs={"trait:HW_CPU_X86_AVX2": "required"})},
        {"image_properties": {"hw_machine_type": "q35"}},
        {"image_properties": {"trait:HW_CPU_X86_AVX2": "required"}},
        {"image_disk_format": "raw"},
        {"availability_zone": "west"},
        {"force_host": "h1"},
        {"requested_host": "h1"},
        {"volume_host": "h1"},
        {"ignore_hosts": ("h1",)},
        {"scheduler_hints": {"group": "g"}},
        {"scheduler_hints": {"different_host": ["x"]}},
    ],
    ids=str,
)
def test_requests_that_fit_on_other_hosts_wait_for_something_else(fields: dict[str, Any]) -> None:
    assert demand(dataclasses.replace(ONE, **fields), (), DEFAULT) != demand(ONE, (), DEFAULT)
    assert demand(ONE, ("h1",), DEFAULT) != demand(ONE, (), DEFAULT)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("aggregate_multi_tenancy_isolation", "project"),
        ("isolated_hosts", "image"),
        ("aggregate_image_properties_isolation", "image"),
        ("aggregate_type_affinity", "flavor's name"),
    ],
)
def test_what_a_filter_in_use_reads_counts(name: str, what: str) -> None:
    used = [*DEFAULT, *filters.load([name])]
    assert [
        each for each, fields in OF_NO_ACCOUNT.items() if demand(dataclasses.replace(ONE, **fields), (), used) != demand(ONE, (), used)
    ] == [what]


def test_somebodys_own_filter_may_read_anything() -> None:
    used = [*DEFAULT, Filter("own", lambda hosts, request: iter(()))]
    others = {what: dataclasses.replace(ONE, **fields) for what, fields in OF_NO_ACCOUNT.items()}
    told = [what for what, other in others.items() if demand(other, (), used) != demand(ONE, (), used)]
    assert told == ["project", "image", "flavor's name"]


def test_the_image_filter_reads_the_properties_that_it_names_and_no_other(conf: Any) -> None:
    read = set()

    class Noting(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            read.add(key)
            return super().get(key, default)

    request = Request(dataclasses.replace(ONE, image_properties=Noting()), {}, {}, 0.0, conf)
    assert list(image_properties.check(Columns([]), request)) == []
    assert read == image_properties.PROPERTIES
