"""Guests on a real host: made once, whatever died in between; powered; gone without a trace.

Over 400 lines: a guest's whole life on a real host, with the hosts that one module's fixtures start once.
"""

import contextlib
import ipaddress
import os
import platform
import signal
import subprocess
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from hullwright.conf import opts
from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.virt.libvirt import cpu_monitor, disks, domain_xml, domains
from hullwright.drivers.virt.libvirt.disks import MIB
from hullwright.drivers.virt.libvirt.driver import LibvirtDriver
from hullwright.objects import fence
from hullwright.objects.disks import names as names_on
from hullwright.objects.errors import (
    BuildCancelled,
    FlavorDiskTooSmall,
    GuestNameTaken,
    GuestRefused,
    HostDiskFull,
    HypervisorError,
    HypervisorUnavailable,
    ImageUnacceptable,
    InstanceNotFound,
    LeaseLost,
)
from hullwright.objects.guests import GuestSpec, GuestVolume
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import CachedImage
from hullwright.objects.networks import Vif
from hullwright.objects.states import PowerState
from hullwright.objects.volumes import Connection
from support.forwarder import forwarded
from support.libvirtd import GuestImage, Libvirtd
from support.virt_hosts import MakeVirtHost, VirtHost, guest_spec, no_progress


@pytest.fixture
def image(virt_host: VirtHost, guest_image: GuestImage) -> CachedImage:
    return virt_host.cache(guest_image.qcow2.read_bytes(), "qcow2")


def of_guest(host: VirtHost, spec: GuestSpec) -> list[str]:
    return [name.removeprefix(spec.uuid) for name in host.volumes() if name.startswith(spec.uuid)]


def names(host: VirtHost) -> list[str]:
    return [guest.name for guest in host.driver.guests()]


def test_facts_tell_what_the_host_is(virt_host: VirtHost, libvirt_host: Libvirtd) -> None:
    facts = virt_host.driver.facts()
    assert facts.hostname == libvirt_host.name
    assert facts.vcpus == os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    assert abs(facts.memory_mb - pages) <= 1
    assert facts.disk_gb >= facts.disk_free_gb > 0
    assert facts.hypervisor_version > 7_000_000
    assert "fpu" in facts.cpu_features
    assert "qemu" in facts.virt_types
    assert "pc" in facts.machine_types
    assert facts.cpu_arch == platform.machine()
    assert facts.cpu_model
    assert facts.hypervisor_type == "QEMU"
    assert set(facts.disk_formats) >= {"raw", "qcow2"}
    assert ipaddress.ip_address(facts.host_ip)
    assert facts.extra["pool"]


def test_how_busy_the_cpus_are_is_told_when_it_is_asked_for(virt_host: VirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_monitor, "_SHORTEST_SECONDS", 0.0)
    assert virt_host.driver.facts().metrics == {}
    driver = LibvirtDriver(virt_host.ref, opts.load([], {"libvirt": virt_host.options, "compute": {"compute_monitors": "cpu.virt_driver"}}))
    times = [f"cpu.{kind}.time" for kind in ("kernel", "idle", "user", "iowait")]
    first = driver.facts().metrics
    shares = [f"cpu.{kind}.percent" for kind in ("kernel", "idle", "user", "iowait")]
    assert sorted(first) == sorted(["cpu.frequency", "cpu.percent", *times, *shares])
    begun, until = time.process_time(), time.monotonic() + 60
    while time.process_time() - begun < 1.5:  # seconds in which one CPU is busy in user space, with us
        assert time.monotonic() < until
        sum(range(1000))
    second = driver.facts().metrics
    assert sorted(second) == sorted(["cpu.frequency", "cpu.percent", *times, *shares])
    assert min(first["cpu.frequency"], second["cpu.frequency"]) >= 0
    assert second["cpu.user.time"] - first["cpu.user.time"] > 10**9  # ns
    assert abs(sum(second[share] for share in shares) - 100) <= len(shares)  # each is rounded
    assert abs(second["cpu.percent"] + second["cpu.idle.percent"] - 100) <= 1
    assert second["cpu.user.percent"] >= 50 // (os.cpu_count() or 1)
    monkeypatch.setattr(cpu_monitor, "_SHORTEST_SECONDS", 1e9)
    at_once = driver.facts().metrics
    assert [at_once[share] for share in shares] == [second[share] for share in shares]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 0, 0, 0), (10, 60, 20, 10), {"kernel": 10, "idle": 60, "user": 20, "iowait": 10, "": 40}),
        ((10, 60, 20, 10), (10, 60, 20, 10), {}),  # nothing happened
        ((10, 60, 20, 10), (1, 500, 2, 1), {}),  # the host has booted
        ((0, 0, 0, 10), (50, 0, 51, 9), {"kernel": 50, "idle": 0, "user": 51, "iowait": 0, "": 100}),  # counters of waiting go back
    ],
)
def test_shares_of_cpu_time_are_what_the_counters_grew_by(before, after, expected) -> None:
    then, now = (dict(zip(cpu_monitor.KINDS, numbers, strict=True)) for numbers in (before, after))
    told = {f"cpu.{kind}.percent" if kind else "cpu.percent": share for kind, share in expected.items()}
    assert cpu_monitor.shares(then, now) == told


