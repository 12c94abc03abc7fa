"""Flavor: what size of machine is asked for. An instance keeps the flavor it was built with as a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Flavor(Record):
    """A size of machine."""

    id: str
    name: str
    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    is_public: bool = True
    disabled: bool = False
    rxtx_factor: float = 1.0
    description: str | None = None
    extra_specs: Mapping[str, str] = field(default_factory=dict)

    def resources(self) -> dict[str, int]:
        """Resource class -> amount that one instance of this flavor claims."""
        disk_gb = self.root_gb + self.ephemeral_gb + (self.swap_mb + 1023) // 1024
        wanted = {"VCPU": self.vcpus, "MEMORY_MB": self.memory_mb, "DISK_GB": disk_gb}
        return {name: amount for name, amount in wanted.items() if amount}
