"""Hosts to run the local network and volume drivers on: fake ones, and real libvirts; and what may be seen on them.

Not for: hypervisors; see virt_hosts.py and contracts/test_virt.py.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.network.local.definition import describe
from hullwright.objects.hosts import HostRef
from hullwright.objects.networks import Network, Subnet

from .libvirtd import Libvirtd

_octets = itertools.count(1)


def new_network(**changes: Any) -> Network:
    """A network with a subnet of its own, in mode open: libvirt leaves the firewall alone, which is quick."""
    network_id, prefix = str(uuid.uuid4()), f"10.214.{next(_octets)}"
    pool = (f"{prefix}.2", f"{prefix}.254")
    subnet = Subnet(str(uuid.uuid4()), network_id, "subnet", f"{prefix}.0/24", gateway_ip=f"{prefix}.1", allocation_pools=(pool,))
    return Network(**{"id": network_id, "name": "network", "mode": "open", "subnets": (subnet,), **changes})


class HostUnderTest(Protocol):
    """A host and what can be seen on it from outside of the drivers."""

    ref: HostRef

    def plugged(self, network: Network) -> set[tuple[str, str]]:
        """MAC and address of each port that the host is prepared for; on a fake host instance uuid and port id."""
        ...

    def volume_files(self) -> set[str]:
        """Names of all files of volumes."""
        ...


@dataclass
class FakeHostUnderTest:
    """A fake host."""

    ref: HostRef
    state_path: Path

    @property
    def host(self) -> FakeHost:
        return FakeHost(self.ref, self.state_path)

    def plugged(self, network: Network) -> set[tuple[str, str]]:
        plugs = self.host.things.all("plugs")
        return {(uuid, port) for uuid, plug in plugs.items() for port in plug["ports"]}

    def volume_files(self) -> set[str]:
        return set(self.host.things.all("volumes"))


@dataclass
class LibvirtHostUnderTest:
    """A real libvirt."""

    ref: HostRef
    pool_name: str
    networks_before: set[str] = field(default_factory=set)

    def description(self, network: Network) -> Any:
        """What libvirt says of a network; None when it has none."""
        libvirt = load_libvirt()
        with LibvirtPool.shared().connection(self.ref, "look") as connection:
            try:
                return describe(connection.networkLookupByUUIDString(network.id).XMLDesc())
            except libvirt.libvirtError:
                return None

    def plugged(self, network: Network) -> set[tuple[str, str]]:
        description = self.description(network)
        return set() if description is None else {(entry.mac, entry.address) for entry in description.entries}

    def volume_files(self) -> set[str]:
        with LibvirtPool.shared().connection(self.ref, "look") as connection:
            try:
                pool = connection.storagePoolLookupByName(self.pool_name)
            except load_libvirt().libvirtError:
                return set()
            pool.refresh(0)
            return set(pool.listVolumes())

    def network_names(self) -> set[str]:
        with LibvirtPool.shared().connection(self.ref, "look") as connection:
            return {network.name() for network in connection.listAllNetworks()}

    def clean(self) -> None:
        """Remove the networks that the test made, and its pool."""
        libvirt = load_libvirt()
        with LibvirtPool.shared().connection(self.ref, "clean up") as connection:
            for network in connection.listAllNetworks():
                if network.name() not in self.networks_before:
                    if network.isActive():
                        network.destroy()
                    network.undefine()
            try:
                pool = connection.storagePoolLookupByName(self.pool_name)
            except libvirt.libvirtError:
                return
            if pool.isActive():
                pool.destroy()
            pool.undefine()


def _on_libvirt(daemon: Libvirtd, pool_name: str) -> Iterator[LibvirtHostUnderTest]:
    host = LibvirtHostUnderTest(HostRef(daemon.name, daemon.uri), pool_name)
    host.networks_before = host.network_names()
    yield host
    host.clean()


@pytest.fixture
def volume_pool(conf: Any) -> str:
    """A pool name of the test's own, in force in `conf`."""
    name = f"volumes-{uuid.uuid4().hex[:8]}"
    conf.set_override("pool_name", name, group="volume")
    return name


@pytest.fixture
def fake_host(tmp_path: Path) -> FakeHostUnderTest:
    """A fake host."""
    return FakeHostUnderTest(HostRef("fake-a", f"fake://{tmp_path}/fake-a", "fake"), tmp_path)


@pytest.fixture
def other_fake_host(tmp_path: Path) -> FakeHostUnderTest:
    """Another fake host."""
    return FakeHostUnderTest(HostRef("fake-b", f"fake://{tmp_path}/fake-b", "fake"), tmp_path)


@pytest.fixture
def real_host(libvirt_host: Libvirtd, volume_pool: str) -> Iterator[LibvirtHostUnderTest]:
    """A real libvirt; what the test made on it is removed after it."""
    yield from _on_libvirt(libvirt_host, volume_pool)


@pytest.fixture
def other_real_host(two_libvirt_hosts: tuple[Libvirtd, Libvirtd], volume_pool: str) -> Iterator[LibvirtHostUnderTest]:
    """Another real libvirt."""
    yield from _on_libvirt(two_libvirt_hosts[1], volume_pool)
