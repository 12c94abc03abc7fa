"""Volumes, block device requests, attachments, and the connection that a hypervisor needs to use one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Volume(Record):
    """A disk with a life of its own."""

    id: str
    name: str
    size_gb: int
    status: str = "available"  # creating, available, reserved, attaching, in-use, deleting, error
    bootable: bool = False
    image_id: str | None = None
    volume_type: str | None = None
    description: str | None = None
    availability_zone: str = "nova"
    project_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None  # where its bytes are; None: not made yet, or not bound to a host
    placed_by: str | None = None  # attachment whose connecting made the bytes there
    cleaning_on: str | None = None  # host where left-over bytes are being deleted; none are made there meanwhile
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class BlockDeviceRequest(Record):
    """One entry of block_device_mapping_v2 after validation. Ids are chosen at the door."""

    attachment_id: str
    volume_id: str  # existing, or the id that a volume made by this build will have
    source_type: str = "volume"  # volume: exists; blank, image: made by the build
    size_gb: int | None = None
    image_id: str | None = None
    boot_index: int | None = None
    delete_on_termination: bool = False
    device_name: str | None = None
    disk_bus: str | None = None
    tag: str | None = None

    @property
    def created_by_build(self) -> bool:
        """True when the build makes the volume."""
        return self.source_type != "volume"


@dataclass(frozen=True, slots=True)
class Attachment(Record):
    """The bond between a volume and an instance."""

    id: str
    volume_id: str
    instance_uuid: str
    host: str | None = None
    device: str | None = None  # /dev/vdb
    delete_on_termination: bool = False
    created_by_build: bool = False
    boot_index: int | None = None
    state: str = "reserved"  # reserved, attached
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Connection(Record):
    """How a hypervisor reaches a volume. `data` holds no secrets; those stay with the driver and are fetched when used."""

    volume_id: str
    kind: str  # file, rbd, iscsi, nbd
    # file: path, format; rbd: name, hosts; iscsi: portal, iqn, lun; nbd: host, port, export
    data: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False
    serial: str = ""  # what the guest sees as the disk's serial: the volume id
