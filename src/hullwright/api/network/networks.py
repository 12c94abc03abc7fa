"""Networks: list, create, show, change, delete.

Deleting one removes its record; a job takes what hosts have of it away.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import falcon
from sqlalchemy.engine import Connection

from hullwright.api.bodies import BOOLEAN, TEXT, TEXT_OR_NULL, Body, only
from hullwright.api.context import Caller, caller, request_id
from hullwright.api.errors import HttpError
from hullwright.api.network.listing import Listing, show
from hullwright.api.network.views import BRIDGE, MODE, network_view
from hullwright.api.resource import Resource, send
from hullwright.objects.errors import Forbidden, NetworkNotFound
from hullwright.objects.networks import Network
from hullwright.persistence import networks
from hullwright.persistence.database import now

_MODES = ("nat", "route", "isolated", "open", "bridge")
# IFNAMSIZ is 16 with the closing zero; the characters are those that every tool takes.
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)

_CHANGEABLE: dict[str, Any] = {
    "name": TEXT,
    "shared": BOOLEAN,
    "mtu": {"type": ["integer", "string"], "pattern": "^[0-9]{2,5}$"},  # clients send either
    "port_security_enabled": BOOLEAN,
    # What cannot be otherwise may be said all the same: clients send their defaults.
    "admin_state_up": only(True),
    "router:external": only(False),
    "description": TEXT,
}
_CREATE = Body(
    "network",
    {
        **_CHANGEABLE,
        "project_id": TEXT_OR_NULL,
        "tenant_id": TEXT_OR_NULL,
        "provider:network_type": {"enum": ["flat", "local"]},
        "provider:physical_network": TEXT_OR_NULL,
        "availability_zone_hints": only([]),
        MODE: {"enum": list(_MODES)},
        BRIDGE: TEXT_OR_NULL,
    },
)
_UPDATE = Body("network", _CHANGEABLE)
_LISTING = Listing("networks", networks.COLUMNS)


def visible(conn: Connection, who: Caller, network_id: str) -> Network:
    """A network that the caller may see.

    Raises: NetworkNotFound.
    """
    network = networks.get(conn, network_id)
    if who.is_admin or network.shared or network.project_id == who.project_id:
        return network
    raise NetworkNotFound(id=network_id)


def changeable(conn: Connection, who: Caller, network_id: str) -> Network:
    """A network that the caller may change.

    Raises: NetworkNotFound, Forbidden.
    """
    network = visible(conn, who, network_id)
    if not who.is_admin and network.project_id != who.project_id:
        raise Forbidden(reason=f"Network {network_id} belongs to another project.")
    return network


class Networks(Resource):
    """GET and POST /v2.0/networks."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of the networks that the caller may see."""
        who = caller(req)
        mine = [] if who.is_admin else [networks.usable_by(who.project_id)]
        with self.context.db.read() as conn:
            send(
                resp,
                _LISTING.answer(
                    req,
                    self.context,
                    lambda where, page, limit: networks.list_all(
                        conn, where=[*where, *mine], sort=page.sort, marker=page.marker, limit=limit
                    ),
                    lambda network: network_view(network, admin=who.is_admin),
                ),
            )

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A new network, carried as `hullwright:mode` says; a flat one is a bridge that the hosts have."""
        given = _CREATE.read(req, self.context.conf)
        who = caller(req)
        mode, bridge = _carriage(given)
        project_id = given.get("project_id") or given.get("tenant_id") or who.project_id
        carriage = (MODE, BRIDGE, "provider:network_type", "provider:physical_network")
        if not who.is_admin and (project_id != who.project_id or given.get("shared") or any(name in given for name in carriage)):
            raise HttpError(403, "Only an administrator may share a network, give it away, or say how hosts carry it.")
        network = Network(
            id=str(uuid.uuid4()),
            name=given.get("name", ""),
            description=given.get("description", ""),
            mode=mode,
            bridge=bridge,
            mtu=_mtu(given.get("mtu", 1500)),
            shared=given.get("shared", False),
            port_security=given.get("port_security_enabled", True),
            project_id=project_id,
            created_at=now(),
        )
        with self.context.db.write() as conn:
            networks.create(conn, network)
        send(resp, {"network": network_view(network, admin=who.is_admin)}, 201)


class NetworkItem(Resource):
    """GET, PUT and DELETE /v2.0/networks/{network_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, network_id: str) -> None:
        """The network."""
        with self.context.db.read() as conn:
            network = visible(conn, caller(req), network_id)
        send(resp, show(req, "network", network_view(network, admin=caller(req).is_admin)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, network_id: str) -> None:
        """Change it."""
        given = _UPDATE.read(req, self.context.conf)
        who = caller(req)
        columns = {"name": "name", "description": "description", "shared": "shared", "mtu": "mtu", "port_security_enabled": "port_security"}
        with self.context.db.write() as conn:
            network = changeable(conn, who, network_id)
            if given.get("shared", network.shared) != network.shared and not who.is_admin:
                raise HttpError(403, "Only an administrator may share a network.")
            changes = {columns[name]: given[name] for name in columns if name in given}
            if "mtu" in changes:
                changes["mtu"] = _mtu(changes["mtu"])
            networks.update(conn, network_id, **changes)
            network = networks.get(conn, network_id)
        send(resp, {"network": network_view(network, admin=who.is_admin)})

    def on_delete(self, req: falcon.Request, resp: falcon.Response, network_id: str) -> None:
        """Delete it with its subnets, unless it has ports; hosts are told by a job."""
        with self.context.db.read() as conn:
            changeable(conn, caller(req), network_id)
        self.context.client.delete_network(network_id, request_id(req))
        resp.status = 204


def _mtu(given: int | str) -> int:
    """Bytes: at least what IPv4 needs (RFC 791), at most what a packet's length can say.

    Raises: HttpError 400.
    """
    mtu = int(given)
    if not 68 <= mtu <= 65535:
        raise HttpError(400, f"Invalid input for mtu. Reason: '{given}' is not between 68 and 65535.")
    return mtu


def _carriage(given: dict[str, Any]) -> tuple[str, str | None]:
    """(mode, bridge) from our own attributes or the provider's.

    Raises: HttpError 400.
    """
    bridge = given.get(BRIDGE) or given.get("provider:physical_network")
    mode = given.get(MODE) or ("bridge" if given.get("provider:network_type") == "flat" else "nat")
    if mode == "bridge" and not bridge:
        raise HttpError(400, f"A bridged network needs the bridge's name: provider:physical_network or {BRIDGE}.")
    if mode != "bridge" and given.get("provider:physical_network"):
        raise HttpError(400, "provider:physical_network is for networks of the type flat.")
    if bridge and not _BRIDGE.fullmatch(bridge):
        raise HttpError(400, f"'{bridge}' is no name of a bridge: at most 15 letters, digits, '_', '.' and '-'.")
    return mode, bridge
