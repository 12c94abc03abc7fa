"""Ports: list, create, show, change, delete. A port of a server is the server's: it is not deleted here."""

from __future__ import annotations

import ipaddress
import re
import uuid
from typing import Any

import falcon
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.api.bodies import BOOLEAN, TEXT, TEXT_OR_NULL, Body, only
from hullwright.api.context import Caller, caller
from hullwright.api.errors import HttpError
from hullwright.api.network.listing import Listing, show
from hullwright.api.network.networks import visible as visible_network
from hullwright.api.network.security_groups import default_group_id
from hullwright.api.network.views import port_view
from hullwright.api.queries import PageRequest, every
from hullwright.api.resource import Resource, send
from hullwright.api.schemas.parts import UUID
from hullwright.objects.errors import PortNotFound
from hullwright.objects.networks import FixedIp, Port
from hullwright.persistence import networks, ports
from hullwright.persistence.database import now

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", re.ASCII)
_FIXED_IPS = {
    "type": "array",
    "maxItems": 16,
    "items": {
        "type": "object",
        "properties": {"subnet_id": UUID, "ip_address": {"type": "string"}},
        "minProperties": 1,
        "additionalProperties": False,
    },
}
_CHANGEABLE: dict[str, Any] = {
    "name": TEXT,
    "fixed_ips": _FIXED_IPS,
    "security_groups": {"type": "array", "items": {"type": "string"}},
    # What cannot be otherwise may be said all the same: clients send their defaults.
    "admin_state_up": only(True),
    "description": TEXT,
    "binding:vnic_type": only("normal"),
    "binding:profile": only({}),
    "allowed_address_pairs": only([]),
    "port_security_enabled": BOOLEAN,
}
_CREATE = Body(
    "port",
    {
        **_CHANGEABLE,
        "network_id": UUID,
        "mac_address": {"type": "string"},
        "project_id": TEXT_OR_NULL,
        "tenant_id": TEXT_OR_NULL,
        "device_id": only(""),
        "device_owner": only(""),
    },
    required=("network_id",),
)
_UPDATE = Body("port", _CHANGEABLE)
_LISTING = Listing("ports", ports.COLUMNS, special=["fixed_ips"])


def _visible(conn: Connection, who: Caller, port_id: str) -> Port:
    """A port that the caller may see and change.

    Raises: PortNotFound.
    """
    port = ports.get(conn, port_id)
    if who.is_admin or port.project_id == who.project_id:
        return port
    raise PortNotFound(id=port_id)