def test_kvm_is_told_only_where_the_cpu_has_the_extension(virt_host: VirtHost) -> None:
    facts = virt_host.driver.facts()
    extended = {"vmx", "svm"} & set(facts.cpu_features)
    assert ("kvm" in facts.virt_types) <= bool(extended)
    with open("/proc/cpuinfo") as file:
        assert bool(extended) == bool({"vmx", "svm"} & set(file.read().split()))


@pytest.mark.parametrize(
    ("options", "virt_types", "has", "lacks"),
    [
        ({"virt_type": "qemu"}, ("qemu",), (), ("fpu",)),
        ({"virt_type": "qemu", "cpu_mode": "custom", "cpu_model": "Nehalem"}, ("qemu",), (), ("fpu",)),
        ({"virt_type": "kvm"}, ("kvm", "qemu"), ("fpu",), ()),
        ({"virt_type": "kvm", "cpu_mode": "custom", "cpu_model": "Nehalem"}, ("kvm", "qemu"), ("sse4.2",), ("avx2",)),
        ({"virt_type": "kvm", "cpu_mode": "custom", "cpu_model": "unheard-of"}, ("kvm", "qemu"), (), ("fpu",)),
        ({"virt_type": "kvm", "cpu_mode": "none"}, ("kvm", "qemu"), (), ("fpu",)),
    ],
)
def test_facts_tell_the_guests_that_the_options_make(make_virt_host: MakeVirtHost, options, virt_types, has, lacks) -> None:
    facts = make_virt_host(**options).driver.facts()
    assert facts.virt_types == virt_types
    assert set(has) <= set(facts.guest_cpu)
    assert not set(lacks) & set(facts.guest_cpu)
    assert "fpu" in facts.cpu_features


def test_a_guest_boots_with_all_its_disks_and_lives_a_life(virt_host: VirtHost, image: CachedImage) -> None:
    driver = virt_host.driver
    user_data = b"#!/bin/sh\necho USER-DATA-RAN\n"
    spec = guest_spec(image, swap_mb=16, ephemeral_gb=1)
    assert spec.config_drive_files is not None
    files = {**spec.config_drive_files, "openstack/latest/user_data": user_data}
    spec = guest_spec(image, uuid=spec.uuid, swap_mb=16, ephemeral_gb=1, config_drive_files=files)
    driver.spawn(spec)
    log = virt_host.await_console(spec.uuid, b"GUEST-BLOCK")
    assert b"GUEST-READY hostname=boat" in log
    assert b"USER-DATA-RAN" in log
    assert b"vda:2097152: vdb:2097152: vdc:32768:" in log  # sectors of 512 bytes
    assert of_guest(virt_host, spec) == ["_console.log", "_disk", "_disk.config", "_disk.eph0", "_disk.swap"]
    assert driver.leftovers() == [spec.uuid]
    assert driver.power_state(spec.uuid) is PowerState.RUNNING

    driver.spawn(spec)
    assert names(virt_host).count(spec.name) == 1

    driver.power_off(spec.uuid, timeout_seconds=60)
    assert driver.power_state(spec.uuid) is PowerState.SHUTDOWN
    log = driver.console_log(spec.uuid)  # of a guest that is off: it grows no more
    assert b"GUEST-POWEROFF" in log, "it was asked, not pulled"
    assert driver.console_log(spec.uuid, 7) == log[-7:]
    driver.power_off(spec.uuid)
    driver.power_on(spec.uuid)
    driver.power_on(spec.uuid)
    virt_host.await_console(spec.uuid, b"GUEST-NICS", times=2)
    driver.reboot(spec.uuid, hard=False)
    assert driver.power_state(spec.uuid) is PowerState.RUNNING
    assert driver.console_log(spec.uuid).count(b"GUEST-POWEROFF") == 2
    driver.reboot(spec.uuid, hard=True)
    driver.power_off(spec.uuid, timeout_seconds=0)
    assert driver.power_state(spec.uuid) is PowerState.SHUTDOWN

    # What libvirt's log daemon leaves when it turns a log over.
    (virt_host.directory / f"{spec.uuid}_console.log.0").write_text("older")
    driver.destroy(spec.uuid)
    assert spec.name not in names(virt_host)
    assert virt_host.volumes() == [f"base-{image.image_id}", f"base-{image.image_id}.ok"]
    assert driver.power_state(spec.uuid) is None
    assert driver.console_log(spec.uuid) == b""
    driver.destroy(spec.uuid)


