"""Servers as answers, field by field in each microversion. Works on database rows, see `persistence.server_pages`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy.engine import RowMapping

from hullwright.api import server_states
from hullwright.api.links import Links
from hullwright.api.times import iso, iso_micro
from hullwright.objects.disks import root_device
from hullwright.objects.hosts import is_up
from hullwright.objects.networks import Port
from hullwright.persistence.instances import guest_name
from hullwright.persistence.server_pages import HostState, Related

Row = RowMapping

# There are no security groups; every port has the anti-spoofing filters of its network. Clients expect the word.
DEFAULT_GROUPS = [{"name": "default"}]


@lru_cache(maxsize=8192)
def host_id(project_id: str, host: str | None) -> str:
    """A name for the host that says nothing of it and differs by project."""
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


def addresses(ports: list[Port], network_names: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Network name -> its addresses, in the order of the cards."""
    found: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        name = network_names.get(port.network_id)
        if name is not None:
            cards = found.setdefault(name, [])
            for fixed in port.fixed_ips:
                cards.append(
                    {
                        "version": 6 if ":" in fixed.address else 4,
                        "addr": fixed.address,
                        "OS-EXT-IPS:type": "fixed",
                        "OS-EXT-IPS-MAC:mac_addr": port.mac_address,
                    }
                )
    return found


