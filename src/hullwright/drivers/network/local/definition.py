"""A network of ours as libvirt's XML, and what libvirt's XML says of one. Pure; asks no host.

libvirt's dnsmasq serves DHCP on one IPv4 subnet of a network: the first that has DHCP and a gateway. It gives fixed addresses only,
one per MAC. IPv6 addresses, those of further subnets and those on a bridge of the host reach the guest by its config drive:
`Vif.dhcp_addresses` says which do not.
"""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from hullwright.objects.networks import Network, Port, Subnet

# Network.mode -> libvirt's forward mode; isolated has none. Mode bridge is no libvirt network at all.
FORWARD_MODES = {"nat": "nat", "route": "route", "open": "open", "isolated": None}


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A DHCP host entry: the address that a MAC is given."""

    mac: str
    address: str
    name: str | None

    def to_xml(self, lease_seconds: int) -> str:
        """As virNetworkUpdate takes it."""
        element = ET.Element("host", mac=self.mac, ip=self.address)
        if self.name:
            element.set("name", self.name)
        ET.SubElement(element, "lease", expiry=str(lease_seconds), unit="seconds")
        return ET.tostring(element, encoding="unicode")


@dataclass(frozen=True, slots=True)
class Description:
    """What libvirt says of a network."""

    mode: str | None
    mtu: int
    addresses: frozenset[str]  # of the bridge: 192.0.2.1/24
    entries: tuple[HostEntry, ...]  # of ports


# Without any entry libvirt runs dnsmasq without DHCP, and stops and starts it when the first comes and the last goes. So there is
# always one, for a MAC that no card has and the bridge's own address.
PLACEHOLDER_MAC = "02:00:00:00:00:00"


def name_of(network_id: str) -> str:
    """Name of the libvirt network of a network's id."""
    return f"hullwright-{network_id}"


def network_name(network: Network) -> str:
    """Name of the libvirt network."""
    return name_of(network.id)


def bridge_name(network: Network) -> str:
    """Name of the bridge: at most 15 bytes, or the kernel refuses it."""
    return network.bridge or f"hw-{network.id.replace('-', '')[:11]}"


def dhcp_subnet(network: Network) -> Subnet | None:
    """The subnet that has DHCP on hosts."""
    served = (s for s in network.subnets if s.ip_version == 4 and s.enable_dhcp and s.gateway_ip)
    return next(served, None)


def bridge_addresses(network: Network) -> dict[str, Subnet]:
    """Address of the bridge with prefix length -> its subnet, the one with DHCP first."""
    first = dhcp_subnet(network)
    ordered = sorted(network.subnets, key=lambda subnet: subnet is not first)
    return {f"{s.gateway_ip}/{ipaddress.ip_network(s.cidr, strict=False).prefixlen}": s for s in ordered if s.gateway_ip}


def network_xml(network: Network, domain: str, entries: Sequence[HostEntry] = (), lease_seconds: int = 300) -> str:
    """The libvirt network."""
    root = ET.Element("network")
    ET.SubElement(root, "name").text = network_name(network)
    ET.SubElement(root, "uuid").text = network.id
    mode = FORWARD_MODES[network.mode]
    if mode:
        ET.SubElement(root, "forward", mode=mode)
    ET.SubElement(root, "bridge", name=bridge_name(network), stp="off", delay="0")
    ET.SubElement(root, "mtu", size=str(network.mtu))
    if domain:
        ET.SubElement(root, "domain", name=domain, localOnly="yes")
    servers = list(dict.fromkeys(server for subnet in network.subnets for server in subnet.dns_nameservers))
    if servers:
        dns = ET.SubElement(root, "dns")
        for server in servers:
            ET.SubElement(dns, "forwarder", addr=server)
    for address, subnet in bridge_addresses(network).items():
        ip, prefix = address.split("/")
        family = "ipv6" if subnet.ip_version == 6 else "ipv4"
        element = ET.SubElement(root, "ip", family=family, address=ip, prefix=prefix)
        if subnet is dhcp_subnet(network):
            dhcp = ET.SubElement(element, "dhcp")
            held = [HostEntry(PLACEHOLDER_MAC, ip, None), *entries]
            dhcp.extend(ET.fromstring(entry.to_xml(lease_seconds)) for entry in held)
    return ET.tostring(root, encoding="unicode")


def describe(xml: str) -> Description:
    """Read libvirt's XML of a network."""
    root = ET.fromstring(xml)
    forward = root.find("forward")
    addresses = set()
    for ip in root.iterfind("ip"):
        prefix = ip.get("prefix")
        if prefix is None:
            prefix = str(ipaddress.ip_network(f"0.0.0.0/{ip.get('netmask', '255.255.255.0')}").prefixlen)
        addresses.add(f"{ip.get('address')}/{prefix}")
    hosts = (HostEntry((host.get("mac") or "").lower(), host.get("ip") or "", host.get("name")) for host in root.iterfind("ip/dhcp/host"))
    entries = tuple(entry for entry in hosts if entry.mac != PLACEHOLDER_MAC)
    mtu = root.find("mtu")
    return Description(
        mode=None if forward is None else forward.get("mode", "nat"),
        mtu=1500 if mtu is None else int(mtu.get("size", "1500")),
        addresses=frozenset(addresses),
        entries=entries,
    )


def entry_of(network: Network, port: Port, hostname: str) -> HostEntry | None:
    """The DHCP entry of a port; None when it has no address that DHCP gives."""
    subnet = dhcp_subnet(network)
    for fixed in port.fixed_ips:
        if subnet is not None and fixed.subnet_id == subnet.id:
            return HostEntry(port.mac_address.lower(), fixed.address, hostname)
    return None