def test_a_raw_copy_boots_from_kernel_and_ramdisk_with_a_volume_on_q35(make_virt_host: MakeVirtHost, guest_image: GuestImage) -> None:
    host = make_virt_host(images_type="raw", machine_type="q35", vnc_enabled=False)
    host.driver.facts()  # makes the pool
    volume_path = host.directory / "volume"
    with volume_path.open("wb") as file:
        file.truncate(8 * MIB)
    root = host.cache(guest_image.qcow2.read_bytes(), "qcow2")
    volume_id = str(uuid.uuid4())
    connection = Connection(volume_id, "file", {"path": str(volume_path), "format": "raw"}, serial=volume_id)
    spec = guest_spec(
        root,
        kernel=host.cache(guest_image.kernel.read_bytes(), "aki"),
        ramdisk=host.cache(guest_image.ramdisk.read_bytes(), "ari"),
        volumes=(GuestVolume(connection, "vdb"),),
        image_properties={"os_command_line": "console=ttyS0 quiet", "hw_disk_bus": "scsi"},
    )
    host.driver.spawn(spec)
    told = subprocess.run(
        ["qemu-img", "info", "-U", str(host.directory / f"{spec.uuid}_disk")], capture_output=True, text=True, check=True
    ).stdout
    assert "file format: raw" in told
    assert "backing file" not in told
    log = host.await_console(spec.uuid, b"GUEST-BLOCK")
    assert b"GUEST-DATASOURCE configdrive uuid=" in log, "the config drive is found on the SCSI bus"
    # virtio-blk has twenty bytes for a serial.
    assert b"vda:16384:" + volume_id[:20].encode() in log
    assert b"sda:2097152:" in log
    host.driver.destroy(spec.uuid)
    assert volume_path.exists(), "volumes are not ours to delete"


@pytest.mark.parametrize(
    ("dies_at", "left"),
    [
        ("disks.make_console_log", None),
        ("domains.start", PowerState.SHUTDOWN),
        ("resume", PowerState.PAUSED),
    ],
)
def test_a_spawn_that_was_killed_is_finished_by_the_next(
    virt_host: VirtHost, image: CachedImage, dies_at: str, left: PowerState | None
) -> None:
    spec = guest_spec(image)
    code = (
        "from hullwright.drivers.virt.libvirt import disks, domains\n"
        "from hullwright.objects.guests import GuestSpec\n"
        "import libvirt\n"
        "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "at = arguments['dies_at']\n"
        "if at == 'resume': libvirt.virDomain.resume = die\n"
        "else: setattr({'disks': disks, 'domains': domains}[at.split('.')[0]], at.split('.')[1], die)\n"
        "spec = GuestSpec.from_dict(arguments['spec'])\n"
        "driver.spawn(spec)\n"
    )
    plain = {**spec.to_dict(), "config_drive_files": None}
    assert virt_host.child(code, {"spec": plain, "dies_at": dies_at}).end()[0] == -signal.SIGKILL
    assert virt_host.driver.power_state(spec.uuid) is left
    assert virt_host.driver.leftovers() == [spec.uuid]
    virt_host.driver.spawn(spec)
    assert virt_host.driver.power_state(spec.uuid) is PowerState.RUNNING
    assert names(virt_host).count(spec.name) == 1
    virt_host.driver.destroy(spec.uuid)
    assert of_guest(virt_host, spec) == []


