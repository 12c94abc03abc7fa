"""Image: the record of a bootable disk's bytes, and what a host has of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Image(Record):
    """An image as the image service tells it."""

    id: str
    name: str
    status: str = "active"  # queued, saving, active, killed, deleted: the words of the image API
    disk_format: str | None = "qcow2"  # qcow2, raw, aki (kernel), ari (ramdisk), ami
    container_format: str | None = "bare"
    size_bytes: int = 0
    virtual_size_bytes: int | None = None
    checksum_sha256: str | None = None
    checksum_md5: str | None = None
    min_disk_gb: int = 0
    min_ram_mb: int = 0
    visibility: str = "public"
    protected: bool = False
    owner: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)  # hw_disk_bus, kernel_id, os_type, architecture, ...
    tags: tuple[str, ...] = ()
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class CachedImage(Record):
    """A base image that lies whole and verified on a host."""

    image_id: str
    path: str  # on the host
    disk_format: str  # format of the bytes at `path`
    size_bytes: int
    virtual_size_bytes: int
