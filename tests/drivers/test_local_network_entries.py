"""DHCP entries on a host that was silent when their ports went: the next unplug or sweep finds them, and takes nobody else's."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.objects.networks import Network, NetworkRequest, Port
from support.local_hosts import LibvirtHostUnderTest, new_network
from support.memory_stores import MemoryPortStore

pytestmark = pytest.mark.libvirt


class World:
    """A network with two plugged ports, one of which has lost its record."""

    def __init__(self, conf: Any, host: LibvirtHostUnderTest) -> None:
        self.host = host
        self.network: Network = new_network()
        self.store = MemoryPortStore(self.network)
        self.driver = LocalNetworkDriver(conf, self.store)
        self.kept = self._plug()[1]
        self.instance, self.gone = self._plug()
        self.store.release(self.instance)

    def _plug(self) -> tuple[str, Port]:
        instance = str(uuid.uuid4())
        [port] = self.driver.allocate(instance, "project", [NetworkRequest(str(uuid.uuid4()), self.network.id)])
        self.driver.plug(self.host.ref, instance, "boat")
        return instance, port

    def macs(self) -> set[str]:
        """Of the entries that the host has."""
        description = self.host.description(self.network)
        return {entry.mac for entry in description.entries} if description is not None else set()


@pytest.fixture
def world(conf: Any, real_host: LibvirtHostUnderTest) -> World:
    """See the class."""
    return World(conf, real_host)


def test_a_late_unplug_removes_the_entries_of_ports_that_are_gone_and_no_others(world: World) -> None:
    assert world.macs() == {world.kept.mac_address, world.gone.mac_address}
    for _ in range(2):
        world.driver.unplug(world.host.ref, world.instance)
        assert world.macs() == {world.kept.mac_address}


def test_entries_that_are_left_are_told_and_swept(world: World) -> None:
    assert world.driver.entries_left(world.host.ref) == [f"{world.network.id} {world.gone.mac_address}"]
    assert world.driver.sweep(world.host.ref) == []
    assert world.driver.entries_left(world.host.ref) == []
    assert world.macs() == {world.kept.mac_address}


def test_what_is_on_networks_of_others_is_neither_told_nor_swept(world: World) -> None:
    del world.store.networks[world.network.id]
    assert world.driver.entries_left(world.host.ref) == []
    world.driver.sweep(world.host.ref)
    world.driver.unplug(world.host.ref, world.instance)
    assert world.macs() == {world.kept.mac_address, world.gone.mac_address}
