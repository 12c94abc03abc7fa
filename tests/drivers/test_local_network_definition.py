"""What a network of ours is in libvirt's words, and which filter a port gets. Nothing here asks a host."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from hullwright.drivers.network.local import filters
from hullwright.drivers.network.local.definition import (
    HostEntry,
    bridge_addresses,
    bridge_name,
    describe,
    dhcp_subnet,
    entry_of,
    network_xml,
)
from hullwright.objects.networks import FixedIp, Network, Port, Subnet

NETWORK = Network(
    id="0d5e3d2b-4afa-402b-84a0-5fd3770206f7",
    name="tenant",
    mtu=1450,
    subnets=(
        Subnet("plain", "n", "plain", "192.0.2.0/25", enable_dhcp=False, gateway_ip="192.0.2.1"),
        Subnet("served", "n", "served", "198.51.100.0/24", gateway_ip="198.51.100.1", dns_nameservers=("203.0.113.53",)),
        Subnet("six", "n", "six", "2001:db8::/64", ip_version=6, gateway_ip="2001:db8::1"),
        Subnet("bare", "n", "bare", "203.0.113.0/24"),
    ),
)
PORT = Port("port", NETWORK.id, "FA:16:3E:00:00:01", (FixedIp("plain", "192.0.2.9"), FixedIp("served", "198.51.100.9")))


def test_a_bridges_name_fits_the_kernel() -> None:
    assert len(bridge_name(NETWORK)) <= 15
    assert bridge_name(replace(NETWORK, bridge="br0")) == "br0"
    assert bridge_name(NETWORK) != bridge_name(replace(NETWORK, id="0d5e3d2c-4afa-402b-84a0-5fd3770206f7"))


@pytest.mark.parametrize(("mode", "forward"), [("nat", "nat"), ("route", "route"), ("open", "open"), ("isolated", None)])
def test_each_mode_is_libvirts_forward_mode(mode: str, forward: str | None) -> None:
    assert describe(network_xml(replace(NETWORK, mode=mode), "novalocal")).mode == forward


def test_the_subnet_with_dhcp_comes_first_and_one_without_gateway_not_at_all() -> None:
    assert dhcp_subnet(NETWORK) == NETWORK.subnets[1]
    assert list(bridge_addresses(NETWORK)) == ["198.51.100.1/24", "192.0.2.1/25", "2001:db8::1/64"]


def test_what_is_defined_reads_back() -> None:
    entry = HostEntry("fa:16:3e:00:00:01", "198.51.100.9", "boat")
    description = describe(network_xml(NETWORK, "novalocal", [entry]))
    assert description.addresses == set(bridge_addresses(NETWORK))
    assert description.entries == (entry,)


def test_dhcp_gives_fixed_addresses_only_and_is_never_without_an_entry() -> None:
    root = ET.fromstring(network_xml(NETWORK, "novalocal", lease_seconds=240))
    assert root.find(".//range") is None
    assert [lease.get("expiry") for lease in root.iterfind(".//dhcp/host/lease")] == ["240"]
    assert [server.get("addr") for server in root.iterfind("dns/forwarder")] == ["203.0.113.53"]
    assert root.find("mtu").get("size") == "1450"  # type: ignore[union-attr]


def test_names_are_escaped() -> None:
    entry = HostEntry("fa:16:3e:00:00:01", "198.51.100.9", "a'<b>&")
    assert describe(network_xml(NETWORK, "<domain>", [entry])).entries == (entry,)


def test_a_netmask_is_read_as_a_prefix() -> None:
    xml = "<network><name>n</name><forward/><ip address='192.0.2.1' netmask='255.255.255.128'/></network>"
    assert describe(xml).addresses == {"192.0.2.1/25"}
    assert describe(xml).mode == "nat"


def test_a_ports_entry_has_its_address_on_the_subnet_with_dhcp() -> None:
    assert entry_of(NETWORK, PORT, "boat") == HostEntry("fa:16:3e:00:00:01", "198.51.100.9", "boat")
    assert entry_of(NETWORK, replace(PORT, fixed_ips=PORT.fixed_ips[:1]), "boat") is None


@pytest.mark.parametrize(
    ("addresses", "name", "parameters"),
    [
        ([], "hullwright-1-mac", ()),
        (["192.0.2.9", "192.0.2.8"], "hullwright-1-ipv4", (("IP", "192.0.2.8"), ("IP", "192.0.2.9"))),
        (["2001:db8::9"], "hullwright-1-ipv6", (("IPV6", "2001:db8::9"),)),
        (["2001:db8::9", "192.0.2.9"], "hullwright-1-ipv4-ipv6", (("IP", "192.0.2.9"), ("IPV6", "2001:db8::9"))),
    ],
)
def test_a_filter_is_chosen_by_the_addresses(addresses: list[str], name: str, parameters: tuple[tuple[str, str], ...]) -> None:
    assert filters.choose(addresses) == (name, parameters)
    text = filters.xml_of(name)
    assert ET.fromstring(text).get("name") == name
    assert ("$IP'" in text) == ("ipv4" in name), "a rule whose parameter is not given would be refused"
    assert ("$IPV6'" in text) == ("ipv6" in name)
    assert "$MAC" in text
