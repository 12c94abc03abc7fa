"""An instance's own disks: which there are, what they are called, and having them as volumes in the host's pool.

Not for: volumes with a life of their own; those come connected from the volume driver.

Names begin with the instance's uuid and an underscore: all of them can be found and deleted without knowing what was made.
The domain is defined after its disks are whole. So while there is no domain, a disk that is found is only used when it cannot be
half-made (an overlay with the right image below it, of the right size); others are made anew.
"""

from __future__ import annotations

import re
import struct
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.virt.contract import ReportProgress
from hullwright.objects import disks as disk_names
from hullwright.objects import fence
from hullwright.objects.errors import BuildAbortException, FlavorDiskTooSmall
from hullwright.objects.guests import GuestSpec
from hullwright.objects.images import CachedImage

GIB = 1024**3
MIB = 1024**2
OURS = re.compile(r"^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_")
CONSOLE_LOG = "_console.log"
CONFIG_DRIVE = "_disk.config"
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """One disk to be."""

    suffix: str
    device: str  # vda
    bus: str
    disk_format: str  # of the volume
    size_bytes: int
    base: CachedImage | None = None
    copied: bool = False  # a full copy of `base`, not an overlay on it
    swap: bool = False
    boot_order: int | None = None
    read_only: bool = False
    kind: str = "disk"  # disk, cdrom


def device_name(bus: str, taken: Iterable[str]) -> str:
    """The first free name on a bus, for up to 702 disks.

    Raises: BuildAbortException.
    """
    if bus not in disk_names.PREFIXES:
        raise BuildAbortException(instance="", reason=f"disk bus {bus} is not known; use one of {', '.join(disk_names.PREFIXES)}")
    name = disk_names.first_free(bus, set(taken))
    if name is None:
        raise BuildAbortException(instance="", reason="too many disks")
    return name


def plan(guest: GuestSpec, images_type: str, config_drive_bytes: int | None) -> list[LocalDisk]:
    """The disks that a guest is to have, root first. `config_drive_bytes`: None when it has none.

    Raises: FlavorDiskTooSmall, BuildAbortException.
    """
    properties = guest.image_properties
    bus = disk_names.bus_of(None, properties)
    taken = {volume.device.removeprefix("/dev/") for volume in guest.volumes}
    disks: list[LocalDisk] = []

    def add(suffix: str, on: str = bus, **facts: Any) -> None:
        name = device_name(on, taken)
        taken.add(name)
        disks.append(LocalDisk(suffix=suffix, device=name, bus=on, **facts))

    plain = "qcow2" if images_type == "qcow2" else "raw"
    if guest.image is not None:
        image = guest.image
        size = guest.root_gb * GIB or image.virtual_size_bytes
        if image.virtual_size_bytes > size:
            raise FlavorDiskTooSmall(flavor_bytes=size, image_bytes=image.virtual_size_bytes)
        add("_disk", disk_format=plain, size_bytes=size, base=image, copied=images_type == "raw", boot_order=1)
    if guest.ephemeral_gb:
        add("_disk.eph0", disk_format=plain, size_bytes=guest.ephemeral_gb * GIB)
    if guest.swap_mb:
        add("_disk.swap", disk_format="raw", size_bytes=guest.swap_mb * MIB, swap=True)
    if config_drive_bytes is not None:
        # A read-only disk needs no driver that the root disk does not need; a CD-ROM where the image asks for one, and on the buses
        # that have no read-only disks.
        cdrom = properties.get("hw_cdrom_bus") or (bus if bus in ("ide", "sata") else None)
        kind = "cdrom" if cdrom else "disk"
        add(CONFIG_DRIVE, on=cdrom or bus, disk_format="raw", size_bytes=config_drive_bytes, read_only=True, kind=kind)
    return disks


