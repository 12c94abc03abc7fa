"""/os-hypervisors: hosts, what they have and what of it is in use."""

from __future__ import annotations

from typing import Any

import falcon
import orjson
from sqlalchemy.engine import Connection

from hullwright.api.context import microversion
from hullwright.api.links import Links
from hullwright.api.microversions import available
from hullwright.api.queries import boolean, cut, last, page_limit, row_number
from hullwright.api.resource import Resource, send
from hullwright.objects.errors import BadRequest, NotFound
from hullwright.objects.hosts import Host, Inventory, is_up
from hullwright.persistence import host_pages, hosts
from hullwright.persistence.host_pages import HostPage

_PAGES_SINCE = 33
_UUIDS_SINCE = 53  # ids are numbers before
_BRIEF_SINCE = 88  # amounts are left to the placement API from then on


class HypervisorNotFound(NotFound):
    """No such hypervisor."""

    message = "Hypervisor with ID '{id}' could not be found."


class Hypervisors(Resource):
    """The collection and its members."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Names and states."""
        self._list(req, resp, detail=False)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All fields."""
        self._list(req, resp, detail=True)

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, hypervisor_id: str) -> None:
        """One of them."""
        self.require(req, "os-hypervisors")
        minor = microversion(req)
        with self.context.db.read() as conn:
            host = _find(conn, hypervisor_id, minor)
            servers = host_pages.servers_of(conn, [host.name]) if self._with_servers(req) else None
            page = host_pages.read(conn, [host])
        send(resp, {"hypervisor": self._detail(host, page, minor, servers)})

    @available(until=87)
    def on_get_statistics(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The sums over hosts that take builds."""
        self.require(req, "os-hypervisors")
        with self.context.db.read() as conn:
            page = host_pages.read(conn)
        enabled = [host for host in page.hosts if host.takes_builds]
        sums: dict[str, int] = {"count": len(enabled)}
        for host in enabled:
            for name, amount in _amounts(host, page).items():
                sums[name] = sums.get(name, 0) + amount
        send(resp, {"hypervisor_statistics": sums})

    def _list(self, req: falcon.Request, resp: falcon.Response, *, detail: bool) -> None:
        self.require(req, "os-hypervisors")
        minor = microversion(req)
        limit = page_limit(req, self.context.conf.api.max_limit) if minor >= _PAGES_SINCE else None
        pattern = last(req, "hypervisor_hostname_pattern") if minor >= _UUIDS_SINCE else None
        marker = last(req, "marker") if limit is not None else None
        with self.context.db.read() as conn:
            after = None if marker is None else _marked(conn, marker, minor).name
            hosts_found = hosts.list_all(conn, name_part=pattern, after=after, limit=None if limit is None else limit + 1)
            if pattern is not None and marker is None and not hosts_found:
                raise NotFound(f"No hypervisor matching '{pattern[:100]}' could be found.")
            found, more = cut(hosts_found, len(hosts_found) if limit is None else limit)
            page = host_pages.read(conn, None if limit is None else list(found))
            servers = host_pages.servers_of(conn, [host.name for host in found]) if self._with_servers(req) else None
        show = self._detail if detail else self._brief
        answer: dict[str, Any] = {"hypervisors": [show(host, page, minor, servers) for host in found]}
        if more:
            answer["hypervisors_links"] = Links(req, self.context.conf).next(req, _id(found[-1], minor))
        send(resp, answer)

    def _with_servers(self, req: falcon.Request) -> bool:
        value = last(req, "with_servers") if microversion(req) >= _UUIDS_SINCE else None
        return value is not None and boolean(value, "with_servers")

    def _brief(self, host: Host, _page: HostPage, minor: int, servers: dict[str, list[tuple[str, str]]] | None) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": host.uuid if minor >= _UUIDS_SINCE else host.id,
            "hypervisor_hostname": host.name,
            "state": "up" if is_up(host, self.context.conf.compute.service_down_time) else "down",
            "status": "enabled" if host.takes_builds else "disabled",
        }
        if servers is not None and (minor >= 75 or servers.get(host.name)):
            shown["servers"] = [{"uuid": uuid, "name": name} for uuid, name in servers.get(host.name, [])]
        return shown

    def _detail(self, host: Host, page: HostPage, minor: int, servers: dict[str, list[tuple[str, str]]] | None) -> dict[str, Any]:
        shown = self._brief(host, page, minor, servers)
        facts = host.facts
        shown["service"] = {
            "id": host.uuid if minor >= _UUIDS_SINCE else host.id,
            "host": host.name,
            "disabled_reason": host.idle_reason,
        }
        shown["hypervisor_type"] = facts.hypervisor_type if facts else ""
        shown["hypervisor_version"] = facts.hypervisor_version if facts else 0
        shown["host_ip"] = facts.host_ip if facts else ""
        if minor >= _BRIEF_SINCE:
            shown["uptime"] = None  # libvirt does not tell it
            return shown
        cpu = {"arch": facts.cpu_arch, "model": facts.cpu_model, "features": list(facts.cpu_features)} if facts else {}
        shown["cpu_info"] = cpu if minor >= 28 else orjson.dumps(cpu).decode()
        return shown | _amounts(host, page)


def _find(conn: Connection, id: str, minor: int) -> Host:
    """The host that a path names.

    Raises: HypervisorNotFound.
    """
    host: Host | None = None
    if minor >= _UUIDS_SINCE:
        host = hosts.by_uuid(conn, id)
    elif (number := row_number(id)) is not None:
        host = hosts.by_id(conn, number)
    if host is None:
        raise HypervisorNotFound(id=id[:100])
    return host


def _marked(conn: Connection, marker: str, minor: int) -> Host:
    """The host after which a page begins.

    Raises: BadRequest.
    """
    try:
        return _find(conn, marker, minor)
    except HypervisorNotFound:
        raise BadRequest(f"marker [{marker[:100]}] not found") from None


def _id(host: Host, minor: int) -> str:
    return host.uuid if minor >= _UUIDS_SINCE else str(host.id)


def _amounts(host: Host, page: HostPage) -> dict[str, int]:
    have = {inventory.resource_class: inventory for inventory in page.inventories.get(host.id, [])}

    def of(name: str) -> Inventory:
        return have.get(name) or Inventory(name, 0)

    cpu, memory, disk = of("VCPU"), of("MEMORY_MB"), of("DISK_GB")
    return {
        "vcpus": cpu.total,
        "vcpus_used": cpu.used,
        "memory_mb": memory.total,
        "memory_mb_used": memory.used + memory.reserved,
        "free_ram_mb": memory.total - memory.used - memory.reserved,
        "local_gb": disk.total,
        "local_gb_used": disk.used + disk.reserved,
        "free_disk_gb": disk.total - disk.used - disk.reserved,
        "disk_available_least": host.facts.disk_free_gb if host.facts else 0,
        "running_vms": page.instances.get(host.name, 0),
        "current_workload": 0,
    }