class ServerView:
    """Shows servers in one microversion to one caller."""

    def __init__(self, links: Links, minor: int, *, admin: bool, fault_details: bool, host_down_seconds: float) -> None:
        """`admin`: shows hosts."""
        self._links = links
        self._minor = minor
        self._admin = admin
        self._fault_details = fault_details
        self._host_down_seconds = host_down_seconds

    def brief(self, row: Row) -> dict[str, Any]:
        """Id, name, links."""
        return {"id": row["uuid"], "name": row["name"], "links": self._links.of("servers", row["uuid"])}

    def detail(self, row: Row, related: Related, *, groups: Sequence[str] | None = None) -> dict[str, Any]:
        """All fields; those of lists do not tell `groups`."""
        minor, uuid = self._minor, row["uuid"]
        status = server_states.status(row["vm_state"], row["task_state"])
        spec = row["spec"]
        host = related.hosts.get(row["host"] or "")
        zone = host.availability_zone if host else row["availability_zone"]
        server: dict[str, Any] = {
            "id": uuid,
            "name": row["name"],
            "status": status,
            "tenant_id": row["project_id"],
            "user_id": row["user_id"],
            "metadata": row["metadata"],
            "hostId": host_id(row["project_id"], row["host"]),
            "image": self._image(row, spec),
            "flavor": self._flavor(row["flavor"]),
            "created": iso(row["created_at"]),
            "updated": iso(row["updated_at"]),
            "addresses": addresses(related.ports.get(uuid, []), related.network_names),
            "accessIPv4": row["access_ip_v4"] or "",
            "accessIPv6": row["access_ip_v6"] or "",
            "links": self._links.of("servers", uuid),
            "OS-DCF:diskConfig": row["disk_config"],
            "OS-EXT-AZ:availability_zone": zone or "",
            "config_drive": "True" if row["config_drive"] else "",
            "key_name": row["key_name"],
            "OS-SRV-USG:launched_at": iso_micro(row["launched_at"]),
            "OS-SRV-USG:terminated_at": iso_micro(row["terminated_at"]),
            "OS-EXT-STS:task_state": row["task_state"],
            "OS-EXT-STS:vm_state": row["vm_state"],
            "OS-EXT-STS:power_state": row["power_state"],
            "os-extended-volumes:volumes_attached": [
                {"id": attachment.volume_id, "delete_on_termination": attachment.delete_on_termination}
                if minor >= 3
                else {"id": attachment.volume_id}
                for attachment in related.attachments.get(uuid, [])
            ],
        }
        if related.ports.get(uuid):
            server["security_groups"] = DEFAULT_GROUPS
        if status in server_states.WITH_PROGRESS:
            server["progress"] = related.progress.get(uuid, 0) if status == "BUILD" else 100
        if status in server_states.WITH_FAULT and uuid in related.faults:
            server["fault"] = self._fault(related.faults[uuid])
        if self._admin:
            self._add_admin(server, row, spec)
        self._add_later(server, row, spec, host, groups)
        return server

    def _add_admin(self, server: dict[str, Any], row: Row, spec: Mapping[str, Any]) -> None:
        prefix = "OS-EXT-SRV-ATTR:"
        server[prefix + "host"] = row["host"]
        server[prefix + "hypervisor_hostname"] = row["node"] or row["host"]
        server[prefix + "instance_name"] = guest_name(row["id"])
        if self._minor >= 3:
            properties = spec.get("image_properties") or {}
            server[prefix + "hostname"] = row["hostname"]
            server[prefix + "kernel_id"] = properties.get("kernel_id", "")
            server[prefix + "ramdisk_id"] = properties.get("ramdisk_id", "")
            server[prefix + "launch_index"] = row["launch_index"]
            server[prefix + "reservation_id"] = row["reservation_id"]
            roots = [device.get("disk_bus") for device in spec.get("block_devices") or () if device.get("boot_index") == 0]
            server[prefix + "root_device_name"] = root_device(roots, properties)
            server[prefix + "user_data"] = row["user_data"]

    def _add_later(
        self, server: dict[str, Any], row: Row, spec: Mapping[str, Any], host: HostState | None, groups: Sequence[str] | None
    ) -> None:
        """Fields that came after 2.3; `groups` None: do not tell them."""
        minor = self._minor
        if minor >= 9:
            server["locked"] = row["locked"]
        if minor >= 16 and self._admin:
            server["host_status"] = self._host_status(row["host"], host)
        if minor >= 19:
            server["description"] = row["description"]
        if minor >= 26:
            server["tags"] = row["tags"]
        if minor >= 63:
            server["trusted_image_certificates"] = None
        if minor >= 71 and groups is not None:
            server["server_groups"] = list(groups)
        if minor >= 73:
            server["locked_reason"] = row["locked_reason"]
        if minor >= 90:
            server["OS-EXT-SRV-ATTR:hostname"] = row["hostname"]
        if minor >= 96:
            server["pinned_availability_zone"] = spec.get("availability_zone")
        if minor >= 100:
            server["scheduler_hints"] = spec.get("scheduler_hints") or {}

    def _image(self, row: Row, spec: Mapping[str, Any]) -> dict[str, Any] | str:
        if not row["image_id"]:
            return ""
        image: dict[str, Any] = {"id": row["image_id"], "links": self._links.bookmark("images", row["image_id"])}
        if self._minor >= 98:
            image["properties"] = spec.get("image_properties") or {}
        return image

    def _flavor(self, flavor: Mapping[str, Any]) -> dict[str, Any]:
        if self._minor < 47:
            return {"id": flavor["id"], "links": self._links.bookmark("flavors", flavor["id"])}
        return {
            "vcpus": flavor["vcpus"],
            "ram": flavor["memory_mb"],
            "disk": flavor["root_gb"],
            "ephemeral": flavor["ephemeral_gb"],
            "swap": flavor["swap_mb"],
            "original_name": flavor["name"],
            "extra_specs": flavor["extra_specs"],
        }

    def _fault(self, fault: Any) -> dict[str, Any]:
        told = {"code": fault.code, "created": iso(fault.created_at), "message": fault.message}
        if self._fault_details:
            told["details"] = fault.details
        return told

    def _host_status(self, name: str | None, host: HostState | None) -> str:
        if not name:
            return ""
        if host is None:
            return "UNKNOWN"
        if not is_up(host, self._host_down_seconds):
            return "DOWN"
        return "UP" if host.enabled else "MAINTENANCE"
