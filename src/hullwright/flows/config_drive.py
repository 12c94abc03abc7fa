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

from hullwright.objects.instances import Instance
from hullwright.objects.networks import Subnet, Vif

_VERSIONS = ("latest", "2018-08-27")


def config_drive_files(instance: Instance, vifs: Sequence[Vif], zone: str | None) -> Mapping[str, bytes]:
    """Path in the drive -> content; `zone`: the availability zone of the instance's host."""
    files = {
        "meta_data.json": orjson.dumps(_meta_data(instance, zone)),
        "network_data.json": orjson.dumps(_network_data(vifs)),
        "vendor_data.json": b"{}",
    }
    if instance.user_data:
        files["user_data"] = base64.b64decode(instance.user_data)
    return {f"openstack/{version}/{name}": content for version in _VERSIONS for name, content in files.items()}


def _meta_data(instance: Instance, zone: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "uuid": instance.uuid,
        "name": instance.name,
        "hostname": instance.hostname,
        "launch_index": instance.launch_index,
        "availability_zone": zone,
        "project_id": instance.project_id,
        "meta": dict(instance.metadata),
        "devices": [],
    }
    if instance.key_name and instance.key_data:
        data["public_keys"] = {instance.key_name: instance.key_data}
        data["keys"] = [{"name": instance.key_name, "type": "ssh", "data": instance.key_data}]
    return data


def _network_data(vifs: Sequence[Vif]) -> dict[str, Any]:
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    services: list[dict[str, Any]] = []
    for number, vif in enumerate(vifs):
        link = f"tap{vif.port_id[:11]}"
        links.append({"id": link, "vif_id": vif.port_id, "type": "bridge", "mtu": vif.mtu, "ethernet_mac_address": vif.mac_address})
        by_id = {subnet.id: subnet for subnet in vif.subnets}
        for ip in vif.fixed_ips:
            subnet = by_id.get(ip.subnet_id)
            if subnet is not None:
                networks.append(_network(f"network{number}", link, vif.network_id, ip.address, subnet))
                services.extend({"type": "dns", "address": address} for address in subnet.dns_nameservers)
    return {"links": links, "networks": networks, "services": services}


def _network(name: str, link: str, network_id: str, address: str, subnet: Subnet) -> dict[str, Any]:
    family = f"ipv{subnet.ip_version}"
    if subnet.enable_dhcp:
        return {"id": name, "type": f"{family}_dhcp", "link": link, "network_id": network_id}
    routes = []
    if subnet.gateway_ip:
        anywhere = "0.0.0.0" if subnet.ip_version == 4 else "::"
        routes.append({"network": anywhere, "netmask": anywhere, "gateway": subnet.gateway_ip})
    netmask = str(ipaddress.ip_network(subnet.cidr).netmask)
    return {"id": name, "type": family, "link": link, "network_id": network_id, "ip_address": address, "netmask": netmask, "routes": routes}
