"""tools/libvirtd and the guest: what every test with a real hypervisor stands on."""

import contextlib
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from support.libvirtd import GuestImage, Libvirtd, LibvirtdError

READY_SECONDS = 90


@pytest.fixture(autouse=True)
def _quiet_libvirt() -> None:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


@pytest.fixture
def own_host(tmp_path: Path) -> Libvirtd:
    return Libvirtd("hull-own", tmp_path / "host")


def network_xml(name: str, bridge: str, third_octet: int) -> str:
    return (
        f"<network><name>{name}</name><bridge name='{bridge}'/><forward mode='open'/>"
        f"<ip address='10.213.{third_octet}.1' netmask='255.255.255.0'>"
        f"<dhcp><range start='10.213.{third_octet}.10' end='10.213.{third_octet}.20'/></dhcp></ip></network>"
    )


def guest_xml(disk: Path, console: Path) -> str:
    return f"""
    <domain type='qemu'><name>scratch</name><uuid>{uuid.uuid4()}</uuid><memory unit='MiB'>128</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
      <features><acpi/><apic/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
      <devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
          <target dev='vda' bus='virtio'/><serial>root-disk</serial></disk>
        <serial type='file'><source path='{console}'/></serial><memballoon model='none'/>
      </devices></domain>"""


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def has_process(text: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text in path.read_text(errors="replace"):
                return True
    return False


def test_two_daemons_are_two_hosts(two_libvirt_hosts: tuple[Libvirtd, Libvirtd]) -> None:
    connections = [libvirt.open(host.uri) for host in two_libvirt_hosts]
    try:
        assert [connection.getHostname() for connection in connections] == ["hull-a", "hull-b"]
        uuids = {connection.getCapabilities().split("<uuid>")[1][:36] for connection in connections}
        assert len(uuids) == 2
        assert all(connection.nwfilterLookupByName("clean-traffic") for connection in connections)
    finally:
        for connection in connections:
            connection.close()


def test_purge_takes_guests_networks_and_state_of_a_daemon_that_was_killed(
    own_host: Libvirtd, guest_image: GuestImage, tmp_path: Path
) -> None:
    own_host.start()
    try:
        disk = tmp_path / "disk.qcow2"
        backing = ["-F", "qcow2", "-b", str(guest_image.qcow2)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk)], check=True)
        connection = libvirt.open(own_host.uri)
        connection.networkCreateXML(network_xml("scratch", "hullscratch0", 77))
        connection.createXML(guest_xml(disk, tmp_path / "console.log"))
        connection.close()
        assert Path("/sys/class/net/hullscratch0").exists()
        assert has_process(str(disk))
        own_host.kill()
        assert within(5, lambda: own_host.pid is None)
    finally:
        own_host.stop(purge=True)
    assert not own_host.directory.exists()
    assert within(5, lambda: not has_process(str(disk)))
    assert not Path("/sys/class/net/hullscratch0").exists()


def test_guests_outlive_a_restart_of_the_daemon(own_host: Libvirtd, guest_image: GuestImage, tmp_path: Path) -> None:
    own_host.start()
    try:
        disk, console = tmp_path / "disk.qcow2", tmp_path / "console.log"
        backing = ["-F", "raw", "-b", str(guest_image.raw)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk)], check=True)
        connection = libvirt.open(own_host.uri)
        console.touch()  # the guest runs as root, and these lines are read by whoever runs the tests
        name = connection.createXML(guest_xml(disk, console)).name()
        connection.close()
        own_host.stop(purge=False)
        assert own_host.pid is None
        own_host.start()
        connection = libvirt.open(own_host.uri)
        assert connection.lookupByName(name).isActive()
        connection.close()
        # Of the last line the guest may have written a part.
        assert within(READY_SECONDS, lambda: "GUEST-BLOCK" in console.read_text(errors="replace").rpartition("\n")[0])
        lines = console.read_text(errors="replace").splitlines()
        assert "GUEST-DATASOURCE none uuid= hostname=guest" in lines
        assert "GUEST-BLOCK vda:65536:root-disk" in lines
    finally:
        own_host.stop(purge=True)


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    host = Libvirtd("hull-own", tmp_path)
    with pytest.raises(LibvirtdError, match="something else"):
        host.start()
    host.stop(purge=True)
    assert (tmp_path / "etc").is_dir()
