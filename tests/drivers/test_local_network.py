"""The local network driver on real libvirts: DHCP entries, races, conflicts; and what a real guest may and may not send."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hullwright.conf import opts
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.network.local.definition import HostEntry, bridge_name, network_name
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.drivers.virt.libvirt.driver import LibvirtDriver
from hullwright.objects.errors import HypervisorUnavailable, NetworkRefused
from hullwright.objects.hosts import HostRef
from hullwright.objects.networks import FixedIp, Network, NetworkRequest, Port, Subnet, Vif
from support.libvirtd import GuestImage, Libvirtd
from support.local_hosts import LibvirtHostUnderTest, new_network
from support.memory_stores import MemoryPortStore
from support.virt_hosts import VirtHost, guest_spec

pytestmark = pytest.mark.libvirt


@pytest.fixture
def network() -> Network:
    return new_network()


@pytest.fixture
def store(network: Network) -> MemoryPortStore:
    return MemoryPortStore(network)


@pytest.fixture
def driver(conf: Any, store: MemoryPortStore) -> LocalNetworkDriver:
    return LocalNetworkDriver(conf, store)


def allocate(driver: LocalNetworkDriver, network: Network, **changes: Any) -> tuple[str, Port]:
    instance = str(uuid.uuid4())
    [port] = driver.allocate(instance, "project", [NetworkRequest(str(uuid.uuid4()), network.id, **changes)])
    return instance, port


def entries(host: LibvirtHostUnderTest, network: Network) -> list[HostEntry]:
    return list(host.description(network).entries)


def address(port: Port) -> str:
    return port.fixed_ips[0].address


# --- DHCP entries


def test_two_guests_of_one_name_both_get_an_entry(real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network) -> None:
    made = [allocate(driver, network) for _ in range(2)]
    for instance, _ in made:
        driver.plug(real_host.ref, instance, "boat")
    names = [entry.name for entry in entries(real_host, network)]
    assert names == ["boat", "host-" + address(made[1][1]).replace(".", "-")]
    before = entries(real_host, network)
    for instance, _ in made:
        driver.plug(real_host.ref, instance, "boat")
    assert entries(real_host, network) == before


def test_an_older_claim_to_the_address_or_the_mac_gives_way(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, store: MemoryPortStore
) -> None:
    instance, port = allocate(driver, network)
    driver.plug(real_host.ref, instance, "old")
    # As after a crash that lost the unplug: the address now belongs to another MAC, and the old MAC to another address.
    store.ports[port.id] = replace(port, device_id=None)
    heir, theirs = allocate(driver, network, fixed_ip="10.0.0.1")
    store.ports[theirs.id] = replace(store.ports[theirs.id], fixed_ips=port.fixed_ips)
    driver.plug(real_host.ref, heir, "new")
    assert entries(real_host, network) == [HostEntry(theirs.mac_address, address(port), "new")]
    moved = replace(store.ports[theirs.id], fixed_ips=(FixedIp(network.subnets[0].id, address(port) + "9"),))
    store.ports[theirs.id] = moved
    driver.plug(real_host.ref, heir, "new")
    assert entries(real_host, network) == [HostEntry(theirs.mac_address, address(moved), "new")]


def test_an_entry_that_only_the_running_network_lost_is_put_back(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network
) -> None:
    libvirt = load_libvirt()
    instance, port = allocate(driver, network)
    driver.plug(real_host.ref, instance, "boat")
    before = entries(real_host, network)
    with LibvirtPool.shared().connection(real_host.ref, "meddle") as connection:
        connection.networkLookupByUUIDString(network.id).update(
            libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE,
            libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST,
            -1,
            before[0].to_xml(300),
            libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE,
        )
    assert entries(real_host, network) == []
    driver.plug(real_host.ref, instance, "boat")
    assert entries(real_host, network) == before == [HostEntry(port.mac_address, address(port), "boat")]


def test_conductors_of_several_processes_plug_on_one_host(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, tmp_path: Path
) -> None:
    code = """
        import json, sys
        from types import SimpleNamespace
        from hullwright.conf import opts
        from hullwright.drivers.network.local.driver import LocalNetworkDriver
        from hullwright.objects.hosts import HostRef
        from hullwright.objects.networks import Network, NetworkRequest
        from support.memory_stores import MemoryPortStore
        given = json.loads(sys.argv[1])
        store = MemoryPortStore(Network.from_dict(given["network"]))
        store._made = given["first"]
        driver = LocalNetworkDriver(opts.load([]), store)
        for number in range(5):
            instance = f"{given['first']}-{number}"
            driver.allocate(instance, "project", [NetworkRequest(instance, given["network"]["id"])])
            driver.plug(HostRef(**given["host"]), instance, "boat")
    """
    processes = []
    for first in (0, 50, 100):
        given = json.dumps({"network": network.to_dict(), "host": real_host.ref.to_dict(), "first": first})
        processes.append(subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), given], cwd=Path(__file__).parents[1]))
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    found = entries(real_host, network)
    assert len(found) == len({entry.mac for entry in found}) == len({entry.name for entry in found}) == 15


# --- Networks


@pytest.mark.parametrize("mode", ["nat", "route", "isolated", "open"])
def test_every_mode_of_network_can_be_used(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, store: MemoryPortStore, mode: str
) -> None:
    network = new_network(mode=mode, mtu=1400)
    store.networks[network.id] = network
    instance, port = allocate(driver, network)
    [vif] = driver.plug(real_host.ref, instance, "boat")
    assert (vif.kind, vif.source, vif.mtu) == ("network", network_name(network), 1400)
    assert real_host.plugged(network) == {(port.mac_address, address(port))}
    driver.unplug(real_host.ref, instance)
    assert real_host.plugged(network) == set()


def test_a_bridge_of_the_operators_is_used_as_it_is(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, store: MemoryPortStore
) -> None:
    network = new_network(mode="bridge", bridge="br-lan")
    store.networks[network.id] = network
    instance, _ = allocate(driver, network)
    [vif] = driver.plug(real_host.ref, instance, "boat")
    assert (vif.kind, vif.source, vif.filter) == ("bridge", "br-lan", "hullwright-1-ipv4")
    driver.unplug(real_host.ref, instance)
    assert real_host.description(network) is None


def test_a_bridge_network_without_a_bridge_is_an_error(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, store: MemoryPortStore
) -> None:
    network = new_network(mode="bridge")
    store.networks[network.id] = network
    instance, port = allocate(driver, network)
    with pytest.raises(NetworkRefused, match="names no bridge"):
        driver.plug(real_host.ref, instance, "boat")
    assert store.ports[port.id].host is None


def test_a_subnet_that_the_host_uses_already_is_an_error_and_leaves_nothing(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, store: MemoryPortStore
) -> None:
    driver.plug(real_host.ref, allocate(driver, network)[0], "boat")
    rival = replace(network, id=str(uuid.uuid4()))
    store.networks[rival.id] = rival
    instance, port = allocate(driver, rival)
    with pytest.raises(NetworkRefused, match=f"already in use by interface {bridge_name(network)}") as caught:
        driver.plug(real_host.ref, instance, "boat")
    assert caught.value.fields["port"] == port.id
    assert real_host.description(rival) is None
    assert store.ports[port.id].host is None


def test_what_is_left_of_a_deleted_network_makes_room_for_a_new_one(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, store: MemoryPortStore
) -> None:
    first, _ = allocate(driver, network)
    driver.plug(real_host.ref, first, "boat")
    heir = replace(network, id=str(uuid.uuid4()))
    store.networks[heir.id] = heir
    second, port = allocate(driver, heir)
    del store.networks[network.id]
    with pytest.raises(NetworkRefused, match="already in use"):  # a port is left on it
        driver.plug(real_host.ref, second, "boat")
    store.networks[network.id] = network
    driver.unplug(real_host.ref, first)
    with pytest.raises(NetworkRefused, match="already in use"):  # idle, but not deleted
        driver.plug(real_host.ref, second, "boat")
    del store.networks[network.id]
    driver.plug(real_host.ref, second, "boat")
    assert real_host.description(network) is None
    assert real_host.plugged(heir) == {(port.mac_address, address(port))}


def test_a_sweep_removes_deleted_networks_and_no_others(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, store: MemoryPortStore
) -> None:
    deleted, used = new_network(), new_network()
    store.networks |= {deleted.id: deleted, used.id: used}
    instances = {one.id: allocate(driver, one)[0] for one in (network, deleted, used)}
    for instance in instances.values():
        driver.plug(real_host.ref, instance, "boat")
    driver.unplug(real_host.ref, instances[network.id])
    driver.unplug(real_host.ref, instances[deleted.id])
    del store.networks[deleted.id], store.networks[used.id]
    assert driver.sweep(real_host.ref) == [deleted.id]
    assert driver.sweep(real_host.ref) == []
    assert real_host.description(deleted) is None
    assert real_host.description(network) is not None
    assert len(real_host.plugged(used)) == 1


def test_a_changed_mtu_reaches_an_idle_network_at_once_and_one_with_guests_later(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, store: MemoryPortStore
) -> None:
    first, _ = allocate(driver, network)
    driver.plug(real_host.ref, first, "boat")
    store.networks[network.id] = replace(network, mtu=1400)
    second, _ = allocate(driver, network)
    driver.plug(real_host.ref, second, "boat")
    assert real_host.description(network).mtu == 1500
    driver.unplug(real_host.ref, first)
    driver.unplug(real_host.ref, second)
    driver.plug(real_host.ref, second, "boat")
    assert real_host.description(network).mtu == 1400


def test_a_network_that_was_stopped_is_started(real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network) -> None:
    instance, port = allocate(driver, network)
    driver.plug(real_host.ref, instance, "boat")
    with LibvirtPool.shared().connection(real_host.ref, "meddle") as connection:
        connection.networkLookupByUUIDString(network.id).destroy()
    driver.plug(real_host.ref, instance, "boat")
    with LibvirtPool.shared().connection(real_host.ref, "look") as connection:
        found = connection.networkLookupByUUIDString(network.id)
        assert found.isActive()
        assert found.autostart()
    assert real_host.plugged(network) == {(port.mac_address, address(port))}


def test_a_new_subnet_reaches_an_idle_network_at_once_and_is_refused_under_guests(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network, store: MemoryPortStore
) -> None:
    first, _ = allocate(driver, network)
    driver.plug(real_host.ref, first, "boat")
    more = Subnet(str(uuid.uuid4()), network.id, "more", "10.213.77.0/24", gateway_ip="10.213.77.1")
    store.networks[network.id] = replace(network, subnets=(*network.subnets, more))
    second, _ = allocate(driver, network)
    with pytest.raises(NetworkRefused, match="have changed, and guests still use it"):
        driver.plug(real_host.ref, second, "boat")
    driver.unplug(real_host.ref, first)
    driver.plug(real_host.ref, second, "boat")
    assert "10.213.77.1/24" in real_host.description(network).addresses


def test_a_network_is_removed_on_demand_and_may_be_removed_again(
    real_host: LibvirtHostUnderTest, driver: LocalNetworkDriver, network: Network
) -> None:
    instance, _ = allocate(driver, network)
    driver.plug(real_host.ref, instance, "boat")
    driver.unplug(real_host.ref, instance)
    for _ in range(2):
        driver.remove_network(real_host.ref, network.id)
        assert real_host.description(network) is None
    driver.unplug(real_host.ref, instance)


def test_a_host_that_does_not_answer_is_told(driver: LocalNetworkDriver, network: Network, store: MemoryPortStore) -> None:
    silent = HostRef("silent", "qemu+unix:///system?socket=/nonexistent/libvirt-sock")
    instance, port = allocate(driver, network)
    for call in (lambda: driver.plug(silent, instance, "boat"), lambda: driver.unplug(silent, instance)):
        with pytest.raises(HypervisorUnavailable, match="silent"):
            call()
    assert store.ports[port.id].host is None


# --- Guests

USER_DATA = """#!/bin/sh
try() { if "$@" >/dev/null 2>&1; then echo "TRY-$label-PASSED"; else echo "TRY-$label-BLOCKED"; fi; }
label=REAL try ping -c 2 -W 20 {gateway}
label=ARP try arping -f -w 20 -I eth0 {gateway}
ip addr add {stranger}/24 dev eth0
label=IP-SPOOF try ping -c 2 -W 2 -I {stranger} {gateway}
label=ARP-SPOOF try arping -c 2 -w 3 -I eth0 -s {stranger} {gateway}
ip addr del {stranger}/24 dev eth0
ip link set eth0 down; ip link set eth0 address 52:54:00:aa:00:ff; ip link set eth0 up
ip addr add {own}/24 dev eth0 2>/dev/null; sleep 1
label=MAC-SPOOF try ping -c 2 -W 2 {gateway}
ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up; sleep 1
label=AGAIN try ping -c 2 -W 20 {gateway}
"""


def boot(host: VirtHost, image: GuestImage, vifs: list[Vif], user_data: bytes) -> str:
    spec = guest_spec(host.cache(image.qcow2.read_bytes(), "qcow2"), vifs=tuple(vifs))
    assert spec.config_drive_files is not None
    files = {**spec.config_drive_files, "openstack/latest/user_data": user_data}
    spec = replace(spec, config_drive_files=files)
    host.driver.spawn(spec)
    return spec.uuid


@pytest.mark.slow
@pytest.mark.parametrize("port_security", [True, False])
def test_a_guest_gets_its_address_and_can_use_no_other(
    real_host: LibvirtHostUnderTest,
    virt_host: VirtHost,
    libvirt_host: Libvirtd,
    guest_image: GuestImage,
    driver: LocalNetworkDriver,
    store: MemoryPortStore,
    port_security: bool,
) -> None:
    network = new_network(mode="nat", mtu=1450, port_security=port_security)
    store.networks[network.id] = network
    instance, port = allocate(driver, network)
    vifs = driver.plug(real_host.ref, instance, "boat")
    gateway = str(network.subnets[0].gateway_ip)
    stranger = address(port).rpartition(".")[0] + ".99"
    script = USER_DATA
    for name, value in {"gateway": gateway, "stranger": stranger, "own": address(port), "mac": port.mac_address}.items():
        script = script.replace("{" + name + "}", value)
    guest = boot(virt_host, guest_image, vifs, script.encode())
    log = virt_host.await_console(guest, b"GUEST-READY", seconds=120).decode()
    assert f"GUEST-DHCP eth0 mac={port.mac_address} ip={address(port)}/24 gw={gateway}" in log
    assert "TRY-REAL-PASSED" in log
    assert "TRY-ARP-PASSED" in log
    assert "TRY-AGAIN-PASSED" in log
    for spoof in ("IP-SPOOF", "ARP-SPOOF", "MAC-SPOOF"):
        assert f"TRY-{spoof}-{'BLOCKED' if port_security else 'PASSED'}" in log
    assert libvirt_host.answers_ping(address(port))


@pytest.mark.slow
def test_a_guest_that_moved_to_a_second_host_has_the_same_address_there(
    real_host: LibvirtHostUnderTest,
    other_real_host: LibvirtHostUnderTest,
    two_libvirt_hosts: tuple[Libvirtd, Libvirtd],
    virt_host: VirtHost,
    guest_image: GuestImage,
    driver: LocalNetworkDriver,
    network: Network,
    conf: Any,
) -> None:
    instance, port = allocate(driver, network)
    driver.plug(real_host.ref, instance, "boat")
    driver.unplug(real_host.ref, instance)
    vifs = driver.plug(other_real_host.ref, instance, "boat")
    other = replace(virt_host, driver=LibvirtDriver(other_real_host.ref, opts.load([], {"libvirt": virt_host.options})))
    guest = ""
    try:
        guest = boot(other, guest_image, vifs, b"")
        log = other.await_console(guest, b"GUEST-READY", seconds=120).decode()
        assert f"mac={port.mac_address} ip={address(port)}/24" in log
        assert two_libvirt_hosts[1].answers_ping(address(port))
    finally:
        other.driver.destroy(guest)
        with LibvirtPool.shared().connection(other_real_host.ref, "clean up") as connection:
            pool = connection.storagePoolLookupByName(virt_host.pool)
            pool.destroy()
            pool.undefine()
