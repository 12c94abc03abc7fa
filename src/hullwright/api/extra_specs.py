"""Extra specs of flavors that Nova heeds and Hullwright does not: a server that would not be what its flavor says is refused.

Not for: those that are heeded (`trait`, `capabilities`, `aggregate_instance_extra_specs`, and names without a scope), which are the
scheduler's filters'; nor for scopes of other hypervisors and of owners, which change nothing in Nova's libvirt guests either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hullwright.objects.errors import BadRequest

# Scopes that shape the guest or say what it takes of a host; resources1:, resources_NET: are groups of such.
_SHAPING = re.compile(
    r"(accel|hw|hw_rng|hw_video|os|pci_passthrough|quota|resources[\w-]*):.+|group_policy|hide_hypervisor_id|same_subtree\w*"
)

# What is so anyhow, and may be said.
_FALSE = frozenset({"0", "false", "no", "off"})
_AS_IT_IS = {
    "hw:boot_menu": _FALSE,
    "hw:cpu_policy": frozenset({"shared"}),
    "hw:emulator_threads_policy": frozenset({"share"}),
    "hw:hide_hypervisor_id": _FALSE,
    "hw:locked_memory": _FALSE,
    "hw:mem_encryption": _FALSE,
    "hw:mem_page_size": frozenset({"any", "small"}),
    "hw:vif_multiqueue_enabled": _FALSE,
    "hw:watchdog_action": frozenset({"disabled"}),
    "hw_rng:allowed": frozenset({"1", "true", "yes", "on"}),  # every guest has one
    "hide_hypervisor_id": _FALSE,
    "os:secure_boot": frozenset({"disabled", "optional"}),
}


def refuse_unheeded(specs: Mapping[str, str]) -> None:
    """Refuse a flavor's extra specs when one of them asks for what no guest of ours gets.

    Raises: BadRequest, which names all of them.
    """
    unheeded = [
        f"{key}={value}"[:100]
        for key, value in sorted(specs.items())
        if _SHAPING.fullmatch(key) and str(value).lower() not in _AS_IT_IS.get(key, ())
    ]
    if unheeded:
        raise BadRequest(f"Hullwright does not support these extra specs of the flavor: {', '.join(unheeded[:10])}. Take another flavor.")
