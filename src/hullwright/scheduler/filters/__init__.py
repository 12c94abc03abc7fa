"""Filters: each file is one check that a host must pass.

A filter has one function:

    def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
        yield hosts.enabled, "disabled"

It yields pairs of a mask (True where the host passes) and what is told of the hosts that do not pass. A host is counted
under the first pair that it fails. The text is for users: it names no host, and reads well after a number ("2 disabled").
A third part, host id -> text, may tell administrators more of some hosts.
Others bring their own by an entry point in the group `hullwright.filters`, naming a module with such a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hullwright.scheduler import plugins
from hullwright.scheduler.columns import Columns, Mask
from hullwright.scheduler.request import Request

Verdict = tuple[Mask, str] | tuple[Mask, str, Mapping[int, str]]

# Names that configurations written for Nova use.
ALIASES = {
    "AllHostsFilter": "all_hosts",
    "RetryFilter": "retry",
    "ComputeFilter": "compute_up",
    "AvailabilityZoneFilter": "availability_zone",
    "ImagePropertiesFilter": "image_properties",
    "CoreFilter": "capacity",
    "RamFilter": "capacity",
    "DiskFilter": "capacity",
    "ServerGroupAffinityFilter": "server_group_affinity",
    "ServerGroupAntiAffinityFilter": "server_group_anti_affinity",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and its name in reports."""

    name: str
    check: Callable[[Columns, Request], Iterator[Verdict]]


def load(names: list[str]) -> list[Filter]:
    """The filters of these names, in order, each once.

    Raises: UnknownPlugin.
    """
    found = {name: Filter(name, module.check) for name, module in plugins.load("filters", names, ALIASES)}
    return list(found.values())
