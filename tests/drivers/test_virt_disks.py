"""Which disks a guest gets, and the bytes that we write ourselves."""

import io
import subprocess
from pathlib import Path

import pycdlib
import pytest

from hullwright.drivers.libvirt_storage import pool_path
from hullwright.drivers.virt.libvirt import config_drive
from hullwright.drivers.virt.libvirt.disks import GIB, MIB, device_name, plan, swap_header
from hullwright.objects.errors import BuildAbortException, FlavorDiskTooSmall
from hullwright.objects.guests import GuestSpec, GuestVolume
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import CachedImage
from hullwright.objects.volumes import Connection

UUID = "6f8f0a5e-1d5e-4a29-9d1c-0c9a2f4c7a11"
IMAGE = CachedImage("image", "/pool/base-image", "qcow2", 10 * MIB, 2 * GIB)


def guest(**changes: object) -> GuestSpec:
    facts: dict[str, object] = {
        "uuid": UUID,
        "name": "instance-00000001",
        "display_name": "one",
        "hostname": "one",
        "vcpus": 1,
        "memory_mb": 128,
        "root_gb": 5,
        "project_id": "project",
        "user_id": "user",
        "flavor_name": "small",
        "image": IMAGE,
    }
    return GuestSpec(**{**facts, **changes})  # type: ignore[arg-type]


def test_the_root_disk_has_the_flavors_size_and_boots_first() -> None:
    (root,) = plan(guest(), "qcow2", None)
    assert (root.device, root.size_bytes, root.boot_order, root.disk_format) == ("vda", 5 * GIB, 1, "qcow2")
    assert root.base == IMAGE
    assert not root.copied


def test_a_flavor_without_root_size_takes_the_images() -> None:
    (root,) = plan(guest(root_gb=0), "qcow2", None)
    assert root.size_bytes == IMAGE.virtual_size_bytes


def test_an_image_larger_than_the_flavors_disk_is_refused_with_both_sizes() -> None:
    with pytest.raises(FlavorDiskTooSmall) as caught:
        plan(guest(root_gb=1), "qcow2", None)
    assert caught.value.fields == {"flavor_bytes": GIB, "image_bytes": 2 * GIB}


def test_raw_disks_are_copies() -> None:
    (root,) = plan(guest(), "raw", None)
    assert (root.copied, root.disk_format) == (True, "raw")


def test_ephemeral_swap_and_config_drive_follow_in_order() -> None:
    disks = plan(guest(ephemeral_gb=2, swap_mb=64), "qcow2", 4096)
    assert [(disk.suffix, disk.device) for disk in disks] == [
        ("_disk", "vda"),
        ("_disk.eph0", "vdb"),
        ("_disk.swap", "vdc"),
        ("_disk.config", "vdd"),
    ]
    assert disks[3].read_only
    assert [disk.boot_order for disk in disks] == [1, None, None, None]


def test_volumes_keep_their_names_and_our_disks_take_others() -> None:
    volume = GuestVolume(Connection("v", "file", {"path": "/v"}), "vdb")
    disks = plan(guest(volumes=(volume,), swap_mb=64), "qcow2", 4096)
    assert [disk.device for disk in disks] == ["vda", "vdc", "vdd"]


def test_a_guest_that_boots_from_a_volume_has_no_root_disk_of_its_own() -> None:
    volume = GuestVolume(Connection("v", "file", {"path": "/v"}), "/dev/vda", boot_index=0)
    assert [disk.suffix for disk in plan(guest(image=None, volumes=(volume,)), "qcow2", 4096)] == ["_disk.config"]


def test_the_image_chooses_bus_and_cdrom() -> None:
    disks = plan(guest(image_properties={"hw_disk_bus": "scsi", "hw_cdrom_bus": "ide"}), "qcow2", 4096)
    assert [(disk.device, disk.bus, disk.kind) for disk in disks] == [("sda", "scsi", "disk"), ("hda", "ide", "cdrom")]


@pytest.mark.parametrize(("bus", "kind"), [("virtio", "disk"), ("scsi", "disk"), ("usb", "disk"), ("sata", "cdrom"), ("ide", "cdrom")])
def test_the_config_drive_is_a_cdrom_where_a_disk_cannot_be_read_only(bus: str, kind: str) -> None:
    root, drive = plan(guest(image_properties={"hw_disk_bus": bus}), "qcow2", 4096)
    assert (root.bus, root.kind, drive.bus, drive.kind, drive.read_only) == (bus, "disk", bus, kind, True)


def test_an_unknown_bus_aborts_the_build() -> None:
    with pytest.raises(BuildAbortException, match="disk bus floppy"):
        plan(guest(image_properties={"hw_disk_bus": "floppy"}), "qcow2", None)


def test_device_names_go_on_after_z() -> None:
    taken = [f"vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert device_name("virtio", taken) == "vdaa"


def test_a_swap_header_is_taken_for_swap(tmp_path: Path) -> None:
    area = tmp_path / "swap"
    area.write_bytes(swap_header(16 * MIB, UUID))
    with area.open("r+b") as file:
        file.truncate(16 * MIB)
    told = subprocess.run(["/sbin/blkid", "-p", str(area)], capture_output=True, text=True, timeout=10, check=True).stdout
    assert 'TYPE="swap"' in told
    assert 'LABEL="swap"' in told


def test_a_config_drive_holds_every_file_under_its_own_name() -> None:
    files = {
        "openstack/latest/meta_data.json": b'{"uuid": "x"}',
        "openstack/latest/vendor_data.json": b"{}",
        "openstack/latest/vendor_data2.json": b"[]",
        "openstack/2012-08-10/user_data": b"\x00\xff" * 5000,
        "openstack/content/0000": b"",
        "ec2/latest/meta-data.json": b"e",
    }
    image = config_drive.build(files)
    assert image[0x8000 + 40 : 0x8000 + 48] == b"config-2"
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    for name, content in files.items():
        for way in ("rr_path", "joliet_path"):
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **{way: f"/{name}"})
            assert out.getvalue() == content
    iso.close()


def test_each_libvirtd_of_this_machine_has_a_pool_of_its_own() -> None:
    here = HostRef("a", "qemu+unix:///system?socket=/run/a")
    assert pool_path(here, None, "/state") == "/state/hosts/a/instances"
    assert pool_path(HostRef("b", "qemu:///system"), None, "/state") == "/state/hosts/b/instances"
    assert pool_path(HostRef("c", "qemu+tls://c.example/system"), None, "/state") == "/var/lib/hullwright/instances"
    assert pool_path(here, "/srv/{host}", "/state") == "/srv/a"
