"""Subnets: list, create, show, change, delete; their arithmetic is in `ranges`."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

import falcon
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.api.bodies import BOOLEAN, TEXT, TEXT_OR_NULL, Body, only
from hullwright.api.context import Caller, caller
from hullwright.api.errors import HttpError
from hullwright.api.network import ranges
from hullwright.api.network.listing import Listing, show
from hullwright.api.network.networks import changeable, visible
from hullwright.api.network.views import subnet_view
from hullwright.api.queries import PageRequest
from hullwright.api.resource import Resource, send
from hullwright.api.schemas.parts import UUID
from hullwright.objects.errors import NetworkNotFound, SubnetNotFound
from hullwright.objects.networks import Network, Subnet
from hullwright.persistence import addresses, networks
from hullwright.persistence.database import now

_POOLS = {
    "type": ["array", "null"],
    "items": {
        "type": "object",
        "properties": {"start": {"type": "string"}, "end": {"type": "string"}},
        "required": ["start", "end"],
        "additionalProperties": False,
    },
}
_CHANGEABLE: dict[str, Any] = {
    "name": TEXT,
    "enable_dhcp": BOOLEAN,
    "gateway_ip": {"type": ["string", "null"]},
    "allocation_pools": _POOLS,
    "dns_nameservers": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": 5, "uniqueItems": True},
    "host_routes": only([], None),
    "description": TEXT,
}
_CREATE = Body(
    "subnet",
    {
        **_CHANGEABLE,
        "network_id": UUID,
        "cidr": {"type": "string"},
        "ip_version": {"enum": [4, 6]},
        "project_id": TEXT_OR_NULL,
        "tenant_id": TEXT_OR_NULL,
        "ipv6_ra_mode": only(None),
        "ipv6_address_mode": only(None),
        "subnetpool_id": only(None),
    },
    required=("network_id", "cidr"),
)
_UPDATE = Body("subnet", _CHANGEABLE)
_LISTING = Listing("subnets", networks.SUBNET_COLUMNS)


def _found(conn: Connection, who: Caller, subnet_id: str, *, change: bool) -> tuple[Subnet, Network]:
    """A subnet and its network, which says who may see and change it.

    Raises: SubnetNotFound, Forbidden.
    """
    subnet = networks.get_subnet(conn, subnet_id)
    try:
        return subnet, (changeable if change else visible)(conn, who, subnet.network_id)
    except NetworkNotFound:
        raise SubnetNotFound(id=subnet_id) from None


class Subnets(Resource):
    """GET and POST /v2.0/subnets."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of the subnets of networks that the caller may see."""
        who = caller(req)
        theirs = [] if who.is_admin else [networks.subnets_usable_by(who.project_id)]
        projects: dict[str, str | None] = {}
        with self.context.db.read() as conn:

            def read(where: list[sa.ColumnElement[bool]], page: PageRequest, limit: int | None) -> list[Subnet]:
                found = networks.list_subnets(conn, where=[*where, *theirs], sort=page.sort, marker=page.marker, limit=limit)
                projects.update(networks.projects_of(conn, {subnet.network_id for subnet in found}))
                return found

            send(resp, _LISTING.answer(req, self.context, read, lambda subnet: subnet_view(subnet, projects.get(subnet.network_id))))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A new subnet of a network."""
        given = _CREATE.read(req, self.context.conf)
        net = ranges.parse_cidr(given["cidr"], given.get("ip_version", 4))
        gateway = ranges.parse_gateway(net, given["gateway_ip"]) if "gateway_ip" in given else ranges.default_gateway(net)
        pools = ranges.parse_pools(net, gateway, given.get("allocation_pools"))
        with self.context.db.write() as conn:
            networks.lock_ranges(conn)
            network = changeable(conn, caller(req), given["network_id"])
            _refuse_overlap(conn, network, net)
            subnet = Subnet(
                id=str(uuid.uuid4()),
                network_id=network.id,
                name=given.get("name", ""),
                description=given.get("description", ""),
                cidr=str(net),
                ip_version=net.version,
                gateway_ip=gateway,
                enable_dhcp=given.get("enable_dhcp", True),
                dns_nameservers=ranges.parse_nameservers(given.get("dns_nameservers") or []),
                allocation_pools=pools,
                created_at=now(),
            )
            networks.create_subnet(conn, subnet)
        send(resp, {"subnet": subnet_view(subnet, network.project_id)}, 201)


class SubnetItem(Resource):
    """GET, PUT and DELETE /v2.0/subnets/{subnet_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, subnet_id: str) -> None:
        """The subnet."""
        with self.context.db.read() as conn:
            subnet, network = _found(conn, caller(req), subnet_id, change=False)
        send(resp, show(req, "subnet", subnet_view(subnet, network.project_id)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, subnet_id: str) -> None:
        """Change it; hosts hear of it when the next guest is plugged there."""
        given = _UPDATE.read(req, self.context.conf)
        with self.context.db.write() as conn:
            subnet, network = _found(conn, caller(req), subnet_id, change=True)
            net = ipaddress.ip_network(subnet.cidr)
            changes: dict[str, Any] = {name: given[name] for name in ("name", "description", "enable_dhcp") if name in given}
            gateway = subnet.gateway_ip
            if "gateway_ip" in given:
                gateway = changes["gateway_ip"] = ranges.parse_gateway(net, given["gateway_ip"])
                if gateway is not None and gateway != subnet.gateway_ip:
                    _refuse_taken(conn, subnet_id, gateway)
            if given.get("allocation_pools") is not None:
                changes["allocation_pools"] = ranges.parse_pools(net, gateway, given["allocation_pools"])
                changes["next_address"] = None
            elif gateway != subnet.gateway_ip:
                ranges.parse_pools(net, gateway, [{"start": a, "end": b} for a, b in subnet.allocation_pools])
            if "dns_nameservers" in given:
                changes["dns_nameservers"] = ranges.parse_nameservers(given["dns_nameservers"] or [])
            networks.update_subnet(conn, subnet_id, **changes)
            subnet = networks.get_subnet(conn, subnet_id)
        send(resp, {"subnet": subnet_view(subnet, network.project_id)})

    def on_delete(self, req: falcon.Request, resp: falcon.Response, subnet_id: str) -> None:
        """Delete it, unless a port has an address of it."""
        with self.context.db.write() as conn:
            _found(conn, caller(req), subnet_id, change=True)
            networks.delete_subnet(conn, subnet_id)
        resp.status = 204


def _refuse_taken(conn: Connection, subnet_id: str, address: str) -> None:
    """A guest's address cannot become the gateway's.

    Raises: HttpError 409.
    """
    if (port_id := addresses.holder(conn, address, subnet_id=subnet_id)) is not None:
        raise HttpError(409, f"Gateway IP {address} is in use by port {port_id}.")


def _refuse_overlap(conn: Connection, network: Network, net: ranges.Net) -> None:
    """Ranges of one network never overlap; nor may those of two that a host routes, for it could not tell them apart.

    Raises: HttpError 400.
    """
    for other in networks.list_all(conn):
        if other.id != network.id and "bridge" in (other.mode, network.mode):
            continue
        for subnet in other.subnets:
            if subnet.ip_version == net.version and ipaddress.ip_network(subnet.cidr).overlaps(net):
                raise HttpError(
                    400,
                    f"Invalid input for operation: Requested subnet with cidr: {net} for network: {network.id} overlaps with "
                    f"subnet {subnet.id} ({subnet.cidr}) of network {other.id}.",
                )
