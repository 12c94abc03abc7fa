"""What images and block devices say of the guest's parts: values that no libvirt knows are refused, so that no host is tried with them.

Not for: properties that are not heeded at all (`unheeded`), nor for what only some hosts have: machine types, firmware, cards that a
distribution leaves out. Those are the host's word, at the build.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hullwright.objects.disks import CDROM_BUSES, PREFIXES, bus_of, given_name
from hullwright.objects.errors import BadRequest
from hullwright.objects.flavors import Flavor
from hullwright.objects.volumes import BlockDeviceRequest

_VALUES: Mapping[str, tuple[str, ...]] = {
    "hw_disk_bus": tuple(PREFIXES),
    "hw_cdrom_bus": CDROM_BUSES,
    "hw_firmware_type": ("bios", "uefi"),
    "hw_vif_model": ("virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "vmxnet3"),
    "hw_video_model": ("bochs", "cirrus", "none", "qxl", "vga", "virtio", "vmvga"),
}
_MACHINE_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IDE_DISKS = 4  # one controller, two channels, two disks each


def refuse_properties(properties: Mapping[str, str]) -> None:
    """Refuse an image, or a volume made of one, whose properties name parts that there are not.

    Raises: BadRequest, which names the property and what it may be.
    """
    for name, values in _VALUES.items():
        if name in properties and properties[name] not in values:
            raise BadRequest(f"Image property {name}={properties[name][:100]} is not valid: it may be {', '.join(values)}.")
    machine = properties.get("hw_machine_type")
    if machine is not None and not _MACHINE_TYPE.fullmatch(machine):
        raise BadRequest(f"Image property hw_machine_type={machine[:100]} is not valid: it is the name of a QEMU machine type.")


def refuse_device(disk_bus: str | None, device_name: str | None) -> None:
    """Refuse a block device on a bus that there is not, or with a name that no disk has.

    Raises: BadRequest.
    """
    if disk_bus is not None and disk_bus not in PREFIXES:
        raise BadRequest(f"Block Device Mapping is Invalid: disk bus {disk_bus[:100]} is not one of {', '.join(PREFIXES)}.")
    if device_name is not None and given_name(device_name) is None:
        raise BadRequest(f"Block Device Mapping is Invalid: {device_name[:100]} is not the name of a disk, such as /dev/vdb.")


def refuse_crowd(devices: Sequence[BlockDeviceRequest], properties: Mapping[str, str], flavor: Flavor, *, config_drive: bool) -> None:
    """Refuse more IDE disks than there is room for; the other buses grow.

    Raises: BadRequest.
    """
    boots_from_volume = any(device.boot_index == 0 for device in devices)
    local = (not boots_from_volume) + bool(flavor.ephemeral_gb) + bool(flavor.swap_mb)
    buses = [bus_of(device.disk_bus, properties) for device in devices] + [bus_of(None, properties)] * local
    if config_drive:
        buses.append(properties.get("hw_cdrom_bus") or bus_of(None, properties))
    if buses.count("ide") > _IDE_DISKS:
        raise BadRequest(f"Block Device Mapping is Invalid: {buses.count('ide')} disks on the IDE bus, which takes {_IDE_DISKS}.")