def test_disks_that_a_dead_spawn_left_wrong_are_made_anew(virt_host: VirtHost, image: CachedImage) -> None:
    spec = guest_spec(image)
    (virt_host.directory / f"{spec.uuid}_disk").write_bytes(b"half a header")
    (virt_host.directory / f"{spec.uuid}_disk.config").write_bytes(b"short")
    assert len(of_guest(virt_host, spec)) == 2
    virt_host.driver.spawn(spec)
    assert virt_host.driver.power_state(spec.uuid) is PowerState.RUNNING
    assert (virt_host.directory / f"{spec.uuid}_disk").read_bytes()[:4] == b"QFI\xfb"


def test_two_spawns_at_once_make_one_guest(virt_host: VirtHost, image: CachedImage) -> None:
    spec = guest_spec(image)
    failures: list[BaseException] = []

    def spawn() -> None:
        try:
            virt_host.driver.spawn(spec)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=spawn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert names(virt_host).count(spec.name) == 1
    assert virt_host.driver.power_state(spec.uuid) is PowerState.RUNNING


def test_a_name_that_another_guest_has_is_told_as_such(virt_host: VirtHost, image: CachedImage) -> None:
    first, second = guest_spec(image, name="instance-taken"), guest_spec(image, name="instance-taken")
    virt_host.driver.spawn(first)
    with pytest.raises(GuestNameTaken) as caught:
        virt_host.driver.spawn(second)
    assert caught.value.text == f"Host {virt_host.ref.name} has another guest named instance-taken, with uuid {first.uuid}"
    virt_host.driver.destroy(second.uuid)
    assert virt_host.driver.power_state(first.uuid) is PowerState.RUNNING
    assert virt_host.driver.leftovers() == [first.uuid]


def test_every_kind_of_device_is_valid_xml_to_libvirt(virt_host: VirtHost, image: CachedImage) -> None:
    rbd = {"name": "p/v", "hosts": [["192.0.2.1", 6789]], "auth_username": "u", "secret_uuid": str(uuid.uuid4())}
    nbd = {"host": "192.0.2.1", "port": 10809, "export": "v"}
    iscsi = {"portal": "192.0.2.1:3260", "iqn": "iqn.2004-10.example:v", "lun": 1}
    filtered = Vif("p", "52:54:00:00:00:01", "network", "n", mtu=1450, filter="f", filter_parameters=(("IP", "192.0.2.5"),))
    spec = guest_spec(
        image,
        display_name="<&>\n",
        vifs=(filtered, Vif("q", "52:54:00:00:00:02", "bridge", "br0")),
        volumes=(
            GuestVolume(Connection("a", "rbd", rbd), "vdb"),
            GuestVolume(Connection("b", "nbd", nbd, read_only=True), "vdc"),
            GuestVolume(Connection("c", "iscsi", iscsi), "sda", bus="scsi"),
            GuestVolume(Connection("d", "block", {"path": "/dev/null"}), "", boot_index=1),
        ),
        image_properties={"hw_machine_type": "q35", "hw_cdrom_bus": "sata"},
    )
    libvirt = load_libvirt()
    with LibvirtPool.shared().connection(virt_host.ref, "define") as connection:
        xml = virt_host.driver._make_disks(connection, spec, no_progress)
        domain = connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        kept = domain.XMLDesc(0)
    assert "<title>&lt;&amp;&gt; </title>" in kept
    assert "iqn.2004-10.example:v/1" in kept
    assert [guest.ours for guest in virt_host.driver.guests() if guest.uuid == spec.uuid] == [True]


def test_an_image_that_does_not_fit_makes_nothing(virt_host: VirtHost, image: CachedImage) -> None:
    huge = CachedImage(image.image_id, image.path, "qcow2", image.size_bytes, 5 * 1024**3)
    spec = guest_spec(huge)
    with pytest.raises(FlavorDiskTooSmall):
        virt_host.driver.spawn(spec)
    assert virt_host.driver.leftovers() == []


