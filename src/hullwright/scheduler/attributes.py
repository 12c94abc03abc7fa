"""Attributes of hosts by the names that flavors and queries use for them, as arrays.

Amounts are those that a host has itself, without allocation ratios. Not for: filters of ours, which read columns directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hullwright.scheduler.columns import Columns, Integers, Labels, Mask

Values = NDArray[Any]


def _free(hosts: Columns, resource_class: str) -> Integers:
    resource = hosts.resource(resource_class)
    return resource.usable - resource.used


def _words(labels: Labels) -> Values:
    return np.array(list(labels.words), dtype=object)[labels.codes]


def _names(hosts: Columns) -> Values:
    return np.array(hosts.names, dtype=object)


_READERS: dict[str, Callable[[Columns], Values]] = {
    "host": _names,
    "nodename": _names,
    "hypervisor_hostname": _names,
    "host_ip": lambda hosts: _words(hosts.host_ip),
    "hypervisor_type": lambda hosts: _words(hosts.hypervisor_name),
    "hypervisor_version": lambda hosts: hosts.hypervisor_version,
    "free_ram_mb": lambda hosts: _free(hosts, "MEMORY_MB"),
    "total_usable_ram_mb": lambda hosts: hosts.resource("MEMORY_MB").usable,
    "free_disk_mb": lambda hosts: _free(hosts, "DISK_GB") * 1024,
    "total_usable_disk_gb": lambda hosts: hosts.resource("DISK_GB").usable,
    "disk_mb_used": lambda hosts: hosts.resource("DISK_GB").used * 1024,
    "vcpus_total": lambda hosts: hosts.resource("VCPU").usable,
    "vcpus_used": lambda hosts: hosts.resource("VCPU").used,
    "num_instances": lambda hosts: hosts.instance_counts,
    "num_io_ops": lambda hosts: hosts.io_ops,
    "failed_builds": lambda hosts: hosts.failed_builds,
    "cpu_info:arch": lambda hosts: _words(hosts.cpu_arch),
    "cpu_info:model": lambda hosts: _words(hosts.cpu_model),
    "cpu_info:features": lambda hosts: _words(hosts.cpu_features),
}
NAMES = frozenset(_READERS)


def read(hosts: Columns, name: str) -> Values | None:
    """The attribute of all hosts, or None when there is no such attribute."""
    reader = _READERS.get(name)
    return None if reader is None else reader(hosts)


def matching(values: Values, is_wanted: Callable[[str], bool]) -> Mask:
    """Which values, as text, are wanted; each distinct one is asked once."""
    if not len(values):
        return np.zeros(0, dtype=bool)
    distinct, where = np.unique(values, return_inverse=True)
    found: Mask = np.array([is_wanted(str(value)) for value in distinct], dtype=bool)[where]
    return found
