"""The block devices of a create request: which volumes the server gets, and whether its root disk is one of them.

Entries of version 1 (`block_device_mapping`) are read as the version 2 entries that they mean. A local image disk is the plain root
disk, so it only says which image. Local blank disks (swap, ephemeral) are the flavor's; one that asks for something else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.engine import Connection

from hullwright.api import guest_shape
from hullwright.api.context import Caller
from hullwright.api.schemas.parts import truth
from hullwright.api.server_images import usable_image
from hullwright.objects.disks import given_name
from hullwright.objects.errors import BadRequest, VolumeNotFound
from hullwright.objects.flavors import Flavor
from hullwright.objects.images import Image
from hullwright.objects.volumes import BlockDeviceRequest, Volume
from hullwright.persistence import volumes

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Disks:
    """What a request says of disks."""

    devices: tuple[BlockDeviceRequest, ...] = ()
    local_image_id: str | None = None  # of the root disk, if an entry names it
    root_image: Image | None = None  # that fills the root volume, or filled it
    host: str | None = None  # the only one that has the bytes of the volumes given

    @property
    def root_is_volume(self) -> bool:
        """Whether the root disk is a volume."""
        return any(device.boot_index == 0 for device in self.devices)


def choose(conn: Connection, server: Mapping[str, Any], flavor: Flavor, who: Caller, count: int, *, volumes_move: bool) -> Disks:
    """The disks of a request's `server`. `volumes_move`: every host reaches every volume, wherever it was first used.

    Raises: BadRequest.
    """
    first, second = server.get("block_device_mapping"), server.get("block_device_mapping_v2")
    if first and second:
        raise BadRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
    if not first and not second:
        return Disks()
    entries: Sequence[Mapping[str, Any]] = second or _from_version_1(first or [], server.get("imageRef"))
    reader = _Reader(conn, flavor, who, count, str(server.get("imageRef") or ""), volumes_move)
    return reader.read(entries)


def again(devices: Sequence[BlockDeviceRequest]) -> tuple[BlockDeviceRequest, ...]:
    """The same devices for another server of the batch: with attachments and new volumes of its own."""
    return tuple(replace(device, attachment_id=str(uuid4()), volume_id=str(uuid4())) for device in devices)


def _from_version_1(entries: Sequence[Mapping[str, Any]], image_ref: str | None) -> list[Mapping[str, Any]]:
    read: list[Mapping[str, Any]] = []
    for entry in entries:
        if "no_device" in entry:
            continue
        if entry.get("virtual_name"):
            raise BadRequest("Block Device Mapping is Invalid: virtual_name is not supported; use block_device_mapping_v2.")
        kind = "volume" if entry.get("volume_id") else "snapshot" if entry.get("snapshot_id") else "blank"
        is_root = not image_ref and (entry.get("device_name") or "").removeprefix("/dev/") in ("vda", "sda", "hda", "xvda")
        known = ("device_name", "volume_size", "delete_on_termination")
        read.append(
            {
                **{name: entry[name] for name in known if name in entry},
                "source_type": kind,
                "destination_type": "volume",
                "uuid": entry.get("volume_id"),
                "boot_index": 0 if is_root else -1,
            }
        )
    return read


class _Reader:
    def __init__(self, conn: Connection, flavor: Flavor, who: Caller, count: int, image_ref: str, volumes_move: bool) -> None:
        self._conn = conn
        self._flavor = flavor
        self._who = who
        self._count = count
        self._image_ref = image_ref
        self._root_image: Image | None = None
        self._volumes_move = volumes_move
        self._hosts: dict[str, str] = {}  # that have bytes of existing volumes -> one of these

    def read(self, entries: Sequence[Mapping[str, Any]]) -> Disks:
        devices: list[BlockDeviceRequest] = []
        local_image_id: str | None = None
        boot_indexes: list[int] = []
        for entry in entries:
            source = _source(entry)
            target = entry.get("destination_type") or ("local" if source in ("image", "blank") else "volume")
            boot_index = _boot_index(entry)
            if boot_index is not None:
                boot_indexes.append(boot_index)
            if target == "volume":
                devices.append(self._volume(entry, source, boot_index))
            elif source == "image":
                _check_local(entry)
                local_image_id = self._local_image(entry, boot_index)
            elif source == "blank":
                _check_local(entry)
                self._local_blank(entry)
            else:
                raise _invalid(f"a {source} cannot become a local disk")
        self._check_order(devices, boot_indexes, local_image_id)
        return Disks(tuple(devices), local_image_id, self._root_image, next(iter(self._hosts), None))

    def _check_order(self, devices: Sequence[BlockDeviceRequest], boot_indexes: list[int], local_image_id: str | None) -> None:
        if self._image_ref and local_image_id is None:
            boot_indexes = [0, *boot_indexes]  # the image's own disk
        if sorted(boot_indexes) != list(range(len(boot_indexes))):
            raise BadRequest(
                "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid."
            )
        names = [given_name(device.device_name) for device in devices if device.device_name]
        if len(set(names)) != len(names):
            raise _invalid("a device name is given more than once")
        existing = [device.volume_id for device in devices if not device.created_by_build]
        if len(set(existing)) != len(existing):
            raise _invalid("a volume is given more than once")

    def _volume(self, entry: Mapping[str, Any], source: str, boot_index: int | None) -> BlockDeviceRequest:
        if entry.get("volume_type"):
            raise BadRequest(f"Volume type {entry['volume_type']} could not be found.")
        if entry.get("device_type") not in (None, "disk"):
            raise _invalid(f"device type {entry['device_type']} is not supported for volumes, only disk is")
        if entry.get("guest_format"):
            raise _invalid("a volume is not formatted: leave guest_format out")
        guest_shape.refuse_device(entry.get("disk_bus"), entry.get("device_name"))
        size_gb = int(entry["volume_size"]) if entry.get("volume_size") is not None else None
        device = BlockDeviceRequest(
            attachment_id=str(uuid4()),
            volume_id=str(uuid4()),
            source_type=source,
            size_gb=size_gb,
            boot_index=boot_index,
            delete_on_termination=truth(entry.get("delete_on_termination", False)),
            device_name=entry.get("device_name"),
            disk_bus=entry.get("disk_bus"),
            tag=entry.get("tag"),
        )
        if source == "volume":
            return self._existing(entry, device)
        if size_gb is None:
            raise _invalid("a volume that is made from an image or blank needs a volume_size")
        if source == "blank":
            if boot_index == 0:
                raise _invalid("a blank volume cannot be booted from")
            return device
        image = usable_image(self._conn, str(entry.get("image_id") or _uuid(entry)), self._who)
        if size_gb < image.min_disk_gb or size_gb * GIB < (image.virtual_size_bytes or image.size_bytes):
            raise BadRequest(f"Volume size {size_gb} GB is too small for image {image.id}.")
        if boot_index == 0:
            self._root_image = image
        return replace(device, image_id=image.id)

    def _existing(self, entry: Mapping[str, Any], device: BlockDeviceRequest) -> BlockDeviceRequest:
        volume = self._find(_uuid(entry))
        if self._count > 1:
            raise BadRequest("Cannot attach one or more volumes to multiple instances")
        if volume.status != "available":
            raise BadRequest(f"Invalid volume: Volume {volume.id} status must be available to attach, but it is {volume.status}.")
        if device.boot_index == 0 and not volume.bootable:
            raise BadRequest(f"Block Device {volume.id} is not bootable.")
        if device.boot_index == 0 and volume.image_id:
            self._root_image = _image_or_none(self._conn, volume.image_id, self._who)
        if volume.host is not None and not self._volumes_move:
            self._hosts.setdefault(volume.host, volume.id)
            if len(self._hosts) > 1:
                first, second = self._hosts.values()
                raise _invalid(f"the bytes of volumes {first} and {second} are on different hosts, and local volumes do not move")
        return replace(device, volume_id=volume.id, size_gb=volume.size_gb)

    def _find(self, volume_id: str) -> Volume:
        try:
            volume = volumes.get(self._conn, volume_id)
        except VolumeNotFound as error:
            raise BadRequest(error.text) from None
        if volume.project_id not in (None, self._who.project_id) and not self._who.is_admin:
            raise BadRequest(VolumeNotFound(id=volume_id).text)
        return volume

    def _local_image(self, entry: Mapping[str, Any], boot_index: int | None) -> str:
        image_id = _uuid(entry)
        if boot_index != 0:
            raise _invalid("a local disk from an image must be the root disk: boot_index 0")
        if self._image_ref and UUID(self._image_ref) != UUID(image_id):
            raise _invalid("the root disk's image is not imageRef")
        return image_id

    def _local_blank(self, entry: Mapping[str, Any]) -> None:
        is_swap = entry.get("guest_format") == "swap"
        what, unit, has = ("swap", "MB", self._flavor.swap_mb) if is_swap else ("ephemeral", "GB", self._flavor.ephemeral_gb)
        size = int(entry["volume_size"]) if entry.get("volume_size") is not None else has
        if size != has or not has:
            raise _invalid(f"the {what} disk is the flavor's, {has} {unit}, and {size} {unit} are asked for")


def _source(entry: Mapping[str, Any]) -> str:
    source = entry.get("source_type") or ("volume" if entry.get("volume_id") else None)
    if source == "snapshot" or entry.get("snapshot_id"):
        raise BadRequest("Block Device Mapping is Invalid: snapshots of volumes are not supported.")
    if source is None:
        raise _invalid("an entry needs a source_type")
    return str(source)


def _check_local(entry: Mapping[str, Any]) -> None:
    """Refuse what a local disk would not be: it is made as the image and the flavor say."""
    if entry.get("device_type") not in (None, "disk"):
        raise _invalid(f"device type {entry['device_type']} is not supported for a local disk, only disk is")
    if entry.get("disk_bus"):
        raise _invalid("the bus of a local disk is the image's: set its property hw_disk_bus")
    if entry.get("tag"):
        raise _invalid("a local disk has no tag: guests are told those of volumes and cards")


def _boot_index(entry: Mapping[str, Any]) -> int | None:
    index = entry.get("boot_index")
    return None if index is None or int(index) < 0 else int(index)


def _uuid(entry: Mapping[str, Any]) -> str:
    given = str(entry.get("uuid") or entry.get("volume_id") or "")
    try:
        return str(UUID(given))
    except ValueError:
        raise _invalid(f"{given or 'nothing'} is not the id of a volume or an image") from None


def _image_or_none(conn: Connection, image_id: str, who: Caller) -> Image | None:
    try:
        return usable_image(conn, image_id, who)
    except BadRequest:
        return None  # the volume has its bytes, whatever became of the image


def _invalid(reason: str) -> BadRequest:
    return BadRequest(f"Block Device Mapping is Invalid: {reason}.")
