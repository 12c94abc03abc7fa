"""Networks, subnets, ports, and the interface (VIF) that a port becomes on a host."""

from __future__ import annotations

from dataclasses import dataclass

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Subnet(Record):
    """A range of addresses on a network."""

    id: str
    network_id: str
    name: str
    cidr: str  # 192.0.2.0/24
    ip_version: int = 4
    gateway_ip: str | None = None
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    allocation_pools: tuple[tuple[str, str], ...] = ()  # (first, last), inclusive
    description: str = ""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Network(Record):
    """A layer 2 segment that guests are plugged into."""

    id: str
    name: str
    mode: str = "nat"  # nat, route, isolated, open: libvirt's forward modes; bridge: an existing bridge of the host
    bridge: str | None = None  # name of the bridge on each host; chosen from the id when absent
    mtu: int = 1500
    shared: bool = True
    port_security: bool = True  # anti-spoofing filters on ports
    project_id: str | None = None
    subnets: tuple[Subnet, ...] = ()
    description: str = ""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FixedIp(Record):
    """One address of a port."""

    subnet_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Port(Record):
    """A network card to be: MAC and addresses, owned by at most one instance."""

    id: str
    network_id: str
    mac_address: str
    fixed_ips: tuple[FixedIp, ...] = ()
    name: str = ""
    description: str = ""
    device_id: str | None = None  # instance uuid
    host: str | None = None  # bound to this host
    created_by_build: bool = False  # ours to delete with the instance; a port the user made is only unbound
    project_id: str | None = None
    tag: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkRequest(Record):
    """One card asked for in a create request. Ids are chosen at the door, so that a step that runs twice finds its port."""

    port_id: str
    network_id: str
    fixed_ip: str | None = None
    user_port: bool = False  # the user gave the port; never delete it
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Vif(Record):
    """A port as the hypervisor needs it, after the network driver prepared the host."""

    port_id: str
    mac_address: str
    kind: str  # network: a libvirt network; bridge: a bridge of the host
    source: str  # name of the network or the bridge
    model: str = "virtio"
    mtu: int | None = None
    filter: str | None = None  # nwfilter's name
    filter_parameters: tuple[tuple[str, str], ...] = ()  # (IP, address), ...
    network_id: str = ""
    network_label: str = ""
    subnets: tuple[Subnet, ...] = ()
    fixed_ips: tuple[FixedIp, ...] = ()
    tag: str | None = None
    # Of fixed_ips, those that DHCP really gives; the others a guest must be told. None: a driver that leaves it to enable_dhcp.
    dhcp_addresses: tuple[str, ...] | None = None
