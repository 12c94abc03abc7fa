"""Networks, subnets and ports as the Network API shows them."""

from __future__ import annotations

from typing import Any

from hullwright.api.network.security_groups import default_group_id
from hullwright.api.times import iso
from hullwright.objects.networks import Network, Port, Subnet

# Attributes of our own: how hosts carry the network. The API's provider attributes cannot say it.
MODE, BRIDGE = "hullwright:mode", "hullwright:bridge"


def network_view(network: Network, *, admin: bool) -> dict[str, Any]:
    """A network; administrators see how it is carried."""
    view: dict[str, Any] = {
        "id": network.id,
        "name": network.name,
        "project_id": network.project_id or "",
        "tenant_id": network.project_id or "",
        "admin_state_up": True,
        "status": "ACTIVE",
        "shared": network.shared,
        "router:external": False,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security,
        "subnets": [subnet.id for subnet in network.subnets],
        "availability_zone_hints": [],
        "availability_zones": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "description": network.description,
        "tags": [],
        "created_at": iso(network.created_at),
        "updated_at": iso(network.created_at),
    }
    if admin:
        flat = network.mode == "bridge"
        view |= {
            "provider:network_type": "flat" if flat else "local",
            "provider:physical_network": network.bridge if flat else None,
            "provider:segmentation_id": None,
            MODE: network.mode,
            BRIDGE: network.bridge,
        }
    return view


def subnet_view(subnet: Subnet, project_id: str | None) -> dict[str, Any]:
    """A subnet, which is of its network's project."""
    return {
        "id": subnet.id,
        "name": subnet.name,
        "network_id": subnet.network_id,
        "project_id": project_id or "",
        "tenant_id": project_id or "",
        "cidr": subnet.cidr,
        "ip_version": subnet.ip_version,
        "gateway_ip": subnet.gateway_ip,
        "enable_dhcp": subnet.enable_dhcp,
        "allocation_pools": [{"start": first, "end": last} for first, last in subnet.allocation_pools],
        "dns_nameservers": list(subnet.dns_nameservers),
        "host_routes": [],
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        "subnetpool_id": None,
        "service_types": [],
        "description": subnet.description,
        "tags": [],
        "created_at": iso(subnet.created_at),
        "updated_at": iso(subnet.created_at),
    }


def port_view(port: Port, *, port_security: bool, admin: bool) -> dict[str, Any]:
    """A port; administrators see its host."""
    view: dict[str, Any] = {
        "id": port.id,
        "name": port.name,
        "network_id": port.network_id,
        "project_id": port.project_id or "",
        "tenant_id": port.project_id or "",
        "admin_state_up": True,
        "status": "ACTIVE" if port.host else "DOWN",
        "mac_address": port.mac_address,
        "fixed_ips": [{"subnet_id": fixed.subnet_id, "ip_address": fixed.address} for fixed in port.fixed_ips],
        "device_id": port.device_id or "",
        "device_owner": "compute:nova" if port.device_id else "",
        "security_groups": [default_group_id(port.project_id or "")],
        "port_security_enabled": port_security,
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "binding:vnic_type": "normal",
        "description": port.description,
        "tags": [],
        "created_at": iso(port.created_at),
        "updated_at": iso(port.created_at),
    }
    if admin:
        view |= {
            "binding:host_id": port.host or "",
            "binding:vif_type": "bridge" if port.host else "unbound",
            "binding:vif_details": {},
            "binding:profile": {},
        }
    return view
