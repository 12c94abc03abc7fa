"""What a guest reads on its config drive, in OpenStack's layout.

Not for: making the drive; a virt driver writes these files to an ISO9660 image. The content may hold secrets and is never stored by us.
Layout and keys: https://docs.openstack.org/nova/latest/user/metadata.html
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from hullwright.objects.guests import GuestVolume
from hullwright.objects.instances import Instance
from hullwright.objects.networks import Subnet, Vif

_VERSIONS = ("latest", "2018-08-27")


def config_drive_files(instance: Instance, vifs: Sequence[Vif], disks: Sequence[GuestVolume], zone: str | None) -> Mapping[str, bytes]:
    """Path in the drive -> content; `zone`: the availability zone of the instance's host."""
    files = {
        "meta_data.json": orjson.dumps(_meta_data(instance, vifs, disks, zone)),
        "network_data.json": orjson.dumps(network_data(vifs)),
        "vendor_data.json": b"{}",
    }
    if instance.user_data:
        files["user_data"] = base64.b64decode(instance.user_data)
    return {f"openstack/{version}/{name}": content for version in _VERSIONS for name, content in files.items()}


def _meta_data(instance: Instance, vifs: Sequence[Vif], disks: Sequence[GuestVolume], zone: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "uuid": instance.uuid,
        "name": instance.name,
        "hostname": instance.hostname,
        "launch_index": instance.launch_index,
        "availability_zone": zone,
        "project_id": instance.project_id,
        "meta": dict(instance.metadata),
        "devices": devices(vifs, disks),
    }
    if instance.key_name and instance.key_data:
        data["public_keys"] = {instance.key_name: instance.key_data}
        data["keys"] = [{"name": instance.key_name, "type": "ssh", "data": instance.key_data}]
    return data


def devices(vifs: Sequence[Vif], disks: Sequence[GuestVolume]) -> list[dict[str, Any]]:
    """The cards and volumes that have tags, told by what a guest knows them by: MAC, serial. libvirt chooses addresses on buses later."""
    cards = [{"type": "nic", "bus": "pci", "mac": vif.mac_address, "tags": [vif.tag]} for vif in vifs if vif.tag]
    tagged = [
        {
            "type": "disk",
            "bus": "pci" if disk.bus == "virtio" else disk.bus,
            "serial": disk.connection.serial or disk.connection.volume_id,
            "path": f"/dev/{disk.device}",
            "tags": [disk.tag],
        }
        for disk in disks
        if disk.tag
    ]
    return [*cards, *tagged]


def network_data(vifs: Sequence[Vif]) -> dict[str, Any]:
    """Links, networks and DNS servers. An address that the host's DHCP gives is left to it; every other one is told, with its routes."""
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    services: list[dict[str, Any]] = []
    for vif in vifs:
        link = f"tap{vif.port_id[:11]}"
        links.append({"id": link, "vif_id": vif.port_id, "type": "bridge", "mtu": vif.mtu, "ethernet_mac_address": vif.mac_address})
        by_id = {subnet.id: subnet for subnet in vif.subnets}
        for ip in vif.fixed_ips:
            subnet = by_id.get(ip.subnet_id)
            if subnet is not None:
                by_dhcp = subnet.enable_dhcp if vif.dhcp_addresses is None else ip.address in vif.dhcp_addresses
                network = {"id": f"network{len(networks)}", "link": link, "network_id": vif.network_id}
                networks.append(network | _addressing(ip.address, subnet, by_dhcp=by_dhcp))
                services.extend(service for service in _dns(subnet) if service not in services)
    return {"links": links, "networks": networks, "services": services}


def _addressing(address: str, subnet: Subnet, *, by_dhcp: bool) -> dict[str, Any]:
    family = f"ipv{subnet.ip_version}"
    if by_dhcp:
        return {"type": f"{family}_dhcp"}
    routes = []
    if subnet.gateway_ip:
        anywhere = "0.0.0.0" if subnet.ip_version == 4 else "::"
        routes.append({"network": anywhere, "netmask": anywhere, "gateway": subnet.gateway_ip})
    netmask = str(ipaddress.ip_network(subnet.cidr, strict=False).netmask)
    return {"type": family, "ip_address": address, "netmask": netmask, "routes": routes, "services": _dns(subnet)}


def _dns(subnet: Subnet) -> list[dict[str, str]]:
    return [{"type": "dns", "address": address} for address in subnet.dns_nameservers]
