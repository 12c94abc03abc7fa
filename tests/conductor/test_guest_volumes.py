"""On which bus a guest has its volumes, and how they are called there."""

import uuid
from typing import Any

import pytest

from hullwright.flows.steps.guest import guest_volumes
from hullwright.objects.errors import VolumeError
from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import RequestSpec
from hullwright.objects.volumes import Attachment, BlockDeviceRequest, Connection


def named(*devices: dict[str, Any], bus: str | None = None, swap_mb: int = 0) -> list[tuple[str, str]]:
    """(name, bus) of each volume, in the order of `devices`."""
    properties = {"hw_disk_bus": bus} if bus else {}
    flavor = Flavor("1", "small", vcpus=1, memory_mb=512, root_gb=1, swap_mb=swap_mb)
    asked = tuple(BlockDeviceRequest(str(uuid.uuid4()), str(uuid.uuid4()), **device) for device in devices)
    spec = RequestSpec("instance", "p", "u", flavor, image_properties=properties, block_devices=asked)
    pairs = [
        {
            "attachment": Attachment(
                each.attachment_id, each.volume_id, "instance", device=each.device_name, boot_index=each.boot_index
            ).to_dict(),
            "connection": Connection(each.volume_id, "file").to_dict(),
        }
        for each in asked
    ]
    found = guest_volumes(spec, pairs)
    for volume, device in zip(found, asked, strict=True):
        assert (volume.connection.volume_id, volume.tag) == (device.volume_id, device.tag)
    return [(volume.device, volume.bus) for volume in found]


DATA: dict[str, Any] = {}
ROOT = {"boot_index": 0}


@pytest.mark.parametrize("bus", ["virtio", "scsi", "sata", "ide", "usb"])
def test_a_volume_is_on_the_bus_of_the_image_as_its_root_disk_is(bus: str) -> None:
    prefix = {"virtio": "vd", "ide": "hd"}.get(bus, "sd")
    assert named(ROOT, DATA, bus=bus) == [(f"{prefix}a", bus), (f"{prefix}b", bus)]
    assert named(DATA, bus=bus, swap_mb=64) == [(f"{prefix}c", bus)], "root and swap disk come first"


def test_a_block_devices_own_bus_goes_before_the_images() -> None:
    assert named(ROOT | {"disk_bus": "virtio"}, DATA, bus="sata") == [("vda", "virtio"), ("sda", "sata")]
    assert named({"disk_bus": "scsi", "tag": "data"}, DATA) == [("sda", "scsi"), ("vdb", "virtio")]


def test_a_name_is_kept_when_it_is_one_of_the_bus_and_not_the_root_disks() -> None:
    assert named({"device_name": "/dev/vdd"}, DATA, {"device_name": "vdb"}) == [("vdd", "virtio"), ("vdc", "virtio"), ("vdb", "virtio")]
    assert named({"device_name": "/dev/sdb"}, {"device_name": "/dev/vda"}) == [("vdb", "virtio"), ("vdc", "virtio")]
    assert named(ROOT | {"device_name": "vda"}, bus="scsi") == [("sda", "scsi")]


def test_names_go_on_after_z() -> None:
    found = named(*[DATA] * 40)
    assert [name for name, _ in found[:2]] + [name for name, _ in found[24:27]] == ["vdb", "vdc", "vdz", "vdaa", "vdab"]
    assert len(set(found)) == 40


def test_a_bus_that_is_not_known_ends_the_build() -> None:
    with pytest.raises(VolumeError, match="disk bus fdc is not known"):
        named({"disk_bus": "fdc"})
