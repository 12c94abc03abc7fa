"""What a guest is told on its config drive: addresses that no DHCP gives, and what its tagged devices are."""

import uuid
from dataclasses import replace
from typing import Any

import orjson
import pytest

from hullwright.conf import opts
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.flows.config_drive import config_drive_files, network_data
from hullwright.objects.guests import GuestVolume
from hullwright.objects.hosts import HostRef
from hullwright.objects.networks import FixedIp, Network, Port, Subnet, Vif
from hullwright.objects.volumes import Connection
from support.house import House
from support.memory_stores import MemoryPortStore

SUBNETS = {
    "first": Subnet("first", "n", "first", "192.0.2.0/24", 4, "192.0.2.1", dns_nameservers=("203.0.113.53",)),
    "second": Subnet("second", "n", "second", "198.51.100.0/25", 4, "198.51.100.1"),
    "alone": Subnet("alone", "n", "alone", "203.0.113.0/24", 4, None),
    "six": Subnet("six", "n", "six", "2001:db8::/64", 6, "2001:db8::1", dns_nameservers=("2001:db8::53",)),
}
ADDRESSES = {"first": "192.0.2.9", "second": "198.51.100.9", "alone": "203.0.113.9", "six": "2001:db8::9"}


def static(family: str, address: str, netmask: str, gateway: str | None, dns: tuple[str, ...] = ()) -> dict[str, Any]:
    anywhere = "0.0.0.0" if family == "ipv4" else "::"
    routes = [{"network": anywhere, "netmask": anywhere, "gateway": gateway}] if gateway else []
    services = [{"type": "dns", "address": each} for each in dns]
    return {"type": family, "ip_address": address, "netmask": netmask, "routes": routes, "services": services}


DHCP = {"type": "ipv4_dhcp"}
FIRST = static("ipv4", "192.0.2.9", "255.255.255.0", "192.0.2.1", ("203.0.113.53",))
SECOND = static("ipv4", "198.51.100.9", "255.255.255.128", "198.51.100.1")
ALONE = static("ipv4", "203.0.113.9", "255.255.255.0", None)
SIX = static("ipv6", "2001:db8::9", "ffff:ffff:ffff:ffff::", "2001:db8::1", ("2001:db8::53",))


def plugged(directory: Any, mode: str, subnets: tuple[str, ...], addresses: tuple[str, ...]) -> list[Vif]:
    """The card that the embedded network service makes, on a host that it takes for one with the network."""
    store = MemoryPortStore(Network("n", "net", mode=mode, bridge="br0", subnets=tuple(SUBNETS[name] for name in subnets)))
    fixed = tuple(FixedIp(name, ADDRESSES[name]) for name in addresses)
    store.ports["p"] = Port("p", "n", "52:54:00:00:00:01", fixed, device_id="instance")
    driver = LocalNetworkDriver(opts.load([], {"DEFAULT": {"state_path": str(directory)}}), store)
    return driver.plug(HostRef("h1", "fake:///h1", "fake"), "instance", "boat")


@pytest.mark.parametrize(
    ("mode", "subnets", "addresses", "told"),
    [
        ("nat", ("first",), ("first",), [DHCP]),
        ("nat", ("first", "six"), ("first", "six"), [DHCP, SIX]),
        ("nat", ("first", "second"), ("second",), [SECOND]),
        ("nat", ("alone",), ("alone",), [ALONE]),
        ("nat", ("alone", "second"), ("alone", "second"), [ALONE, DHCP]),
        ("bridge", ("first", "six"), ("first", "six"), [FIRST, SIX]),
    ],
    ids=["one subnet", "dual stack", "second subnet", "no gateway", "the first with a gateway", "bridge"],
)
def test_dhcp_is_promised_for_the_address_that_it_gives_and_all_others_are_told(
    tmp_path: Any, mode: str, subnets: tuple[str, ...], addresses: tuple[str, ...], told: list[dict[str, Any]]
) -> None:
    vifs = plugged(tmp_path, mode, subnets, addresses)
    stored = [Vif.from_dict(orjson.loads(orjson.dumps(vif.to_dict()))) for vif in vifs]
    data = network_data(stored)
    [link] = data["links"]
    common = {"link": link["id"], "network_id": "n"}
    assert data["networks"] == [{"id": f"network{number}", **common, **each} for number, each in enumerate(told)]


def test_the_dns_servers_of_all_subnets_are_told_once() -> None:
    vif = Vif("p1", "52:54:00:00:00:01", "network", "n", subnets=(SUBNETS["first"],), fixed_ips=(FixedIp("first", "192.0.2.9"),))
    data = network_data([vif, replace(vif, port_id="p2")])
    assert data["services"] == [{"type": "dns", "address": "203.0.113.53"}]


def test_a_driver_that_does_not_tell_what_dhcp_gives_is_served_as_its_subnets_say() -> None:
    fixed = (FixedIp("first", "192.0.2.9"), FixedIp("second", "198.51.100.9"))
    subnets = (SUBNETS["first"], replace(SUBNETS["second"], enable_dhcp=False))
    told = Vif("p", "52:54:00:00:00:01", "network", "n", subnets=subnets, fixed_ips=fixed).to_dict()
    del told["dhcp_addresses"]  # as an open flow of an earlier version has it
    assert [network["type"] for network in network_data([Vif.from_dict(told)])["networks"]] == ["ipv4_dhcp", "ipv4"]


def test_tagged_cards_and_volumes_are_told_by_what_the_guest_sees_of_them(tmp_path: Any) -> None:
    house = House(tmp_path)
    cards = [Vif("p1", "52:54:00:00:00:01", "network", "n", tag="public"), Vif("p2", "52:54:00:00:00:02", "network", "n")]
    first, second, third = (str(uuid.uuid4()) for _ in range(3))
    disks = [
        GuestVolume(Connection(first, "file", serial=first), "vdb", tag="logs"),
        GuestVolume(Connection(second, "file", serial=second), "vdc"),
        GuestVolume(Connection(third, "rbd"), "sda", bus="scsi", tag="database"),
    ]
    files = config_drive_files(house.new_instance(), cards, disks, None)
    for version in ("latest", "2018-08-27"):
        assert orjson.loads(files[f"openstack/{version}/meta_data.json"])["devices"] == [
            {"type": "nic", "bus": "pci", "mac": "52:54:00:00:00:01", "tags": ["public"]},
            {"type": "disk", "bus": "pci", "serial": first, "path": "/dev/vdb", "tags": ["logs"]},
            {"type": "disk", "bus": "scsi", "serial": third, "path": "/dev/sda", "tags": ["database"]},
        ]
    house.close()
