"""Attributes of hosts by the names that flavors and queries use for them, as arrays.

Amounts are those that a host has itself, without allocation ratios. What Nova has besides (cpu_info:vendor, cpu_info:topology, stats)
is not among a host's facts. Not for: filters of ours, which read columns directly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hullwright.scheduler import extra_specs
from hullwright.scheduler.columns import Columns, Integers, Labels, Mask

Values = NDArray[Any]


def _free(hosts: Columns, resource_class: str) -> Integers:
    resource = hosts.resource(resource_class)
    return resource.usable - resource.used


def _words(labels: Labels) -> Values:
    return np.array(list(labels.words), dtype=object)[labels.codes]


def _names(hosts: Columns) -> Values:
    return np.array(hosts.names, dtype=object)


_LABELS: dict[str, Callable[[Columns], Labels]] = {
    "uuid": lambda hosts: hosts.uuid,
    "host_ip": lambda hosts: hosts.host_ip,
    "hypervisor_type": lambda hosts: hosts.hypervisor_name,
    "cpu_info:arch": lambda hosts: hosts.cpu_arch,
    "cpu_info:model": lambda hosts: hosts.cpu_model,
    "cpu_info:features": lambda hosts: hosts.cpu_features,
}
_ARRAYS: dict[str, Callable[[Columns], Values]] = {
    "host": _names,
    "nodename": _names,
    "hypervisor_hostname": _names,
    "hypervisor_version": lambda hosts: hosts.hypervisor_version,
    "free_ram_mb": lambda hosts: _free(hosts, "MEMORY_MB"),
    "total_usable_ram_mb": lambda hosts: hosts.resource("MEMORY_MB").usable,
    "free_disk_mb": lambda hosts: _free(hosts, "DISK_GB") * 1024,
    "total_usable_disk_gb": lambda hosts: hosts.resource("DISK_GB").usable,
    "disk_mb_used": lambda hosts: hosts.resource("DISK_GB").used * 1024,
    "vcpus_total": lambda hosts: hosts.resource("VCPU").usable,
    "vcpus_used": lambda hosts: hosts.resource("VCPU").used,
    "cpu_allocation_ratio": lambda hosts: hosts.resource("VCPU").ratio,
    "ram_allocation_ratio": lambda hosts: hosts.resource("MEMORY_MB").ratio,
    "disk_allocation_ratio": lambda hosts: hosts.resource("DISK_GB").ratio,
    "num_instances": lambda hosts: hosts.instance_counts,
    "num_io_ops": lambda hosts: hosts.io_ops,
    "failed_builds": lambda hosts: hosts.failed_builds,
}
NAMES = frozenset(_LABELS) | frozenset(_ARRAYS)


def read(hosts: Columns, name: str) -> Values | None:
    """The attribute of all hosts, or None when there is no such attribute."""
    if (labels := _LABELS.get(name)) is not None:
        return _words(labels(hosts))
    reader = _ARRAYS.get(name)
    return None if reader is None else reader(hosts)


def meeting(hosts: Columns, name: str, wanted: str) -> Mask:
    """Which hosts have what an extra spec asks of the attribute (`extra_specs`); an attribute that does not exist is nobody's.

    Asked once for each distinct word, and of all numbers at once: what is asked host by host takes longer than all other filters.
    """
    if (labels := _LABELS.get(name)) is not None:
        return labels(hosts).matching(partial(extra_specs.match, wanted=wanted))
    if (reader := _ARRAYS.get(name)) is None:
        return hosts.none()
    values = reader(hosts)
    if values.dtype == object:
        return np.fromiter((extra_specs.match(value, wanted) for value in values), dtype=bool, count=len(values))
    found = extra_specs.match_numbers(values, wanted)
    if found is None:
        distinct, where = np.unique(values, return_inverse=True)
        found = np.array([extra_specs.match(str(value), wanted) for value in distinct], dtype=bool)[where]
    return found
