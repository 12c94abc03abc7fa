"""What flavors and images ask of a guest that Nova heeds and Hullwright does not: a server that would not be what they say is refused.

Not for: what is heeded, which is the scheduler's filters' (`trait`, `capabilities`, `aggregate_instance_extra_specs`, names without a
scope) and the libvirt driver's (docs/compute-api.md lists the properties of images); nor for scopes of other hypervisors and of owners,
nor for properties that a guest can do without (`hw_pointer_model`, `hw_video_ram`, `os_distro`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hullwright.objects.errors import BadRequest

# Scopes that shape the guest or say what it takes of a host; resources1:, resources_NET: are groups of such.
_SHAPING_SPECS = re.compile(
    r"(accel|hw|hw_rng|hw_video|os|pci_passthrough|quota|resources[\w-]*):.+|group_policy|hide_hypervisor_id|same_subtree\w*"
)
# What a guest is secured by, licensed by, fast by or watched by.
_SHAPING_PROPERTIES = re.compile(
    r"hw_(boot_menu|cpu|emulator_threads|ephemeral_encryption|locked_memory|maxphysaddr|mem|numa|pci_numa|pmem|tpm|vif_multiqueue|"
    r"viommu|virtio_packed_ring|watchdog)\w*|hw_firmware_stateless|hw_scsi_model|hw_serial_port_count|img_hide_hypervisor_id|os_secure_boot"
)

# What is so anyhow, and may be said.
_FALSE = frozenset({"0", "false", "no", "off"})
_AS_THEY_ARE = {  # a flavor writes `hw:cpu_policy` for what an image calls `hw_cpu_policy`
    "hide_hypervisor_id": _FALSE,
    "hw_boot_menu": _FALSE,
    "hw_cpu_policy": frozenset({"shared"}),
    "hw_emulator_threads_policy": frozenset({"share"}),
    "hw_ephemeral_encryption": _FALSE,
    "hw_firmware_stateless": _FALSE,
    "hw_hide_hypervisor_id": _FALSE,
    "hw_locked_memory": _FALSE,
    "hw_mem_encryption": _FALSE,
    "hw_mem_page_size": frozenset({"any", "small"}),
    "hw_rng_allowed": frozenset({"1", "true", "yes", "on"}),  # every guest has one
    "hw_scsi_model": frozenset({"virtio-scsi"}),
    "hw_serial_port_count": frozenset({"1"}),
    "hw_vif_multiqueue_enabled": _FALSE,
    "hw_virtio_packed_ring": _FALSE,
    "hw_watchdog_action": frozenset({"disabled"}),
    "img_hide_hypervisor_id": _FALSE,
    "os_secure_boot": frozenset({"disabled", "optional"}),
}


def refuse_specs(specs: Mapping[str, str]) -> None:
    """Refuse a flavor's extra specs when one of them asks for what no guest of ours gets.

    Raises: BadRequest, which names all of them.
    """
    unheeded = _unheeded(specs, _SHAPING_SPECS)
    if unheeded:
        raise BadRequest(f"Hullwright does not support these extra specs of the flavor: {unheeded}. Take another flavor.")


def refuse_properties(properties: Mapping[str, str]) -> None:
    """Refuse an image's properties, or those of a volume made of one, when one of them asks for what no guest of ours gets.

    Raises: BadRequest, which names all of them.
    """
    unheeded = _unheeded(properties, _SHAPING_PROPERTIES)
    if unheeded:
        raise BadRequest(f"Hullwright does not support these properties of the image: {unheeded}. Take another image, or remove them.")


def _unheeded(asked: Mapping[str, str], shaping: re.Pattern[str]) -> str:
    return ", ".join(
        f"{key}={value}"[:100]
        for key, value in sorted(asked.items())
        if shaping.fullmatch(key) and str(value).lower() not in _AS_THEY_ARE.get(key.replace(":", "_"), ())
    )
