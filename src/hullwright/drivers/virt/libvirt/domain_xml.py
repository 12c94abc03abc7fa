"""The libvirt domain of a guest, as XML. Pure: from what the guest shall be and where its disks lie to text.

Not for: making disks, or knowing the host; both are handed in.
Element by element it follows libvirt's "Domain XML format".
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hullwright.drivers.virt.libvirt.disks import LocalDisk, device_name
from hullwright.objects.disks import DEFAULT_BUS
from hullwright.objects.errors import BuildAbortException
from hullwright.objects.guests import GuestSpec, GuestVolume
from hullwright.objects.networks import Vif

METADATA_URI = "urn:hullwright:instance:1"
METADATA_PREFIX = "hullwright"
OWNER = "hullwright"
_X86 = ("x86_64", "i686")
CUSTOM_CPU = "qemu64"  # where cpu_mode is custom and no model is named


@dataclass(frozen=True, slots=True)
class Settings:
    """How guests are made on a host, after its capabilities and the options of [libvirt] were weighed."""

    virt_type: str = "qemu"
    arch: str = "x86_64"
    cpu_mode: str = "none"
    cpu_model: str | None = None
    machine_type: str | None = None
    tb_cache_mb: int = 32
    disk_cache: str = "none"
    vnc_listen: str | None = "127.0.0.1"  # None: no display
    memory_stats_seconds: int = 10
    pcie_root_ports: int = 16


def asks_for_a_shape(guest: GuestSpec) -> bool:
    """Tell whether the image or a block device wants something of the domain that a plain guest does not have."""
    shaping = {"hw_machine_type", "hw_firmware_type", "hw_disk_bus", "hw_cdrom_bus", "hw_vif_model", "hw_video_model"}
    return bool(shaping & guest.image_properties.keys()) or any(volume.bus != DEFAULT_BUS for volume in guest.volumes)


def build(guest: GuestSpec, settings: Settings, disks: Sequence[tuple[LocalDisk, str]], console_log: str) -> str:
    """The domain; `disks` are those of `disks.plan` with their paths on the host, `console_log` is a path there too.

    Raises: BuildAbortException.
    """
    domain = ET.Element("domain", type=settings.virt_type)
    _text(domain, "name", guest.name)
    _text(domain, "uuid", guest.uuid)
    _text(domain, "title", guest.display_name)
    _metadata(domain, guest)
    _text(domain, "memory", guest.memory_mb, unit="MiB")
    _text(domain, "vcpu", guest.vcpus)
    x86 = settings.arch in _X86
    machine = guest.image_properties.get("hw_machine_type") or settings.machine_type
    if x86:
        _system_information(domain, guest)
    _operating_system(domain, guest, settings.arch, machine, x86, _root_of_linux(guest, disks))
    _features(domain, settings, x86)
    _cpu(domain, settings)
    _clock(domain, guest, x86)
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _devices(domain, guest, settings, machine, disks, console_log)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: object, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    # XML has no way to say control characters, and libvirt wants a title on one line.
    element.text = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return element


def _metadata(domain: ET.Element, guest: GuestSpec) -> None:
    ET.register_namespace(METADATA_PREFIX, METADATA_URI)

    def name(tag: str) -> str:
        return f"{{{METADATA_URI}}}{tag}"

    instance = ET.SubElement(ET.SubElement(domain, "metadata"), name("instance"))
    _text(instance, name("owner"), OWNER)
    _text(instance, name("name"), guest.display_name)
    _text(instance, name("created"), datetime.fromtimestamp(guest.created_at, UTC).isoformat())
    flavor = ET.SubElement(instance, name("flavor"), name=guest.flavor_name)
    _text(flavor, name("memory"), guest.memory_mb, unit="MiB")
    _text(flavor, name("disk"), guest.root_gb, unit="GiB")
    _text(flavor, name("vcpus"), guest.vcpus)
    _text(instance, name("project"), guest.project_id)
    _text(instance, name("user"), guest.user_id)
    if guest.image is not None:
        ET.SubElement(instance, name("image"), id=guest.image.image_id)


def _system_information(domain: ET.Element, guest: GuestSpec) -> None:
    system = ET.SubElement(ET.SubElement(domain, "sysinfo", type="smbios"), "system")
    entries = {
        "manufacturer": "Hullwright",
        # cloud-init's ds-identify takes this name for the OpenStack data source.
        "product": "OpenStack Compute",
        "serial": guest.uuid,
        "uuid": guest.uuid,
        "family": "Virtual Machine",
    }
    for key, value in entries.items():
        _text(system, "entry", value, name=key)


def _root_of_linux(guest: GuestSpec, disks: Sequence[tuple[LocalDisk, str]]) -> str:
    """What a Linux kernel calls the root disk. Its IDE disks are sd too, for many years; libvirt still says hd."""
    roots = [volume.device.removeprefix("/dev/") for volume in guest.volumes if volume.boot_index == 0]
    roots += [disk.device for disk, _ in disks if disk.boot_order == 1]
    root = roots[0] if roots else "vda"
    return f"sd{root[2:]}" if root.startswith("hd") else root


def _operating_system(domain: ET.Element, guest: GuestSpec, arch: str, machine: str | None, x86: bool, root: str) -> None:
    properties = guest.image_properties
    system = ET.SubElement(domain, "os")
    if properties.get("hw_firmware_type") == "uefi":
        system.set("firmware", "efi")
    kind = _text(system, "type", "hvm", arch=arch)
    if machine:
        kind.set("machine", machine)
    if guest.kernel is not None:
        _text(system, "kernel", guest.kernel.path)
        if guest.ramdisk is not None:
            _text(system, "initrd", guest.ramdisk.path)
        _text(system, "cmdline", properties.get("os_command_line") or f"root=/dev/{root} console=tty0 console=ttyS0")
    if x86:
        ET.SubElement(system, "smbios", mode="sysinfo")


def _features(domain: ET.Element, settings: Settings, x86: bool) -> None:
    features = ET.SubElement(domain, "features")
    if x86:
        ET.SubElement(features, "acpi")
        ET.SubElement(features, "apic")
    if settings.virt_type == "qemu" and settings.tb_cache_mb:
        _text(ET.SubElement(features, "tcg"), "tb-cache", settings.tb_cache_mb, unit="MiB")


def _cpu(domain: ET.Element, settings: Settings) -> None:
    if settings.cpu_mode == "none":
        return
    if settings.cpu_mode == "custom":
        cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact")
        _text(cpu, "model", settings.cpu_model or CUSTOM_CPU, fallback="forbid")
        return
    ET.SubElement(domain, "cpu", mode=settings.cpu_mode)


def _clock(domain: ET.Element, guest: GuestSpec, x86: bool) -> None:
    windows = guest.image_properties.get("os_type") == "windows"
    clock = ET.SubElement(domain, "clock", offset="localtime" if windows else "utc")
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    if x86:
        ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
        ET.SubElement(clock, "timer", name="hpet", present="no")


# --- Devices --------------------------------------------------------------------------------------------------------


def _devices(
    domain: ET.Element,
    guest: GuestSpec,
    settings: Settings,
    machine: str | None,
    disks: Sequence[tuple[LocalDisk, str]],
    console_log: str,
) -> None:
    devices = ET.SubElement(domain, "devices")
    taken = {disk.device for disk, _ in disks}
    buses = {disk.bus for disk, _ in disks}
    for disk, path in disks:
        _local_disk(devices, disk, path, settings.disk_cache)
    for volume in guest.volumes:
        device = volume.device.removeprefix("/dev/") or device_name(volume.bus, taken)
        if device in taken:
            raise BuildAbortException(instance=guest.uuid, reason=f"two disks are to be {device}")
        taken.add(device)
        buses.add(volume.bus)
        _volume(devices, volume, device)
    if "scsi" in buses:
        ET.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci" if "usb" in buses else "none")
    if machine is not None and "q35" in machine:
        ET.SubElement(devices, "controller", type="pci", model="pcie-root")
        for _ in range(settings.pcie_root_ports):
            ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    for vif in guest.vifs:
        _interface(devices, vif, guest.image_properties)
    serial = ET.SubElement(devices, "serial", type="file")
    # The log goes on over restarts: what a guest said before it died is what people look for.
    ET.SubElement(serial, "source", path=console_log, append="on")
    ET.SubElement(serial, "target", port="0")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if settings.vnc_listen is not None:
        graphics = ET.SubElement(devices, "graphics", type="vnc", port="-1", autoport="yes")
        ET.SubElement(graphics, "listen", type="address", address=settings.vnc_listen)
        video = ET.SubElement(devices, "video")
        ET.SubElement(video, "model", type=guest.image_properties.get("hw_video_model", "vga"))
        ET.SubElement(devices, "input", type="tablet", bus="virtio")
    random = ET.SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")
    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    if settings.memory_stats_seconds:
        ET.SubElement(balloon, "stats", period=str(settings.memory_stats_seconds))


def _local_disk(devices: ET.Element, disk: LocalDisk, path: str, cache: str) -> None:
    element = ET.SubElement(devices, "disk", type="file", device=disk.kind)
    driver = ET.SubElement(element, "driver", name="qemu", type=disk.disk_format)
    if cache != "default" and not disk.read_only:
        driver.set("cache", cache)
    if not disk.read_only:
        driver.set("discard", "unmap")
    ET.SubElement(element, "source", file=path)
    if disk.base is not None and not disk.copied:
        # Said here, QEMU need not believe what the overlay says of the file below it.
        below = ET.SubElement(element, "backingStore", type="file")
        ET.SubElement(below, "format", type=disk.base.disk_format)
        ET.SubElement(below, "source", file=disk.base.path)
        ET.SubElement(below, "backingStore")
    ET.SubElement(element, "target", dev=disk.device, bus=disk.bus)
    if disk.read_only:
        ET.SubElement(element, "readonly")
    if disk.boot_order is not None:
        ET.SubElement(element, "boot", order=str(disk.boot_order))


def _volume(devices: ET.Element, volume: GuestVolume, device: str) -> None:
    connection = volume.connection
    data = connection.data
    network = connection.kind in ("rbd", "iscsi", "nbd")
    if not network and connection.kind not in ("file", "block"):
        raise BuildAbortException(instance="", reason=f"volumes of kind {connection.kind} are not known")
    kind = "network" if network else connection.kind
    element = ET.SubElement(devices, "disk", type=kind, device="disk")
    # Volumes may be shared between hosts: no cache of one host may hold what another does not see.
    ET.SubElement(element, "driver", name="qemu", type=str(data.get("format", "raw")), cache="none", discard="unmap")
    if connection.kind == "file":
        ET.SubElement(element, "source", file=str(data["path"]))
    elif connection.kind == "block":
        ET.SubElement(element, "source", dev=str(data["path"]))
    else:
        _network_source(element, connection.kind, data)
    ET.SubElement(element, "target", dev=device, bus=volume.bus)
    _text(element, "serial", connection.serial or connection.volume_id)
    if connection.read_only:
        ET.SubElement(element, "readonly")
    if volume.boot_index is not None and volume.boot_index >= 0:
        ET.SubElement(element, "boot", order=str(volume.boot_index + 1))


def _network_source(element: ET.Element, kind: str, data: Mapping[str, Any]) -> None:
    """RBD: name, hosts [[host, port], ...]; iSCSI: portal, iqn, lun; NBD: host, port, export. Secrets lie in libvirt, by uuid."""
    if kind == "rbd":
        name, hosts = str(data["name"]), [(str(host), str(port)) for host, port in data.get("hosts", ())]
    elif kind == "iscsi":
        name, hosts = f"{data['iqn']}/{data.get('lun', 0)}", [_portal(str(data["portal"]))]
    else:
        name, hosts = str(data.get("export", "")), [(str(data["host"]), str(data["port"]))]
    source = ET.SubElement(element, "source", protocol=kind, name=name)
    for host, port in hosts:
        ET.SubElement(source, "host", name=host, port=port)
    if data.get("secret_uuid"):
        auth = ET.SubElement(source, "auth", username=str(data.get("auth_username", "")))
        ET.SubElement(auth, "secret", type="ceph" if kind == "rbd" else "iscsi", uuid=str(data["secret_uuid"]))


def _portal(portal: str) -> tuple[str, str]:
    """Split 192.0.2.1:3260 or [2001:db8::1]:3260."""
    host, _, port = portal.rpartition(":")
    return host.strip("[]"), port


def _interface(devices: ET.Element, vif: Vif, properties: Mapping[str, str]) -> None:
    if vif.kind not in ("network", "bridge"):
        raise BuildAbortException(instance="", reason=f"interfaces of kind {vif.kind} are not known")
    element = ET.SubElement(devices, "interface", type=vif.kind)
    ET.SubElement(element, "mac", address=vif.mac_address)
    ET.SubElement(element, "source", {vif.kind: vif.source})
    ET.SubElement(element, "model", type=properties.get("hw_vif_model", vif.model))
    if vif.mtu:
        ET.SubElement(element, "mtu", size=str(vif.mtu))
    if vif.filter:
        reference = ET.SubElement(element, "filterref", filter=vif.filter)
        for name, value in vif.filter_parameters:
            ET.SubElement(reference, "parameter", name=name, value=value)
