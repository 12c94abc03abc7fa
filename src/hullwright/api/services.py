"""/os-services and /os-availability-zone: hosts as nova-compute, conductors as nova-conductor, under the names that clients know."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import falcon

from hullwright.api.context import microversion
from hullwright.api.queries import last
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import services as schemas
from hullwright.api.schemas.parts import truth
from hullwright.api.times import iso_micro
from hullwright.objects.errors import BadRequest, NotFound
from hullwright.objects.hosts import Host, is_up
from hullwright.persistence import conductors, hosts

_UUIDS_SINCE = 53
_INTERNAL_ZONE = "internal"


class ServiceNotFound(NotFound):
    """No such service."""

    message = "Service {id} could not be found."


class Services(Resource):
    """All services."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Hosts and conductors; `host` and `binary` choose among them."""
        self.require(req, "os-services")
        minor, name = microversion(req), last(req, "host")
        with self.context.db.read() as conn:
            found = hosts.list_all(conn) if name is None else [hosts.by_name(conn, name)]
            shown = [self._compute(host, minor) for host in found if host is not None]
            shown += [_conductor(row, minor, self.context.conf.conductor.lease_seconds) for row in conductors.list_all(conn)]
        for field in ("host", "binary"):
            if (wanted := last(req, field)) is not None:
                shown = [service for service in shown if service[field] == wanted]
        send(resp, {"services": shown})

    def on_put_one(self, req: falcon.Request, resp: falcon.Response, service_id: str) -> None:
        """Enable, disable, or declare down a host; a conductor has no such switch. Before 2.53 the path names what to do, the body whom."""
        if microversion(req) >= _UUIDS_SINCE:
            self._update(req, resp, service_id)
        else:
            self._act(req, resp, service_id)

    def _act(self, req: falcon.Request, resp: falcon.Response, action: str) -> None:
        """The older form: enable, disable, disable-log-reason, force-down."""
        minor = microversion(req)
        if action not in schemas.ACTIONS or minor < schemas.ACTIONS_SINCE[action]:
            raise NotFound("Unknown action")
        self.require(req, "os-services")
        given = self.body(req, schemas.ACTIONS[action])
        shown = {"host": given["host"], "binary": given["binary"]}
        with self.context.db.write() as conn:
            if given["binary"] != "nova-compute":
                raise ServiceNotFound(id=f"{given['binary']} on {given['host']}")
            if action == "enable":
                hosts.enable(conn, given["host"])
                shown["status"] = "enabled"
            elif action == "force-down":
                shown["forced_down"] = truth(given["forced_down"])
                hosts.force_down(conn, given["host"], shown["forced_down"])
            else:
                hosts.disable(conn, given["host"], given.get("disabled_reason"))
                shown["status"] = "disabled"
                if action == "disable-log-reason":
                    shown["disabled_reason"] = given["disabled_reason"]
        send(resp, {"service": shown})

    def _update(self, req: falcon.Request, resp: falcon.Response, service_id: str) -> None:
        self.require(req, "os-services")
        given = self.body(req, schemas.UPDATE)
        if "disabled_reason" in given and given.get("status") != "disabled":
            raise BadRequest("Specifying disabled_reason requires that status is disabled.")
        with self.context.db.write() as conn:
            host = hosts.by_uuid(conn, service_id)
            if host is None:
                if conductors.exists(conn, service_id):
                    raise BadRequest("Updating a nova-conductor service is not supported. Must be nova-compute.")
                raise ServiceNotFound(id=service_id[:100])
            if given.get("status") == "enabled":
                hosts.enable(conn, host.name)
            elif given.get("status") == "disabled":
                hosts.disable(conn, host.name, given.get("disabled_reason"))
            if "forced_down" in given:
                hosts.force_down(conn, host.name, truth(given["forced_down"]))
            host = hosts.get(conn, host.name)
        send(resp, {"service": self._compute(host, microversion(req))})

    def _compute(self, host: Host, minor: int) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": host.uuid if minor >= _UUIDS_SINCE else host.id,
            "binary": "nova-compute",
            "host": host.name,
            "zone": host.availability_zone,
            # As Nova shows what its own compute service disabled after failed builds. Enabling it ends the quarantine.
            "status": "enabled" if host.takes_builds else "disabled",
            "state": "up" if is_up(host, self.context.conf.compute.service_down_time) else "down",
            "updated_at": iso_micro(host.last_seen_at) if host.last_seen_at else None,
            "disabled_reason": host.idle_reason,
        }
        if minor >= 11:
            shown["forced_down"] = host.forced_down
        return shown


def _beat_at(row: Mapping[str, Any], lease_seconds: float) -> str | None:
    """When a conductor last renewed its lease; all of an installation have leases of the same length."""
    return iso_micro(max(row["expires_at"] - lease_seconds, row["started_at"]))


def _conductor(row: Mapping[str, Any], minor: int, lease_seconds: float) -> dict[str, Any]:
    shown: dict[str, Any] = {
        # Numbers were the ids before 2.53; nothing can be done with a conductor's.
        "id": row["id"] if minor >= _UUIDS_SINCE else zlib.crc32(row["id"].encode()) & 0x7FFFFFFF,
        "binary": "nova-conductor",
        "host": row["hostname"],
        "zone": _INTERNAL_ZONE,
        "status": "enabled",
        "state": "up" if row["is_living"] else "down",
        "updated_at": _beat_at(row, lease_seconds),
        "disabled_reason": None,
    }
    if minor >= 11:
        shown["forced_down"] = False
    return shown


class AvailabilityZones(Resource):
    """Zones: those that hosts are in."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Names, and whether some host of each takes builds."""
        self.require(req, "os-availability-zone:list")
        with self.context.db.read() as conn:
            zones = hosts.list_zones(conn)
        send(resp, {"availabilityZoneInfo": [_zone(name, available, None) for name, available in zones.items()]})

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """With hosts, and conductors in a zone of their own."""
        self.require(req, "os-availability-zone:detail")
        down_seconds = self.context.conf.compute.service_down_time
        shown = []
        for name, members in self._zones().items():
            services = {
                host.name: {
                    "nova-compute": {
                        "available": is_up(host, down_seconds),
                        "active": host.takes_builds,
                        "updated_at": iso_micro(host.last_seen_at) if host.last_seen_at else None,
                    }
                }
                for host in members
            }
            shown.append(_zone(name, any(host.takes_builds for host in members), services))
        with self.context.db.read() as conn:
            internal = {
                row["hostname"]: {
                    "nova-conductor": {
                        "available": row["is_living"],
                        "active": True,
                        "updated_at": _beat_at(row, self.context.conf.conductor.lease_seconds),
                    }
                }
                for row in conductors.list_all(conn)
            }
        if internal:
            shown.append(_zone(_INTERNAL_ZONE, True, internal))
        send(resp, {"availabilityZoneInfo": shown})

    def _zones(self) -> dict[str, list[Host]]:
        zones: dict[str, list[Host]] = {}
        with self.context.db.read() as conn:
            for host in hosts.list_all(conn):
                zones.setdefault(host.availability_zone, []).append(host)
        return dict(sorted(zones.items()))


def _zone(name: str, available: bool, services: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"zoneName": name, "zoneState": {"available": available}, "hosts": services}
