"""Guests: all that a virt driver needs to make one, and what it tells of those it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hullwright.objects.images import CachedImage
from hullwright.objects.networks import Vif
from hullwright.objects.records import Record
from hullwright.objects.states import PowerState
from hullwright.objects.volumes import Connection


@dataclass(frozen=True, slots=True)
class GuestVolume(Record):
    """A volume in a guest."""

    connection: Connection
    device: str  # vdb
    bus: str = "virtio"
    boot_index: int | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class GuestSpec(Record):
    """A guest to be. Passed to drivers, never stored: `config_drive` may hold the user's secrets."""

    uuid: str
    name: str  # libvirt's name: instance-00000001
    display_name: str
    hostname: str
    vcpus: int
    memory_mb: int
    root_gb: int
    project_id: str
    user_id: str
    flavor_name: str
    image: CachedImage | None = None  # None: boots from a volume
    kernel: CachedImage | None = None
    ramdisk: CachedImage | None = None
    swap_mb: int = 0
    ephemeral_gb: int = 0
    vifs: tuple[Vif, ...] = ()
    volumes: tuple[GuestVolume, ...] = ()
    config_drive_files: Mapping[str, bytes] | None = field(default=None, repr=False)  # path in the drive -> content
    image_properties: Mapping[str, str] = field(default_factory=dict)  # hw_disk_bus, hw_vif_model, hw_machine_type, os_command_line
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class GuestInfo(Record):
    """A guest as its hypervisor sees it."""

    uuid: str
    name: str
    power_state: PowerState
    ours: bool  # carries our metadata: only such guests may be reaped
