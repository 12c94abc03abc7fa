"""The `networks` of a create request: which cards the server gets, with the port ids that its build will use.

Absent (before 2.37) or "auto": the one network that the project can use. Several are ambiguous: 409. With none, an absent list means
no card, while "auto" is refused, for the user asked for a network. "none": no card.
Whether an address or a port is still free is decided when the build takes it; what can be seen to be taken is refused here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.engine import Connection

from hullwright.api.context import Caller
from hullwright.api.links import plain_address
from hullwright.objects.errors import BadRequest, Conflict, NetworkNotFound, PortInUse, PortNotFound
from hullwright.objects.networks import Network, NetworkRequest
from hullwright.persistence import addresses, networks, ports


def choose(conn: Connection, wanted: Any, who: Caller, count: int) -> tuple[NetworkRequest, ...]:
    """The cards that `wanted`, the request's `networks` or None, asks for. `count`: how many servers are asked for.

    Raises: BadRequest, Conflict.
    """
    if wanted == "none":
        return ()
    if wanted is None or wanted == "auto" or wanted == []:
        return _only_network(conn, who, asked=wanted == "auto")
    return _each(conn, wanted, who, count)


def again(requests: Sequence[NetworkRequest]) -> tuple[NetworkRequest, ...]:
    """The same cards for another server of the batch: with ports of its own."""
    return tuple(replace(request, port_id=str(uuid4())) for request in requests)


def _only_network(conn: Connection, who: Caller, *, asked: bool) -> tuple[NetworkRequest, ...]:
    ids = networks.list_usable_ids(conn, who.project_id, limit=2)
    if len(ids) > 1:
        raise Conflict(reason="Multiple possible networks found, use a Network ID to be more specific.")
    if not ids:
        if asked:
            raise BadRequest(f"Unable to automatically allocate a network for project {who.project_id}: there is none.")
        return ()
    return (NetworkRequest(port_id=str(uuid4()), network_id=ids[0]),)


def _each(conn: Connection, wanted: Sequence[Mapping[str, Any]], who: Caller, count: int) -> tuple[NetworkRequest, ...]:
    requests = []
    for card in wanted:
        if card.get("port"):
            requests.append(_with_port(conn, card, who, count))
        elif card.get("uuid"):
            requests.append(_on_network(card, count))
        else:
            raise BadRequest("Bad networks format: each entry needs a network's uuid or a port.")
    user_ports = [request.port_id for request in requests if request.user_port]
    if len(set(user_ports)) != len(user_ports):
        raise BadRequest("A port is given more than once.")
    try:
        found = networks.get_many(conn, sorted({request.network_id for request in requests}))
    except NetworkNotFound as error:
        raise BadRequest(error.text) from None
    for request in requests:
        if not request.user_port:
            _check_network(conn, found[request.network_id], request, who)
    return tuple(requests)


def _with_port(conn: Connection, card: Mapping[str, Any], who: Caller, count: int) -> NetworkRequest:
    port_id = str(UUID(card["port"]))
    if card.get("fixed_ip"):
        raise BadRequest(
            f"Specified Fixed IP '{card['fixed_ip']}' cannot be used with port '{port_id}': the two cannot be specified together."
        )
    if count > 1:
        raise BadRequest("Failed to launch multiple servers with one port: give networks instead.")
    try:
        port = ports.get(conn, port_id)
    except PortNotFound as error:
        raise BadRequest(error.text) from None
    if port.project_id not in (None, who.project_id) and not who.is_admin:
        raise BadRequest(PortNotFound(id=port_id).text)
    if port.device_id:
        raise PortInUse(id=port_id)
    return NetworkRequest(port_id=port_id, network_id=port.network_id, user_port=True, tag=card.get("tag"))


def _on_network(card: Mapping[str, Any], count: int) -> NetworkRequest:
    try:
        network_id = str(UUID(card["uuid"]))
    except ValueError:
        # Before 2.37 the schema lets any string pass; long ago some were br-<uuid>.
        raise BadRequest(f"Bad networks format: network uuid is not in proper format ({card['uuid'][:100]})") from None
    if card.get("fixed_ip") and count > 1:
        raise BadRequest("Invalid fixed IP Address and max count: several servers cannot have one address.")
    return NetworkRequest(port_id=str(uuid4()), network_id=network_id, fixed_ip=plain_address(card.get("fixed_ip")), tag=card.get("tag"))


def _check_network(conn: Connection, network: Network, request: NetworkRequest, who: Caller) -> None:
    if not (network.shared or network.project_id == who.project_id or who.is_admin):
        raise BadRequest(NetworkNotFound(id=network.id).text)
    if not network.subnets:
        raise BadRequest(f"Network {network.id} requires a subnet in order to boot instances on.")
    if request.fixed_ip is None:
        return
    address = ipaddress.ip_address(request.fixed_ip)
    if not any(address in ipaddress.ip_network(subnet.cidr) for subnet in network.subnets):
        raise BadRequest(f"Fixed IP {address} is not a valid ip address for network {network.id}.")
    if addresses.holder(conn, str(address), network_id=network.id) is not None:
        raise BadRequest(f"Fixed IP address {address} is already in use on network {network.id}.")
