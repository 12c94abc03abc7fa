"""The domain XML of guests, element by element."""

import xml.etree.ElementTree as ET

import pytest
from test_virt_disks import IMAGE, UUID, guest

from hullwright.drivers.virt.libvirt.disks import plan
from hullwright.drivers.virt.libvirt.domain_xml import METADATA_URI, Settings, build
from hullwright.objects.errors import BuildAbortException
from hullwright.objects.guests import GuestSpec, GuestVolume
from hullwright.objects.images import CachedImage
from hullwright.objects.networks import Vif
from hullwright.objects.volumes import Connection

VIF = Vif(
    "port",
    "52:54:00:00:00:01",
    "network",
    "net0",
    mtu=1450,
    filter="no-spoofing",
    filter_parameters=(("IP", "192.0.2.5"),),
)


def domain(spec: GuestSpec, settings: Settings | None = None, images_type: str = "qcow2") -> ET.Element:
    disks = [(disk, f"/pool/{spec.uuid}{disk.suffix}") for disk in plan(spec, images_type, 4096)]
    return ET.fromstring(build(spec, settings or Settings(), disks, "/pool/console.log"))


def attributes(root: ET.Element, path: str) -> dict[str, str]:
    found = root.find(path)
    assert found is not None, path
    return dict(found.attrib)


def volume(kind: str, data: dict[str, object], **more: object) -> GuestVolume:
    return GuestVolume(Connection("volume-1", kind, data, serial="volume-1"), "vdb", **more)  # type: ignore[arg-type]


def test_the_guest_has_its_name_uuid_memory_and_cpus() -> None:
    root = domain(guest(vcpus=3))
    assert [root.findtext(tag) for tag in ("name", "uuid", "memory", "vcpu")] == ["instance-00000001", UUID, "128", "3"]
    assert root.get("type") == "qemu"


def test_metadata_say_whose_it_is_and_escape_what_users_wrote() -> None:
    root = domain(guest(display_name='<evil/> & "co"\n\x01'))
    instance = root.find(f"metadata/{{{METADATA_URI}}}instance")
    assert instance is not None
    assert instance.findtext(f"{{{METADATA_URI}}}owner") == "hullwright"
    assert instance.findtext(f"{{{METADATA_URI}}}project") == "project"
    assert instance.findtext(f"{{{METADATA_URI}}}name") == '<evil/> & "co"  '
    assert root.findtext("title") == '<evil/> & "co"  '


def test_the_root_overlay_names_the_format_of_the_file_below() -> None:
    root = domain(guest(image=CachedImage("image", "/pool/base-image", "raw", 1, 1)))
    disk = "devices/disk[1]/"
    assert attributes(root, disk + "driver")["type"] == "qcow2"
    assert attributes(root, disk + "backingStore/format") == {"type": "raw"}
    assert attributes(root, disk + "backingStore/source") == {"file": "/pool/base-image"}
    # The chain ends there, whatever that file says.
    assert root.find(disk + "backingStore/backingStore") is not None
    assert attributes(root, disk + "boot") == {"order": "1"}


def test_a_copied_root_has_nothing_below() -> None:
    root = domain(guest(), images_type="raw")
    assert attributes(root, "devices/disk[1]/driver")["type"] == "raw"
    assert root.find("devices/disk[1]/backingStore") is None


def test_the_config_drive_is_read_only() -> None:
    root = domain(guest())
    assert root.find("devices/disk[2]/readonly") is not None
    assert attributes(root, "devices/disk[2]/target") == {"dev": "vdb", "bus": "virtio"}


def test_an_interface_has_network_mac_model_mtu_and_filter() -> None:
    root = domain(guest(vifs=(VIF,)))
    nic = "devices/interface/"
    assert attributes(root, "devices/interface") == {"type": "network"}
    assert attributes(root, nic + "source") == {"network": "net0"}
    assert attributes(root, nic + "mac") == {"address": "52:54:00:00:00:01"}
    assert attributes(root, nic + "model") == {"type": "virtio"}
    assert attributes(root, nic + "mtu") == {"size": "1450"}
    assert attributes(root, nic + "filterref") == {"filter": "no-spoofing"}
    assert attributes(root, nic + "filterref/parameter") == {"name": "IP", "value": "192.0.2.5"}


def test_a_bridge_interface_and_the_images_model() -> None:
    vif = Vif("port", "52:54:00:00:00:01", "bridge", "br0")
    root = domain(guest(vifs=(vif,), image_properties={"hw_vif_model": "e1000"}))
    assert attributes(root, "devices/interface/source") == {"bridge": "br0"}
    assert attributes(root, "devices/interface/model") == {"type": "e1000"}


def test_a_file_volume_has_its_serial_and_boot_order() -> None:
    root = domain(guest(image=None, volumes=(volume("file", {"path": "/v/1", "format": "qcow2"}, boot_index=0),)))
    disk = "devices/disk[2]/"
    assert attributes(root, disk + "source") == {"file": "/v/1"}
    assert attributes(root, disk + "driver")["type"] == "qcow2"
    assert root.findtext(disk + "serial") == "volume-1"
    assert attributes(root, disk + "boot") == {"order": "1"}


def test_an_rbd_volume_has_monitors_and_a_secret_by_uuid() -> None:
    data = {"name": "pool/v", "hosts": [["192.0.2.1", 6789], ["192.0.2.2", 6789]], "auth_username": "h", "secret_uuid": UUID}
    root = domain(guest(volumes=(volume("rbd", data),)))
    source = "devices/disk[3]/source"
    assert attributes(root, source) == {"protocol": "rbd", "name": "pool/v"}
    assert [host.get("name") for host in root.findall(source + "/host")] == ["192.0.2.1", "192.0.2.2"]
    assert attributes(root, source + "/auth/secret") == {"type": "ceph", "uuid": UUID}


