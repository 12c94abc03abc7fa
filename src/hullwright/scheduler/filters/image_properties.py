"""Passes hosts that can run the image: architecture, hypervisor type and version, VM mode, machine type, disk format.

Properties are hw_architecture, img_hv_type, img_hv_requested_version and hw_vm_mode, or their older names, and hw_machine_type.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from hullwright.scheduler.columns import Columns, Integers, Mask
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

# All that it reads of an image's properties.
PROPERTIES = {
    "hw_architecture",
    "architecture",
    "img_hv_type",
    "hypervisor_type",
    "img_hv_requested_version",
    "hypervisor_version_requires",
    "hw_vm_mode",
    "vm_mode",
    "hw_machine_type",
}
_ARCHITECTURES = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "ppc64el": "ppc64le",
    "x86": "i686",
    "i386": "i686",
    "i586": "i686",
}
_ALSO_RUNS = {"i686": ("i686", "x86_64")}  # guest's architecture -> hosts' that can
_HV_TYPES = {"xapi": "xen"}
_VM_MODES = {"pv": "xen", "hv": "hvm", "baremetal": "hvm"}
_RAW_FORMATS = {"ami": "raw", "aki": "raw", "ari": "raw"}  # bytes as they are on the disk
_OPERATORS: dict[str, Callable[[Integers, int], Mask]] = {
    "": operator.eq,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"^\s*(<=|>=|==|!=|=|<|>|)\s*(\d+)(?:\.(\d+))?(?:\.(\d+))?\s*$")


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that cannot run the image, and say what they lack."""
    properties = request.spec.image_properties
    wanted = _first(properties, "hw_architecture", "architecture") or request.conf.scheduler.image_properties_default_architecture
    if wanted:
        yield _architecture(hosts, wanted), f"not of architecture {wanted}"
    if hv_type := _first(properties, "img_hv_type", "hypervisor_type"):
        canonical = _HV_TYPES.get(hv_type.lower(), hv_type.lower())
        yield hosts.virt_types.having(canonical) | hosts.hypervisor_type.equal(canonical), f"without hypervisor type {hv_type}"
    if version := _first(properties, "img_hv_requested_version", "hypervisor_version_requires"):
        yield _version(hosts, version), f"without hypervisor version {version}"
    if vm_mode := _first(properties, "hw_vm_mode", "vm_mode"):
        yield hosts.vm_modes.having(_VM_MODES.get(vm_mode.lower(), vm_mode.lower())), f"without VM mode {vm_mode}"
    if machine_type := properties.get("hw_machine_type"):
        yield hosts.machine_types.matching(lambda words: not words or machine_type in words.split()), f"without machine type {machine_type}"
    disk_format = request.spec.image_disk_format
    if disk_format and not request.spec.boots_from_volume:
        yield hosts.disk_formats.having(_RAW_FORMATS.get(disk_format, disk_format)), f"without disk format {disk_format}"


def _first(properties: Mapping[str, str], *names: str) -> str | None:
    return next((properties[name] for name in names if properties.get(name)), None)


def _architecture(hosts: Columns, wanted: str) -> Mask:
    canonical = _ARCHITECTURES.get(wanted.lower(), wanted.lower())
    mask = hosts.none()
    for runs_it in _ALSO_RUNS.get(canonical, (canonical,)):
        mask |= hosts.cpu_arch.equal(runs_it)
    return mask


def _version(hosts: Columns, condition: str) -> Mask:
    """Versions are numbers as libvirt gives them: 7.2.22 is 7002022. A condition that cannot be read is met by no host."""
    mask = hosts.all()
    for part in condition.split(","):
        found = _CONDITION.match(part)
        if found is None:
            return hosts.none()
        sign, *numbers = found.groups()
        major, minor, micro = (int(number or 0) for number in numbers)
        mask &= _OPERATORS[sign](hosts.hypervisor_version, major * 1_000_000 + minor * 1_000 + micro)
    return np.asarray(mask, dtype=bool)
