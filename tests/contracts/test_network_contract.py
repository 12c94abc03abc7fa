"""The contract of network drivers, kept by every one of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hullwright.drivers.network.contract import NetworkDriver
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.objects.errors import PortInUse, PortNotFound
from hullwright.objects.networks import Network, NetworkRequest, Port
from support.local_hosts import HostUnderTest, new_network
from support.memory_stores import MemoryPortStore

MakeDriver = Callable[[], NetworkDriver]


@pytest.fixture
def network() -> Network:
    return new_network()


@pytest.fixture
def store(network: Network) -> MemoryPortStore:
    return MemoryPortStore(network)


@pytest.fixture
def make(conf: Any, store: MemoryPortStore) -> MakeDriver:
    """Makes driver objects that share nothing but the records and the hosts."""
    return lambda: LocalNetworkDriver(conf, store)


def request(network: Network, **changes: Any) -> NetworkRequest:
    return NetworkRequest(**{"port_id": str(uuid.uuid4()), "network_id": network.id, **changes})


def allocated(make: MakeDriver, network: Network, ports: int = 1) -> tuple[str, list[Port]]:
    instance = str(uuid.uuid4())
    return instance, make().allocate(instance, "project", [request(network) for _ in range(ports)])


def expected(host: HostUnderTest, instance: str, ports: list[Port]) -> set[tuple[str, str]]:
    if host.ref.driver == "fake":
        return {(instance, port.id) for port in ports}
    return {(port.mac_address, port.fixed_ips[0].address) for port in ports}


def test_allocating_twice_gives_the_same_ports(make: MakeDriver, network: Network) -> None:
    wanted = [request(network), request(network)]
    first = make().allocate("instance", "project", wanted)
    assert [port.id for port in first] == [one.port_id for one in wanted]
    assert all(port.fixed_ips and port.mac_address for port in first)
    assert make().allocate("instance", "project", wanted) == first


def test_a_port_of_another_instance_is_refused(make: MakeDriver, network: Network) -> None:
    wanted = request(network)
    make().allocate("instance", "project", [wanted])
    with pytest.raises(PortInUse):
        make().allocate("another", "project", [wanted])


def test_a_user_port_that_is_not_there_is_not_made(make: MakeDriver, network: Network, store: MemoryPortStore) -> None:
    with pytest.raises(PortNotFound):
        make().allocate("instance", "project", [request(network, user_port=True)])
    assert store.ports == {}


def test_deallocating_deletes_our_ports_and_frees_the_users(make: MakeDriver, network: Network, store: MemoryPortStore) -> None:
    theirs = replace(store._make("project", request(network)), created_by_build=False)
    store.ports[theirs.id] = theirs
    make().allocate("instance", "project", [request(network), request(network, port_id=theirs.id, user_port=True)])
    for _ in range(2):
        make().deallocate("instance")
        assert store.ports == {theirs.id: theirs}


def test_plugging_prepares_the_host_and_records_the_binding(
    host: HostUnderTest, make: MakeDriver, network: Network, store: MemoryPortStore
) -> None:
    instance, ports = allocated(make, network, ports=2)
    vifs = make().plug(host.ref, instance, "boat")
    assert [(vif.port_id, vif.mac_address, vif.fixed_ips) for vif in vifs] == [(p.id, p.mac_address, p.fixed_ips) for p in ports]
    assert all(vif.network_id == network.id and vif.source and vif.mtu == network.mtu for vif in vifs)
    assert host.plugged(network) == expected(host, instance, ports)
    assert {port.host for port in store.ports_of(instance)} == {host.ref.name}


def test_plugging_twice_is_plugging_once(host: HostUnderTest, make: MakeDriver, network: Network) -> None:
    instance, ports = allocated(make, network)
    first = make().plug(host.ref, instance, "boat")
    assert make().plug(host.ref, instance, "boat") == first
    assert host.plugged(network) == expected(host, instance, ports)


def test_unplugging_leaves_nothing_and_may_be_repeated(
    host: HostUnderTest, make: MakeDriver, network: Network, store: MemoryPortStore
) -> None:
    instance, _ = allocated(make, network)
    neighbour, theirs = allocated(make, network)
    for uuid_ in (instance, neighbour):
        make().plug(host.ref, uuid_, "boat")
    for _ in range(2):
        make().unplug(host.ref, instance)
        assert host.plugged(network) == expected(host, neighbour, theirs)
        assert [port.host for port in store.ports_of(instance)] == [None]
    assert len(store.ports_of(instance)) == 1


def test_unplugging_from_a_host_that_never_had_it_is_fine(host: HostUnderTest, make: MakeDriver, network: Network) -> None:
    instance, _ = allocated(make, network)
    make().unplug(host.ref, instance)
    assert host.plugged(network) == set()


def test_an_instance_without_ports_needs_nothing(host: HostUnderTest, make: MakeDriver, network: Network) -> None:
    assert make().allocate("instance", "project", []) == []
    assert make().plug(host.ref, "instance", "boat") == []
    make().unplug(host.ref, "instance")
    assert host.plugged(network) == set()


def test_many_plug_and_unplug_on_one_host_at_once(
    host: HostUnderTest, make: MakeDriver, network: Network, at_once: Callable[..., list[Any]]
) -> None:
    made = [allocated(make, network) for _ in range(8)]
    drivers = [make() for _ in made]
    at_once(*(lambda d=d, i=i: d.plug(host.ref, i, "boat") for d, (i, _) in zip(drivers, made, strict=True)))
    assert host.plugged(network) == set().union(*(expected(host, *one) for one in made))
    at_once(*(lambda d=d, i=i: d.unplug(host.ref, i) for d, (i, _) in zip(drivers, made[:4], strict=False)))
    assert host.plugged(network) == set().union(*(expected(host, *one) for one in made[4:]))


def test_one_instance_plugged_by_several_at_once_is_plugged_once(
    host: HostUnderTest, make: MakeDriver, network: Network, at_once: Callable[..., list[Any]]
) -> None:
    instance, ports = allocated(make, network)
    answers = at_once(*(lambda: make().plug(host.ref, instance, "boat") for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert host.plugged(network) == expected(host, instance, ports)


def test_the_address_stays_when_the_build_moves_to_another_host(
    host: HostUnderTest, other_host: HostUnderTest, make: MakeDriver, network: Network, store: MemoryPortStore
) -> None:
    instance, ports = allocated(make, network)
    first = make().plug(host.ref, instance, "boat")
    make().unplug(host.ref, instance)
    second = make().plug(other_host.ref, instance, "boat")
    assert second == first
    assert host.plugged(network) == set()
    assert other_host.plugged(network) == expected(other_host, instance, ports)
    assert [port.host for port in store.ports_of(instance)] == [other_host.ref.name]
