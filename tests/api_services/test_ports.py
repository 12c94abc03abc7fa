"""Ports and addresses on real databases: unique, idempotent, from the pools, and right under concurrency."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from hullwright.objects.errors import (
    FixedIpAlreadyInUse,
    InvalidIpForNetwork,
    NetworkInUse,
    NetworkNotFound,
    NoMoreFixedIps,
    PortInUse,
    PortNotFound,
    SubnetInUse,
)
from hullwright.objects.networks import Network, NetworkRequest, Port, Subnet
from hullwright.persistence import networks, ports
from hullwright.persistence.database import Database, now
from hullwright.persistence.ports import SqlPortStore


def new_id() -> str:
    return str(uuid.uuid4())


def make_network(db: Database, *pools: tuple[str, str], cidr: str = "192.0.2.0/24", gateway: str | None = "192.0.2.1") -> str:
    network_id = new_id()
    with db.write() as conn:
        networks.create(conn, Network(network_id, "private", created_at=now()))
        if pools:
            subnet = Subnet(new_id(), network_id, "", cidr, gateway_ip=gateway, allocation_pools=pools, created_at=now())
            networks.create_subnet(conn, subnet)
    return network_id


def ask(network_id: str, fixed_ip: str | None = None, port_id: str | None = None, *, user_port: bool = False) -> NetworkRequest:
    return NetworkRequest(port_id or new_id(), network_id, fixed_ip, user_port)


def addresses(found: Sequence[Port]) -> list[str]:
    return [fixed.address for port in found for fixed in port.fixed_ips]


def test_a_port_gets_a_mac_and_the_next_address_of_the_pool(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    store = SqlPortStore(db)
    first = store.ensure_ports("server-1", "project", [ask(network), ask(network)])
    second = store.ensure_ports("server-2", "project", [ask(network)])
    assert addresses(first + second) == ["192.0.2.10", "192.0.2.11", "192.0.2.12"]
    assert all(port.mac_address.startswith("fa:16:3e:") for port in first + second)
    assert [port.id for port in store.ports_of("server-1")] == [port.id for port in first]


def test_asking_twice_finds_the_same_port_and_writes_nothing(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    store, requests = SqlPortStore(db), [ask(network), ask(network, "192.0.2.200")]
    first = store.ensure_ports("server", "project", requests)
    before = db.statements
    assert store.ensure_ports("server", "project", requests) == first
    assert db.statements - before <= 4  # BEGIN, ports, their addresses, COMMIT
    assert addresses(first) == ["192.0.2.10", "192.0.2.200"]


def test_a_new_port_costs_few_statements_however_many_addresses_are_in_use(db: Database) -> None:
    network = make_network(db, ("192.0.2.2", "192.0.2.254"))
    store = SqlPortStore(db)
    store.ensure_ports("crowd", "project", [ask(network) for _ in range(200)])
    before = db.statements
    store.ensure_ports("server", "project", [ask(network)])
    assert db.statements - before <= 8


def test_freed_addresses_are_found_again_around_the_end_of_the_pool(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.15"), ("192.0.2.30", "192.0.2.31"))
    store = SqlPortStore(db)
    given = addresses([store.ensure_ports(f"s{n}", "p", [ask(network)])[0] for n in range(8)])
    assert given == [*(f"192.0.2.{n}" for n in range(10, 16)), "192.0.2.30", "192.0.2.31"]
    store.release("s4")
    assert addresses(store.ensure_ports("again", "p", [ask(network)])) == ["192.0.2.14"]
    with pytest.raises(NoMoreFixedIps):
        store.ensure_ports("too-many", "p", [ask(network)])
    assert store.ports_of("too-many") == []


def test_a_failed_request_leaves_none_of_its_ports(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.11"))
    store = SqlPortStore(db)
    with pytest.raises(NoMoreFixedIps):
        store.ensure_ports("server", "p", [ask(network) for _ in range(3)])
    assert store.ports_of("server") == []
    assert len(store.ensure_ports("other", "p", [ask(network), ask(network)])) == 2


def test_an_address_asked_for_is_given_or_refused_with_the_reason(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    store = SqlPortStore(db)
    assert addresses(store.ensure_ports("a", "p", [ask(network, "192.0.2.11")])) == ["192.0.2.11"]
    with pytest.raises(FixedIpAlreadyInUse, match=r"192\.0\.2\.11"):
        store.ensure_ports("b", "p", [ask(network, "192.0.2.11")])
    for wrong in ("198.51.100.1", "192.0.2.1", "192.0.2.0", "192.0.2.255", "nonsense", "fe80::1%eth0"):
        with pytest.raises(InvalidIpForNetwork):
            store.ensure_ports("b", "p", [ask(network, wrong)])
    # The pool's search passes over the one that was asked for.
    assert addresses(store.ensure_ports("c", "p", [ask(network), ask(network)])) == ["192.0.2.10", "192.0.2.12"]


def test_a_network_gives_one_address_of_each_ip_version(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    with db.write() as conn:
        pool = (("2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff"),)
        networks.create_subnet(conn, Subnet(new_id(), network, "six", "2001:db8::/64", 6, allocation_pools=pool, created_at=now()))
    assert addresses(SqlPortStore(db).ensure_ports("s", "p", [ask(network)])) == ["192.0.2.10", "2001:db8::2"]


def test_a_network_without_subnets_gives_a_port_without_address(db: Database) -> None:
    assert SqlPortStore(db).ensure_ports("s", "p", [ask(make_network(db))])[0].fixed_ips == ()


def test_an_unknown_network_and_an_unknown_user_port_are_refused(db: Database) -> None:
    store = SqlPortStore(db)
    with pytest.raises(NetworkNotFound):
        store.ensure_ports("s", "p", [ask(new_id())])
    with pytest.raises(PortNotFound):
        store.ensure_ports("s", "p", [ask(make_network(db), user_port=True)])


def test_release_deletes_the_builds_ports_frees_the_users_and_may_be_repeated(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    with db.write() as conn:
        mine = ports.create(conn, Port(new_id(), network, "", created_at=now()), ports.lock_networks(conn, [network])[network])
    store = SqlPortStore(db)
    made = store.ensure_ports("s", "p", [ask(network, port_id=mine.id, user_port=True), ask(network)])
    assert addresses(made) == ["192.0.2.10", "192.0.2.11"]
    store.bind([port.id for port in made], "host-1")
    assert {port.host for port in store.ports_of("s")} == {"host-1"}
    with pytest.raises(PortInUse):
        store.ensure_ports("other", "p", [ask(network, port_id=mine.id, user_port=True)])
    for _ in range(2):
        store.release("s")
        assert store.ports_of("s") == []
    with db.read() as conn:
        assert [(port.id, port.device_id, port.host) for port in ports.list_all(conn)] == [(mine.id, None, None)]


def test_what_is_in_use_cannot_be_deleted(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    store = SqlPortStore(db)
    store.ensure_ports("s", "p", [ask(network)])
    subnet = store.network(network).subnets[0].id
    with pytest.raises(NetworkInUse), db.write() as conn:
        networks.delete(conn, network)
    with pytest.raises(SubnetInUse), db.write() as conn:
        networks.delete_subnet(conn, subnet)
    store.release("s")
    with db.write() as conn:
        networks.delete(conn, network)
    with pytest.raises(NetworkNotFound):
        store.network(network)


def test_many_builds_at_once_share_a_pool_without_doubles_and_fill_it_exactly(db: Database) -> None:
    network = make_network(db, ("192.0.2.100", "192.0.2.159"))  # 60 addresses for 80 servers
    store = SqlPortStore(db)

    def build(number: int) -> list[str]:
        try:
            return addresses(store.ensure_ports(f"server-{number}", "p", [ask(network)]))
        except NoMoreFixedIps:
            return []

    with ThreadPoolExecutor(8) as pool:
        given = [address for found in pool.map(build, range(80)) for address in found]
    assert len(given) == len(set(given)) == 60


def test_one_address_asked_for_by_many_goes_to_one(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    store = SqlPortStore(db)

    def build(number: int) -> bool:
        try:
            store.ensure_ports(f"server-{number}", "p", [ask(network, "192.0.2.15")])
        except FixedIpAlreadyInUse:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(build, range(24))) == 1


def test_one_step_run_by_two_conductors_makes_one_port(db: Database) -> None:
    network = make_network(db, ("192.0.2.10", "192.0.2.20"))
    store, request = SqlPortStore(db), ask(network)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.ensure_ports("server", "p", [request]), range(16)))
    assert {port.id for made in found for port in made} == {request.port_id}
    assert {address for made in found for address in addresses(made)} == {"192.0.2.10"}


def test_builds_on_two_networks_in_any_order_never_wait_for_each_other_for_ever(db: Database) -> None:
    one = make_network(db, ("192.0.2.10", "192.0.2.90"))
    two = make_network(db, ("198.51.100.10", "198.51.100.90"), cidr="198.51.100.0/24", gateway=None)
    store = SqlPortStore(db)

    def build(number: int) -> int:
        order = [one, two] if number % 2 else [two, one]
        return len(store.ensure_ports(f"server-{number}", "p", [ask(network) for network in order]))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(build, range(40))) == 80
