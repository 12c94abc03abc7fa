"""What a host can do: its CPU, the kinds of guests that really run there, its addresses, its room.

Not for: choosing a host; the scheduler does that with what is told here.
"""

from __future__ import annotations

import socket
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hullwright.drivers.libvirt_binding import is_connection_lost, load_libvirt
from hullwright.objects.hosts import HostRef

X86 = ("x86_64", "i686")
_X86_VIRTUALISATION = ("vmx", "svm")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What libvirt says of a host."""

    uuid: str
    arch: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    virt_types: tuple[str, ...]  # usable ones, best first
    machine_types: tuple[str, ...]  # of guests of the host's own architecture
    maximum_cpu: bool  # emulated guests can have every CPU feature that QEMU knows


def read(connection: Any) -> Capabilities:
    """Ask the host."""
    root = ET.fromstring(connection.getCapabilities())
    arch = root.findtext("host/cpu/arch", "x86_64")
    features = _cpu_features(connection, root)
    guest = next((g for g in root.iter("guest") if _is_guest_of(g, arch)), None)
    offered = {domain.get("type", "") for domain in guest.iter("domain")} if guest is not None else set()
    machines = set() if guest is None else {name or "" for each in guest.iter("machine") for name in (each.text, each.get("canonical"))}
    kvm = "kvm" in offered and _kvm_works(connection, arch, features)
    emulated = _domain_capabilities(connection, arch, "qemu")
    maximum = emulated.find("cpu/mode[@name='maximum']") if emulated is not None else None
    return Capabilities(
        uuid=root.findtext("host/uuid", ""),
        arch=arch,
        cpu_model=root.findtext("host/cpu/model", ""),
        cpu_features=tuple(sorted(features)),
        virt_types=("kvm", "qemu") if kvm else ("qemu",),
        machine_types=tuple(sorted(machines - {""})),
        maximum_cpu=maximum is not None and maximum.get("supported") == "yes",
    )


def _is_guest_of(guest: ET.Element, arch: str) -> bool:
    found = guest.find("arch")
    return found is not None and found.get("name") == arch and guest.findtext("os_type") == "hvm"


def _cpu_features(connection: Any, root: ET.Element) -> set[str]:
    """All flags of the host's CPU. Capabilities name only those that its model does not have by itself."""
    cpu = root.find("host/cpu")
    if cpu is None:
        return set()
    expanded = _expanded(connection, cpu)
    return _features(cpu if expanded is None else expanded)  # not offered for every architecture; what capabilities name has to do


def model_features(connection: Any, arch: str, model: str) -> tuple[str, ...]:
    """All flags of a CPU model by its name; none when libvirt does not know them."""
    cpu = ET.Element("cpu")
    ET.SubElement(cpu, "arch").text = arch
    ET.SubElement(cpu, "model").text = model
    expanded = _expanded(connection, cpu)
    return () if expanded is None else tuple(sorted(_features(expanded)))


def _expanded(connection: Any, cpu: ET.Element) -> ET.Element | None:
    """A CPU with the flags that its model has by itself."""
    libvirt = load_libvirt()
    try:
        told = connection.baselineCPU([ET.tostring(cpu, encoding="unicode")], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
    except libvirt.libvirtError as error:
        if is_connection_lost(error):
            raise
        return None
    return ET.fromstring(told)


def _features(cpu: ET.Element) -> set[str]:
    return {feature.get("name", "") for feature in cpu.iter("feature") if feature.get("policy") != "disable"} - {""}


def _kvm_works(connection: Any, arch: str, features: set[str]) -> bool:
    """Tell whether KVM is more than offered.

    libvirt offers KVM wherever /dev/kvm opens. There are kernels whose KVM needs no help from the CPU, and under which common
    guests never get past their first instructions; so the CPU must have the extension as well.
    """
    if _domain_capabilities(connection, arch, "kvm") is None:
        return False
    return arch not in X86 or any(flag in features for flag in _X86_VIRTUALISATION)


def _domain_capabilities(connection: Any, arch: str, virt_type: str) -> ET.Element | None:
    """What guests of a type can have; None where there can be none."""
    try:
        return ET.fromstring(connection.getDomainCapabilities(None, arch, None, virt_type, 0))
    except load_libvirt().libvirtError as error:
        if is_connection_lost(error):
            raise
        return None


def host_ip(host: HostRef, configured: str | None) -> str:
    """The address at which the host is known: that of its URI, or for this machine the configured or the default route's."""
    name = urlsplit(host.uri).hostname
    if name not in (None, "", "localhost"):
        try:
            return str(socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)[0][4][0])
        except OSError:
            return str(name)
    if configured:
        return configured
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: routed, never sent to
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