def test_a_copy_that_fills_the_disk_says_so_and_leaves_nothing(
    make_virt_host: MakeVirtHost, small_directory: Path, guest_image: GuestImage
) -> None:
    host = make_virt_host(pool_path=str(small_directory), images_type="raw")
    spec = guest_spec(host.cache(guest_image.qcow2.read_bytes(), "qcow2"))
    with pytest.raises(HostDiskFull):
        host.driver.spawn(spec)
    assert host.driver.leftovers() == []
    assert host.driver.power_state(spec.uuid) is None


def test_a_host_on_the_network_is_used_through_libvirt_alone(
    make_virt_host: MakeVirtHost, guest_image: GuestImage, libvirt_host: Libvirtd
) -> None:
    with forwarded(f"{libvirt_host.directory}/run/libvirt-sock") as way:
        host = make_virt_host(uri=way.uri)
        spec = guest_spec(host.cache(guest_image.qcow2.read_bytes(), "qcow2"))
        host.driver.spawn(spec)
        host.await_console(spec.uuid, b"SYSLINUX")
        assert host.driver.facts().host_ip == "127.0.0.1"
        host.driver.destroy(spec.uuid)
        assert host.driver.leftovers() == []


def test_a_spawn_that_libvirt_refuses_says_what_and_where_and_is_undone(virt_host: VirtHost, image: CachedImage) -> None:
    spec = guest_spec(image, vifs=(Vif("p", "52:54:00:00:00:01", "network", "no-such-network"),))
    with pytest.raises(HypervisorError) as caught:
        virt_host.driver.spawn(spec)
    assert caught.value.fields["host"] == virt_host.ref.name
    assert spec.name in str(caught.value.fields["operation"])
    assert "no-such-network" in str(caught.value.fields["reason"])
    virt_host.driver.destroy(spec.uuid)
    assert virt_host.driver.power_state(spec.uuid) is None
    assert virt_host.driver.leftovers() == []


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"hw_video_model": "gop"}, "video model 'gop'"),
        ({"hw_cdrom_bus": "virtio"}, "ejectable media"),
        ({"hw_machine_type": "isapc"}, "PCI"),
        ({"hw_vif_model": "virtoi"}, "'virtoi' is not a valid device model name"),
    ],
)
def test_a_shape_that_libvirt_or_qemu_refuses_is_not_the_hosts_fault(
    virt_host: VirtHost, image: CachedImage, properties: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_add = domain_xml._interface

    def add_without_a_host_network(devices: ET.Element, vif: Vif, asked: Mapping[str, str]) -> None:
        really_add(devices, vif, asked)
        card = devices.find("interface")
        assert card is not None
        card.set("type", "user")
        card.remove(next(card.iter("source")))

    monkeypatch.setattr(domain_xml, "_interface", add_without_a_host_network)
    spec = guest_spec(image, image_properties=properties, vifs=(Vif("p", "52:54:00:00:00:01", "network", "none"),))
    with pytest.raises(GuestRefused) as caught:
        virt_host.driver.spawn(spec)
    assert reason in caught.value.text
    assert caught.value.fields["host"] == virt_host.ref.name
    virt_host.driver.destroy(spec.uuid)
    assert virt_host.driver.leftovers() == []


@pytest.mark.parametrize("with_ramdisk", [False, True])
def test_a_kernel_that_is_none_is_the_images_fault(
    virt_host: VirtHost, image: CachedImage, guest_image: GuestImage, with_ramdisk: bool
) -> None:
    kernel = virt_host.cache(bytes(512), "aki")
    ramdisk = virt_host.cache(guest_image.ramdisk.read_bytes(), "ari") if with_ramdisk else None
    spec = guest_spec(image, kernel=kernel, ramdisk=ramdisk)
    with pytest.raises(ImageUnacceptable, match="QEMU cannot load it") as caught:
        virt_host.driver.spawn(spec)
    assert caught.value.fields["image"] == kernel.image_id
    virt_host.driver.destroy(spec.uuid)


def test_a_plain_guest_that_is_refused_is_the_hosts_fault(make_virt_host: MakeVirtHost, guest_image: GuestImage) -> None:
    host = make_virt_host(machine_type="isapc")  # nothing that an image asked for
    spec = guest_spec(host.cache(guest_image.qcow2.read_bytes(), "qcow2"))
    with pytest.raises(HypervisorError) as caught:
        host.driver.spawn(spec)
    assert not isinstance(caught.value, GuestRefused)
    host.driver.destroy(spec.uuid)


@pytest.mark.parametrize("bus", ["scsi", "sata", "ide", "usb"])
def test_guests_start_on_every_bus_with_config_drive_and_volumes(virt_host: VirtHost, image: CachedImage, bus: str) -> None:
    count = 2 if bus == "ide" else 20  # more than one controller has room for
    volumes = []
    for name in islice(names_on(bus), 1, count + 1):
        path = virt_host.directory / f"volume-{name}"
        path.write_bytes(bytes(MIB))
        volumes.append(GuestVolume(Connection(name, "file", {"path": str(path), "format": "raw"}, serial=name), name, bus))
    spec = guest_spec(image, image_properties={"hw_disk_bus": bus}, volumes=tuple(volumes))
    virt_host.driver.spawn(spec)
    assert virt_host.driver.power_state(spec.uuid) is PowerState.RUNNING


def test_a_foreign_guest_is_seen_and_never_touched(virt_host: VirtHost) -> None:
    foreign = str(uuid.uuid4())
    xml = (
        f"<domain type='qemu'><name>foreign-{foreign[:8]}</name><uuid>{foreign}</uuid><memory unit='MiB'>16</memory>"
        "<os><type>hvm</type></os></domain>"
    )
    with LibvirtPool.shared().connection(virt_host.ref, "define") as connection:
        domain = connection.defineXML(xml)
    try:
        assert [guest.ours for guest in virt_host.driver.guests() if guest.uuid == foreign] == [False]
        with pytest.raises(HypervisorError, match="not made by Hullwright"):
            virt_host.driver.destroy(foreign)
        assert virt_host.driver.power_state(foreign) is PowerState.SHUTDOWN
        assert foreign not in virt_host.driver.leftovers()
    finally:
        domain.undefine()


def test_destroying_takes_what_it_finds(virt_host: VirtHost, make_virt_host: MakeVirtHost) -> None:
    stranger = str(uuid.uuid4())
    make_virt_host().driver.destroy(stranger)  # a host without a pool
    virt_host.driver.facts()
    other = str(uuid.uuid4())
    for name in (f"{stranger}_disk", f"{other}_disk"):
        (virt_host.directory / name).write_bytes(b"x")
    virt_host.driver.destroy(stranger)
    assert virt_host.volumes() == [f"{other}_disk"]


def test_calls_about_a_guest_that_is_not_there_say_so(virt_host: VirtHost) -> None:
    nobody = str(uuid.uuid4())
    assert virt_host.driver.power_state(nobody) is None
    assert virt_host.driver.console_log(nobody) == b""
    with pytest.raises(InstanceNotFound):
        virt_host.driver.power_on(nobody)


def test_a_restart_of_libvirtd_is_survived_by_the_next_call(virt_host: VirtHost, image: CachedImage, libvirt_host: Libvirtd) -> None:
    spec = guest_spec(image)
    virt_host.driver.spawn(spec)
    libvirt_host.kill()
    try:
        with pytest.raises(HypervisorUnavailable) as caught:
            virt_host.driver.power_state(spec.uuid)
    finally:
        libvirt_host.start()
    assert caught.value.fields["host"] == virt_host.ref.name
    assert virt_host.driver.power_state(spec.uuid) is PowerState.RUNNING


def test_a_host_that_does_not_answer_is_given_up_in_time(libvirt_host: Libvirtd) -> None:
    pool = LibvirtPool(connect_seconds=0.5)
    assert libvirt_host.pid is not None
    os.kill(libvirt_host.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        reference = HostRef("stopped", libvirt_host.uri)
        with pytest.raises(HypervisorUnavailable, match=r"no answer in 0\.5 seconds"), pool.connection(reference, "look"):
            pass
        assert time.monotonic() - began < 10
    finally:
        os.kill(libvirt_host.pid, signal.SIGCONT)


@pytest.mark.parametrize("is_shared", [True, False])
def test_disks_that_hosts_share_stay_when_the_guest_lives_on_another(
    make_virt_host: MakeVirtHost, guest_image: GuestImage, is_shared: bool
) -> None:
    host = make_virt_host(pool_shared=is_shared)
    spec = guest_spec(host.cache(guest_image.qcow2.read_bytes(), "qcow2"))
    host.driver.spawn(spec)
    host.driver.destroy(spec.uuid, lives_elsewhere=True)
    assert spec.name not in names(host)
    assert (f"{spec.uuid}_disk" in host.volumes()) == is_shared
    host.driver.destroy(spec.uuid)
    assert of_guest(host, spec) == []


@pytest.fixture
def heard_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy of a disk is over before somebody has heard how far it is, however quick the host is."""
    monkeypatch.setattr(storage, "COPY_POLL_SECONDS", 0.002)
    copy_volume = storage.copy_volume

    def copy(pool: Any, name: str, description: str, source: Any, lend: storage.Lend, progress: storage.Progress) -> Any:
        heard = threading.Event()

        @contextlib.contextmanager
        def lend_until_heard() -> Iterator[Any]:
            with lend() as connection:
                yield connection
                assert heard.wait(60)

        def hear(done: int, total: int) -> None:
            heard.set()
            progress(done, total)

        return copy_volume(pool, name, description, source, lend_until_heard, hear)

    monkeypatch.setattr(storage, "copy_volume", copy)


@pytest.mark.usefixtures("heard_copies")
def test_a_disk_that_is_copied_in_full_tells_how_far_it_is(make_virt_host: MakeVirtHost) -> None:
    host = make_virt_host(images_type="raw")
    data = os.urandom(MIB) * 96
    spec = guest_spec(host.cache(data, "raw"))
    told: list[tuple[int, int]] = []
    host.driver.spawn(spec, lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {len(data)}
    assert max(done for done, _ in told) > 0
    assert (host.directory / f"{spec.uuid}_disk").read_bytes()[: len(data)] == data
    host.driver.destroy(spec.uuid)


@pytest.mark.usefixtures("heard_copies")
def test_a_copy_that_nobody_wants_any_more_is_waited_for_and_deleted(make_virt_host: MakeVirtHost) -> None:
    host = make_virt_host(images_type="raw")
    spec = guest_spec(host.cache(os.urandom(MIB) * 96, "raw"))

    def enough(_done: int, _total: int) -> None:
        raise BuildCancelled(instance=spec.uuid)

    with pytest.raises(BuildCancelled):
        host.driver.spawn(spec, enough)
    assert (host.directory / f"{spec.uuid}_disk").exists(), "the copy had not begun when it was given up"
    host.driver.destroy(spec.uuid)
    assert of_guest(host, spec) == []


class Lapsing:
    """A fence whose job is taken after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self.until:
            raise LeaseLost("taken")

    def prove(self, connection: object) -> None:
        self.check()


def test_who_lost_the_job_while_waiting_for_a_guest_does_not_pull_its_plug(virt_host: VirtHost, image: CachedImage) -> None:
    spec = guest_spec(image)
    virt_host.driver.spawn(spec)  # it is still booting, and does not hear the power button for a while
    with fence.standing_behind(Lapsing(0.3)), pytest.raises(LeaseLost):
        virt_host.driver.power_off(spec.uuid, 0.6)
    assert virt_host.driver.power_state(spec.uuid) is PowerState.RUNNING


@pytest.mark.parametrize("act", ["stop", "remove", "start"])
def test_nothing_is_done_to_a_domain_once_the_job_is_taken(virt_host: VirtHost, image: CachedImage, act: str) -> None:
    spec = guest_spec(image)
    virt_host.driver.spawn(spec)
    if act == "start":
        virt_host.driver.power_off(spec.uuid, 0)
    before = virt_host.driver.power_state(spec.uuid)
    with LibvirtPool.shared().connection(virt_host.ref, "look") as connection:
        domain = domains.find(connection, spec.uuid)
        with fence.standing_behind(Lapsing(0.0)), pytest.raises(LeaseLost):
            getattr(domains, act)(domain)
    assert virt_host.driver.power_state(spec.uuid) is before


def test_no_disk_is_deleted_or_made_once_the_job_is_taken(virt_host: VirtHost, image: CachedImage) -> None:
    spec = guest_spec(image)
    virt_host.driver.spawn(spec)
    before = virt_host.volumes()
    with LibvirtPool.shared().connection(virt_host.ref, "look") as connection:
        pool = connection.storagePoolLookupByName(virt_host.pool)
        with fence.standing_behind(Lapsing(0.0)):
            with pytest.raises(LeaseLost):
                disks.delete_all(pool, spec.uuid)
            with pytest.raises(LeaseLost):
                storage.make_volume(pool, f"{spec.uuid}_late", MIB)
    assert virt_host.volumes() == before