class Ports(Resource):
    """GET and POST /v2.0/ports."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of the caller's ports; of all, for an administrator."""
        who = caller(req)
        mine = [] if who.is_admin else [ports.of_project(who.project_id)]
        by_address = _address_filter(req)
        secured: dict[str, bool] = {}
        with self.context.db.read() as conn:

            def read(where: list[sa.ColumnElement[bool]], page: PageRequest, limit: int | None) -> list[Port]:
                found = ports.list_all(conn, where=[*where, *mine, *by_address], sort=page.sort, marker=page.marker, limit=limit)
                secured.update(networks.port_security_of(conn, {port.network_id for port in found}))
                return found

            def view(port: Port) -> dict[str, Any]:
                return port_view(port, port_security=secured.get(port.network_id, True), admin=who.is_admin)

            send(resp, _LISTING.answer(req, self.context, read, view))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A new port with its addresses: those asked for, else one of each IP version; an empty list means none."""
        given = _CREATE.read(req, self.context.conf)
        who = caller(req)
        project_id = given.get("project_id") or given.get("tenant_id") or who.project_id
        if not who.is_admin and project_id != who.project_id:
            raise HttpError(403, "Only an administrator may create a port for another project.")
        wanted = Port(
            id=str(uuid.uuid4()),
            network_id=given["network_id"],
            mac_address=_mac(given["mac_address"]) if "mac_address" in given else "",
            fixed_ips=_fixed_ips(given.get("fixed_ips", [])),
            name=given.get("name", ""),
            description=given.get("description", ""),
            project_id=project_id,
            created_at=now(),
        )
        _check_fixed_settings(given, project_id)
        with self.context.db.write() as conn:
            network = visible_network(conn, who, wanted.network_id)
            _check_security(given, network.port_security)
            pools = ports.lock_networks(conn, [network.id])[network.id]
            port = ports.create(conn, wanted, pools, addresses_by_default="fixed_ips" not in given)
        send(resp, {"port": port_view(port, port_security=network.port_security, admin=who.is_admin)}, 201)


class PortItem(Resource):
    """GET, PUT and DELETE /v2.0/ports/{port_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, port_id: str) -> None:
        """The port."""
        who = caller(req)
        with self.context.db.read() as conn:
            port = _visible(conn, who, port_id)
            secured = networks.port_security_of(conn, [port.network_id])[port.network_id]
        send(resp, show(req, "port", port_view(port, port_security=secured, admin=who.is_admin)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, port_id: str) -> None:
        """Change it. The addresses of a server's port stay: the server was told them at its build."""
        given = _UPDATE.read(req, self.context.conf)
        who = caller(req)
        with self.context.db.write() as conn:
            port = _visible(conn, who, port_id)
            secured = networks.port_security_of(conn, [port.network_id])[port.network_id]
            _check_fixed_settings(given, port.project_id or "")
            _check_security(given, secured)
            if "fixed_ips" in given:
                if port.device_id:
                    raise HttpError(409, f"Port {port_id} belongs to server {port.device_id}: its addresses cannot be changed.")
                ports.replace_addresses(conn, port, _fixed_ips(given["fixed_ips"]))
            ports.update(conn, port_id, **{name: given[name] for name in ("name", "description") if name in given})
            port = ports.get(conn, port_id)
        send(resp, {"port": port_view(port, port_security=secured, admin=who.is_admin)})

    def on_delete(self, req: falcon.Request, resp: falcon.Response, port_id: str) -> None:
        """Delete it, unless a server has it."""
        with self.context.db.write() as conn:
            port = _visible(conn, caller(req), port_id)
            if port.device_id:
                raise HttpError(409, f"Port {port_id} is in use by server {port.device_id}; delete the server.")
            ports.delete(conn, port_id)
        resp.status = 204


def _fixed_ips(given: list[dict[str, str]]) -> tuple[FixedIp, ...]:
    return tuple(FixedIp(item.get("subnet_id", ""), item.get("ip_address", "")) for item in given)


def _shortest(address: str) -> str:
    """An address as it is stored; what is none stays as it is, and is nobody's."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _mac(text: str) -> str:
    """A MAC of one guest: no group address, not all zeros.

    Raises: HttpError 400.
    """
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise HttpError(400, f"Invalid input for mac_address. Reason: '{text}' is not a valid MAC address.")
    return mac


def _check_fixed_settings(given: dict[str, Any], project_id: str) -> None:
    """The default security group is the only one.

    Raises: HttpError 400.
    """
    for group in given.get("security_groups", []):
        if group not in ("default", default_group_id(project_id)):
            raise HttpError(400, f"Security group {group} does not exist: there is only the default one.")


def _check_security(given: dict[str, Any], secured: bool) -> None:
    """Whether addresses are checked is said by the network.

    Raises: HttpError 400.
    """
    if given.get("port_security_enabled", secured) != secured:
        raise HttpError(400, "port_security_enabled is set on the network and cannot differ for a port.")


def _address_filter(req: falcon.Request) -> list[sa.ColumnElement[bool]]:
    """Conditions for fixed_ips=ip_address=..., fixed_ips=subnet_id=..., fixed_ips=ip_address_substr=...

    Raises: HttpError 400.
    """
    where: list[sa.ColumnElement[bool]] = []
    for text in every(req, "fixed_ips"):
        name, separator, value = text.partition("=")
        if name == "ip_address" and separator:
            where.append(ports.with_address(address=_shortest(value)))
        elif name == "subnet_id" and separator:
            where.append(ports.with_address(subnet_id=value))
        elif name == "ip_address_substr" and separator:
            where.append(ports.with_address(part=value))
        else:
            raise HttpError(400, f"Invalid filter fixed_ips={text}")
    return where