def test_an_iscsi_volume_has_portal_and_lun() -> None:
    root = domain(guest(volumes=(volume("iscsi", {"portal": "[2001:db8::1]:3260", "iqn": "iqn.x:v", "lun": 1}),)))
    assert attributes(root, "devices/disk[3]/source") == {"protocol": "iscsi", "name": "iqn.x:v/1"}
    assert attributes(root, "devices/disk[3]/source/host") == {"name": "2001:db8::1", "port": "3260"}


def test_an_nbd_volume_has_its_export() -> None:
    root = domain(guest(volumes=(volume("nbd", {"host": "192.0.2.9", "port": 10809, "export": "v"}),)))
    assert attributes(root, "devices/disk[3]/source") == {"protocol": "nbd", "name": "v"}


def test_an_unknown_kind_of_volume_aborts_the_build() -> None:
    with pytest.raises(BuildAbortException, match="kind tape"):
        domain(guest(volumes=(volume("tape", {}),)))


def test_two_disks_of_one_name_abort_the_build() -> None:
    connection = Connection("v", "file", {"path": "/v"})
    with pytest.raises(BuildAbortException, match="two disks are to be vdc"):
        domain(guest(volumes=(GuestVolume(connection, "vdc"), GuestVolume(connection, "vdc"))))


def test_a_kernel_and_ramdisk_boot_directly_with_the_images_command_line() -> None:
    kernel, ramdisk = (CachedImage(name, f"/pool/{name}", "raw", 1, 1) for name in ("kernel", "ramdisk"))
    root = domain(guest(kernel=kernel, ramdisk=ramdisk, image_properties={"os_command_line": "console=ttyS0"}))
    told = [root.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")]
    assert told == ["/pool/kernel", "/pool/ramdisk", "console=ttyS0"]


@pytest.mark.parametrize(("bus", "root"), [(None, "vda"), ("scsi", "sda"), ("sata", "sda"), ("usb", "sda"), ("ide", "sda")])
def test_a_kernel_is_told_the_root_disk_by_its_bus_or_that_of_the_boot_volume(bus: str | None, root: str) -> None:
    kernel = CachedImage("kernel", "/pool/kernel", "raw", 1, 1)
    asked = {"hw_disk_bus": bus} if bus else {}
    assert domain(guest(kernel=kernel, image_properties=asked)).findtext("os/cmdline") == f"root=/dev/{root} console=tty0 console=ttyS0"
    name = {None: "vda", "ide": "hda"}.get(bus, "sda")
    boot = GuestVolume(Connection("v", "file", {"path": "/v"}), name, bus or "virtio", 0)
    told = domain(guest(image=None, kernel=kernel, volumes=(boot,))).findtext("os/cmdline")
    assert (told or "").startswith(f"root=/dev/{root} ")


def test_emulated_guests_get_a_small_translation_cache_and_kvm_guests_none() -> None:
    assert domain(guest()).findtext("features/tcg/tb-cache") == "32"
    assert domain(guest(), Settings(virt_type="kvm", cpu_mode="host-model")).find("features/tcg") is None


def test_the_cpu_follows_the_settings() -> None:
    assert domain(guest()).find("cpu") is None
    assert attributes(domain(guest(), Settings(cpu_mode="host-model")), "cpu") == {"mode": "host-model"}
    assert domain(guest(), Settings(cpu_mode="custom", cpu_model="EPYC")).findtext("cpu/model") == "EPYC"


def test_q35_has_slots_to_spare() -> None:
    root = domain(guest(image_properties={"hw_machine_type": "q35"}))
    assert attributes(root, "os/type") == {"arch": "x86_64", "machine": "q35"}
    assert len(root.findall("devices/controller[@model='pcie-root-port']")) == Settings().pcie_root_ports


def test_the_scsi_bus_brings_its_controller() -> None:
    root = domain(guest(image_properties={"hw_disk_bus": "scsi"}))
    assert root.find("devices/controller[@model='virtio-scsi']") is not None


def test_the_console_goes_on_in_the_same_log_after_a_restart() -> None:
    assert attributes(domain(guest()), "devices/serial/source") == {"path": "/pool/console.log", "append": "on"}


def test_vnc_listens_where_it_is_told_or_not_at_all() -> None:
    assert attributes(domain(guest()), "devices/graphics/listen")["address"] == "127.0.0.1"
    assert domain(guest(), Settings(vnc_listen=None)).find("devices/graphics") is None


def test_windows_has_local_time_and_uefi_its_firmware() -> None:
    root = domain(guest(image_properties={"os_type": "windows", "hw_firmware_type": "uefi"}))
    assert attributes(root, "clock")["offset"] == "localtime"
    assert attributes(root, "os") == {"firmware": "efi"}


def test_other_architectures_get_no_x86_devices() -> None:
    root = domain(guest(), Settings(arch="aarch64"))
    assert root.find("features/acpi") is None
    assert root.find("sysinfo") is None
    assert root.find("clock/timer[@name='hpet']") is None


def test_rng_balloon_and_agent_channel_are_there() -> None:
    root = domain(guest())
    assert root.findtext("devices/rng/backend") == "/dev/urandom"
    assert attributes(root, "devices/memballoon/stats") == {"period": "10"}
    assert attributes(root, "devices/channel/target")["name"] == "org.qemu.guest_agent.0"


def test_the_image_is_told_by_id() -> None:
    assert IMAGE.image_id in ET.tostring(domain(guest()), encoding="unicode")
