"""Filters: each file is one check that a host must pass.

A filter has one function:

    def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
        yield hosts.enabled, "disabled"

It yields pairs of a mask (True where the host passes) and what is told of the hosts that do not pass. A host is counted
under the first pair that it fails. The text is for users: it names no host, and reads well after a number ("2 disabled").
A third part, host id -> text, may tell administrators more of some hosts. `NEEDS` names what is read for it only then (`surroundings`).

Whoever prefers one host at a time writes, instead of `check`, a function that answers True, or what is told of a host that does not pass:

    def passes(host: HostView, request: Request) -> bool | str:
        return host["free_ram_mb"] > 1024 or "low on memory"

It may tell each host something else; the most frequent texts are counted apart, the rest together.

Others bring their own by an entry point in the group `hullwright.filters`, naming a module with such a function, or name the module itself
in `[scheduler] available_filters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hullwright.scheduler import plugins
from hullwright.scheduler.columns import Columns, Mask
from hullwright.scheduler.host_view import HostView
from hullwright.scheduler.request import Request

Verdict = tuple[Mask, str] | tuple[Mask, str, Mapping[int, str]]

# Names that configurations written for Nova use.
ALIASES = {
    "nova.scheduler.filters.all_filters": plugins.ALL,
    "AllHostsFilter": "all_hosts",
    "RetryFilter": "retry",
    "ComputeFilter": "compute_up",
    "AvailabilityZoneFilter": "availability_zone",
    "ImagePropertiesFilter": "image_properties",
    "CoreFilter": "capacity",
    "RamFilter": "capacity",
    "DiskFilter": "capacity",
    "AggregateCoreFilter": "capacity",  # the ratios that aggregates name are in the hosts' inventories already
    "AggregateRamFilter": "capacity",
    "AggregateDiskFilter": "capacity",
    "ComputeCapabilitiesFilter": "compute_capabilities",
    "DifferentHostFilter": "different_host",
    "SameHostFilter": "same_host",
    "JsonFilter": "json_query",
    "AggregateInstanceExtraSpecsFilter": "aggregate_instance_extra_specs",
    "AggregateMultiTenancyIsolation": "aggregate_multi_tenancy_isolation",
    "AggregateImagePropertiesIsolation": "aggregate_image_properties_isolation",
    "AggregateTypeAffinityFilter": "aggregate_type_affinity",
    "IsolatedHostsFilter": "isolated_hosts",
    "IoOpsFilter": "io_ops",
    "AggregateIoOpsFilter": "aggregate_io_ops",
    "NumInstancesFilter": "num_instances",
    "AggregateNumInstancesFilter": "aggregate_num_instances",
    "MetricsFilter": "metrics",
    "SimpleCIDRAffinityFilter": "simple_cidr_affinity",
    "ServerGroupAffinityFilter": "server_group_affinity",
    "ServerGroupAntiAffinityFilter": "server_group_anti_affinity",
}
# What others of Nova's names are about.
LACKING = {
    "NUMATopologyFilter": "guests with a NUMA topology, pinned CPUs or huge pages",
    "PciPassthroughFilter": "PCI devices for guests",
    "TrustedFilter": "attestation of hosts",
}
KIND = plugins.Kind("filters", ALIASES, LACKING, ("check", "passes"))

_TEXTS_MAX = 12  # of one filter for one host at a time: each costs a mask of all hosts

Check = Callable[[Columns, Request], Iterator[Verdict]]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and its name in reports."""

    name: str
    check: Check
    needs: tuple[str, ...] = ()
    passes: Callable[[HostView, Request], bool | str] | None = None  # the form for one host; `check` is not used then

    def verdicts(self, hosts: Columns, request: Request, passing: Mask) -> Iterator[Verdict]:
        """What it says; in the form for one host, of those only that still pass."""
        if self.passes is None:
            return self.check(hosts, request)
        return self._one_by_one(self.passes, hosts, request, passing)

    def _one_by_one(
        self, passes: Callable[[HostView, Request], bool | str], hosts: Columns, request: Request, passing: Mask
    ) -> Iterator[Verdict]:
        fallen: dict[str, list[int]] = {}
        read: dict[str, Any] = {}
        for position in np.flatnonzero(passing).tolist():
            answer = passes(HostView(hosts, position, read), request)
            if isinstance(answer, str) or not answer:  # a comparison of numpy's answers with a truth of its own
                fallen.setdefault(answer or f"refused by {self.name}", []).append(position)
        frequent = sorted(fallen, key=lambda reason: -len(fallen[reason]))
        for reason in frequent[:_TEXTS_MAX]:
            yield _all_but(hosts, fallen[reason]), reason
        if rest := {position: reason for reason in frequent[_TEXTS_MAX:] for position in fallen[reason]}:
            details = {int(hosts.ids[position]): reason for position, reason in rest.items()}
            yield _all_but(hosts, list(rest)), f"refused by {self.name} for other reasons", details


def load(names: list[str], available: Iterable[str] = (plugins.ALL,)) -> list[Filter]:
    """The filters of these names, in order, each once; all of them must be `available`.

    Raises: UnknownPlugin.
    """
    found = {}
    for name, module in plugins.load(KIND, names, available):
        passes = getattr(module, "passes", None)
        check = _nothing if passes is not None else module.check
        found[name] = Filter(name, check, tuple(getattr(module, "NEEDS", ())), passes)
    return list(found.values())


def _all_but(hosts: Columns, positions: list[int]) -> Mask:
    mask = hosts.all()
    mask[positions] = False
    return mask


def _nothing(hosts: Columns, request: Request) -> Iterator[Verdict]:
    yield from ()