def make(
    connection: Any, pool: Any, guest_uuid: str, disk: LocalDisk, lend: storage.Lend, progress: ReportProgress, content: bytes | None = None
) -> str:
    """Have the disk whole; answers its path on the host. `lend`, `progress`: for a copy; `content`: what is written at its beginning."""
    name = guest_uuid + disk.suffix
    volume = storage.find_volume(pool, name)
    if volume is not None:
        storage.await_made(connection, volume, disk.size_bytes, progress)
        if not _sound(volume, disk):
            storage.delete_volume(pool, name)
            volume = None
    if volume is None:
        volume = _copy(pool, name, disk, lend, progress) if disk.copied else _create(pool, name, disk)
    if disk.swap:
        content = swap_header(disk.size_bytes, guest_uuid)
    if content is not None:
        storage.write(connection, volume, content)
    return str(volume.path())


def make_console_log(pool: Any, guest_uuid: str) -> str:
    """Have an empty file for the serial console, known to libvirt as a volume so that it can be read from afar."""
    name = guest_uuid + CONSOLE_LOG
    volume = storage.make_volume(pool, name, 0) or storage.find_volume(pool, name)
    return str(volume.path()) if volume is not None else ""


def delete_all(pool: Any, guest_uuid: str) -> None:
    """Leave no volume of the instance."""
    # libvirt's log daemon renames logs that grow, behind the pool's back.
    storage.refresh(pool)
    for name in pool.listVolumes():
        if name.startswith(f"{guest_uuid}_"):
            storage.delete_volume(pool, name)


def owners(pool: Any) -> list[str]:
    """Uuids of the instances that have volumes in the pool."""
    found = (OURS.match(name) for name in pool.listVolumes())
    return sorted({match.group(1) for match in found if match})


def _create(pool: Any, name: str, disk: LocalDisk) -> Any:
    backing = (disk.base.path, disk.base.disk_format) if disk.base is not None else None
    return storage.make_volume(pool, name, disk.size_bytes, disk.disk_format, backing) or storage.find_volume(pool, name)


def _copy(pool: Any, name: str, disk: LocalDisk, lend: storage.Lend, progress: ReportProgress) -> Any:
    """A full copy made by the host itself, converted to raw and grown to size."""
    assert disk.base is not None
    # libvirt copies a file by the format that it believes it has: it must have looked since the upload.
    storage.refresh(pool)
    source = pool.storageVolLookupByName(f"base-{disk.base.image_id}")
    volume = storage.copy_volume(pool, name, storage.volume_xml(name, disk.size_bytes, "raw"), source, lend, progress)
    if storage.physical_bytes(volume) < disk.size_bytes:
        fence.check()
        volume.resize(disk.size_bytes, 0)
    return volume


def _sound(volume: Any, disk: LocalDisk) -> bool:
    """Tell whether a volume that was found before its domain was defined is what `make` would make."""
    if disk.copied:
        return False
    described = ET.fromstring(volume.XMLDesc(0))
    found_format = described.find("target/format")
    if disk.disk_format == "raw":
        # What it holds is written again in any case.
        return storage.physical_bytes(volume) == disk.size_bytes
    return (
        found_format is not None
        and found_format.get("type") == disk.disk_format
        and described.findtext("capacity") == str(disk.size_bytes)
        and described.findtext("backingStore/path") == (disk.base.path if disk.base is not None else None)
    )


def swap_header(size_bytes: int, guest_uuid: str) -> bytes:
    """The first page of a Linux swap area, as mkswap writes it (include/linux/swap.h: union swap_header)."""
    last_page = size_bytes // _PAGE_BYTES - 1
    identity = uuid.uuid5(uuid.UUID(guest_uuid), "swap").bytes
    page = bytearray(_PAGE_BYTES)
    struct.pack_into("<III16s16s", page, 1024, 1, last_page, 0, identity, b"swap")
    page[-10:] = b"SWAPSPACE2"
    return bytes(page)


def read_console_log(connection: Any, pool: Any, guest_uuid: str, max_bytes: int) -> bytes:
    """The last bytes of the serial console's log."""
    volume = storage.find_volume(pool, guest_uuid + CONSOLE_LOG)
    if volume is None or max_bytes <= 0:
        return b""
    libvirt = load_libvirt()
    try:
        start = max(0, storage.physical_bytes(volume) - max_bytes)
        # The guest may write on while we read.
        return storage.read(connection, volume, start, max_bytes)[-max_bytes:]
    except libvirt.libvirtError:
        if storage.find_volume(pool, guest_uuid + CONSOLE_LOG) is None:
            return b""
        raise
