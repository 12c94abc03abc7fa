"""Instances: the record that the API calls a server, and its request spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects.disks import root_device
from hullwright.objects.flavors import Flavor
from hullwright.objects.networks import NetworkRequest
from hullwright.objects.records import Record
from hullwright.objects.volumes import BlockDeviceRequest


@dataclass(frozen=True, slots=True)
class RequestSpec(Record):
    """What the user asked for, as the scheduler and the steps need it. Holds no secrets: it is stored and shown."""

    instance_uuid: str
    project_id: str
    user_id: str
    flavor: Flavor
    image_id: str | None = None
    image_properties: Mapping[str, str] = field(default_factory=dict)
    image_disk_format: str | None = None
    image_min_ram_mb: int = 0
    availability_zone: str | None = None
    force_host: str | None = None  # skips filters: the az:host form
    requested_host: str | None = None  # goes through filters: the host field
    volume_host: str | None = None  # the only one that can have the volumes asked for: their bytes are there and do not move
    ignore_hosts: tuple[str, ...] = ()
    networks: tuple[NetworkRequest, ...] = ()
    block_devices: tuple[BlockDeviceRequest, ...] = ()
    scheduler_hints: Mapping[str, Any] = field(default_factory=dict)
    config_drive: bool = False
    max_attempts: int = 3
    wait_seconds: int = 0  # how long the build waits for room in all before it fails for want of it

    @property
    def boots_from_volume(self) -> bool:
        """True when the root disk is a volume."""
        return any(device.boot_index == 0 for device in self.block_devices)

    @property
    def root_device(self) -> str:
        """Name of the root disk: /dev/vda, or as its bus has it."""
        return root_device([device.disk_bus for device in self.block_devices if device.boot_index == 0], self.image_properties)

    @property
    def server_group(self) -> str | None:
        """The group that the server joins."""
        return self.scheduler_hints.get("group") or None

    def resources(self) -> dict[str, int]:
        """Resource class -> amount that is claimed on the host. A root disk that is a volume takes none of the host's disk."""
        wanted = self.flavor.resources()
        if self.boots_from_volume and self.flavor.root_gb:
            wanted["DISK_GB"] -= self.flavor.root_gb
        return {name: amount for name, amount in wanted.items() if amount}


@dataclass(frozen=True, slots=True)
class Instance(Record):
    """A server's row as other rooms see it."""

    uuid: str
    name: str
    project_id: str
    user_id: str
    vm_state: str
    task_state: str | None
    power_state: int
    flavor: Flavor
    image_id: str | None
    hostname: str
    created_at: float
    updated_at: float
    spec: RequestSpec
    host: str | None = None
    node: str | None = None
    availability_zone: str | None = None
    description: str | None = None
    key_name: str | None = None
    key_data: str | None = None
    user_data: str | None = field(default=None, repr=False)  # base64, as given
    config_drive: bool = False
    disk_config: str = "MANUAL"
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    reservation_id: str = ""
    launch_index: int = 0
    locked: bool = False
    locked_reason: str | None = None
    launched_at: float | None = None
    terminated_at: float | None = None
    deleted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Fault(Record):
    """Why an instance is in ERROR."""

    instance_uuid: str
    code: int
    message: str  # for its user; no names of hosts unless the user is an admin
    details: str  # for admins: host, step, error, hint
    host: str | None = None
    step: str | None = None
    hint: str = ""
    created_at: float = 0.0
