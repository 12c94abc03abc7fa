"""Ports: MAC, addresses, and the instance that has them. Ids come from the caller, so that what runs twice finds what it made.

Module functions take a connection; `SqlPortStore` is the `PortStore` that the local network driver is given.
Not for: which address a port gets; see `addresses`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import MacAddressInUse, NetworkNotFound, PortInUse, PortNotFound
from hullwright.objects.networks import FixedIp, Network, NetworkRequest, Port
from hullwright.persistence import networks
from hullwright.persistence.addresses import SubnetPool, lock_subnets, take_default, take_exactly, take_from
from hullwright.persistence.database import Database, now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.networks import addresses, ports
from hullwright.persistence.models.networks import networks as networks_table
from hullwright.persistence.paging import Sort, page

# What the API calls a column when it sorts or filters.
COLUMNS: dict[str, sa.Column[Any]] = {
    **{name: ports.c[name] for name in ("id", "name", "description", "network_id", "mac_address", "device_id", "project_id")},
    "tenant_id": ports.c.project_id,
    "binding:host_id": ports.c.host,
}

# Every build runs these several times, so they are built once. A port comes with its addresses, one row for each.
_PORTS = sa.select(ports, addresses.c.subnet_id, addresses.c.address).join(addresses, addresses.c.port_id == ports.c.id, isouter=True)
_BY_IDS = _PORTS.where(ports.c.id.in_(sa.bindparam("ids", expanding=True)))
_OF_INSTANCES = _PORTS.where(ports.c.device_id.in_(sa.bindparam("instances", expanding=True))).order_by(
    ports.c.position, ports.c.created_at, ports.c.id
)
_BIND = ports.update().where(ports.c.id.in_(sa.bindparam("ids", expanding=True))).values(host=sa.bindparam("to_host"))
_DELETE_OURS = ports.delete().where(ports.c.device_id == sa.bindparam("instance"), ports.c.created_by_build.is_(True))
_FREE_USERS = ports.update().where(ports.c.device_id == sa.bindparam("instance")).values(device_id=None, host=None, position=0)

_PORT_COLUMNS = tuple(name for name in Port.__dataclass_fields__ if name != "fixed_ips")
_MACS_AT_ONCE = 500
_MAC_TRIES = 20  # 16 million MACs: even with a million ports one try in 16 fails


def ensure(conn: Connection, instance_uuid: str, project_id: str, requests: Sequence[NetworkRequest]) -> list[Port]:
    """Have each requested port, in order: made if it is ours to make, taken if the user made it.

    A port that is the instance's already counts as done, addresses included.
    Raises: PortInUse, PortNotFound, NetworkNotFound, NoMoreFixedIps, FixedIpAlreadyInUse, InvalidIpForNetwork.
    """
    present = {port.id: port for port in _by_ids(conn, [request.port_id for request in requests])}
    if all(r.port_id in present and present[r.port_id].device_id == instance_uuid for r in requests):
        return [present[request.port_id] for request in requests]
    missing = [request for request in requests if request.port_id not in present]
    for request in missing:
        if request.user_port:
            raise PortNotFound(id=request.port_id)
    pools = lock_networks(conn, [request.network_id for request in missing])
    answer = []
    for position, request in enumerate(requests):
        if request.port_id in present:
            port = _take(conn, present[request.port_id], instance_uuid, position, request.tag)
        else:
            port = _make(conn, request, instance_uuid, project_id, position, pools[request.network_id])
        answer.append(port)
    return answer


def lock_networks(conn: Connection, network_ids: Sequence[str]) -> dict[str, list[SubnetPool]]:
    """Networks by id with their subnets locked, ready for `create`.

    Raises: NetworkNotFound.
    """
    pools = lock_subnets(conn, network_ids) if network_ids else {}
    bare = sorted({network for network in network_ids if network not in pools})
    if bare:  # without subnets, or not there
        statement = sa.select(networks_table.c.id).where(networks_table.c.id.in_(bare)).with_for_update(read=True)
        found = set(conn.scalars(statement))
        for network in bare:
            if network not in found:
                raise NetworkNotFound(id=network)
            pools[network] = []
    return pools


def create(conn: Connection, port: Port, pools: Sequence[SubnetPool], *, position: int = 0, addresses_by_default: bool = True) -> Port:
    """Write a port. Without a MAC it gets one; `fixed_ips` may name a subnet, an address or both; without any it gets the usual ones.

    `pools`: the network's, from `lock_networks`. `addresses_by_default`: False leaves a port without fixed_ips without addresses.
    Raises: PortInUse when the id is taken, MacAddressInUse, NoMoreFixedIps, FixedIpAlreadyInUse, InvalidIpForNetwork, SubnetNotFound.
    """
    values = {name: getattr(port, name) for name in _PORT_COLUMNS} | {"position": position}
    for _ in range(_MAC_TRIES):
        values["mac_address"] = port.mac_address.lower() or _new_mac()
        if insert_if_absent(conn, ports, values):
            break
        if conn.execute(sa.select(ports.c.id).where(ports.c.id == port.id)).first() is not None:
            raise PortInUse(id=port.id)
        if port.mac_address:
            raise MacAddressInUse(mac=port.mac_address, network=port.network_id)
    else:
        raise MacAddressInUse(mac=values["mac_address"], network=port.network_id)
    taken: list[FixedIp] = []
    for wanted in port.fixed_ips:
        if wanted.address:
            subnet_id = wanted.subnet_id or None
            taken.append(take_exactly(conn, port.network_id, port.id, pools, wanted.address, subnet_id))
        else:
            taken.append(take_from(conn, port.network_id, port.id, pools, wanted.subnet_id))
    if not port.fixed_ips and addresses_by_default:
        taken = take_default(conn, port.network_id, port.id, pools)
    return replace(port, mac_address=values["mac_address"], fixed_ips=tuple(taken))


def get(conn: Connection, port_id: str) -> Port:
    """One port.

    Raises: PortNotFound.
    """
    found = _by_ids(conn, [port_id])
    if not found:
        raise PortNotFound(id=port_id)
    return found[0]


def of_project(project_id: str) -> sa.ColumnElement[bool]:
    """Condition: the project's."""
    return ports.c.project_id == project_id


def with_address(*, address: str | None = None, part: str | None = None, subnet_id: str | None = None) -> sa.ColumnElement[bool]:
    """Condition: has this address, or one that holds this part, or one of this subnet."""
    asked = {addresses.c.address: address, addresses.c.subnet_id: subnet_id}
    found = sa.select(addresses.c.port_id).where(*(column == value for column, value in asked.items() if value is not None))
    if part is not None:
        found = found.where(addresses.c.address.contains(part, autoescape=True))
    return ports.c.id.in_(found)


def list_all(
    conn: Connection,
    *,
    where: Iterable[sa.ColumnElement[bool]] = (),
    sort: Sort = (("created_at", False),),
    marker: str | None = None,
    limit: int | None = None,
) -> list[Port]:
    """A page of ports, oldest first unless sorted otherwise.

    Raises: LookupError when the marker is not there.
    """
    rows = page(conn, sa.select(ports.c.id).where(*where), ports, sort, marker, limit)
    by_id = {port.id: port for port in _by_ids(conn, [row["id"] for row in rows])}
    return [by_id[row["id"]] for row in rows if row["id"] in by_id]


def of_instance(conn: Connection, instance_uuid: str) -> list[Port]:
    """The ports of an instance, in the order of the request."""
    return of_instances(conn, [instance_uuid])[instance_uuid]


def of_instances(conn: Connection, instance_uuids: Sequence[str]) -> dict[str, list[Port]]:
    """Instance uuid -> its ports in the order of the request; one statement however many there are."""
    answer: dict[str, list[Port]] = {uuid: [] for uuid in instance_uuids}
    for port in _collected(conn.execute(_OF_INSTANCES, {"instances": list(instance_uuids)}).mappings()):
        answer[str(port.device_id)].append(port)
    return answer


def update(conn: Connection, port_id: str, **changes: Any) -> None:
    """Change columns of a port.

    Raises: PortNotFound, MacAddressInUse.
    """
    if "mac_address" in changes:
        owner = conn.scalar(sa.select(ports.c.id).where(ports.c.mac_address == changes["mac_address"]))
        if owner not in (None, port_id):
            raise MacAddressInUse(mac=changes["mac_address"], network="?")
    if changes and conn.execute(ports.update().where(ports.c.id == port_id).values(**changes)).rowcount == 0:
        raise PortNotFound(id=port_id)


def replace_addresses(conn: Connection, port: Port, wanted: Sequence[FixedIp]) -> None:
    """Give the port exactly `wanted`; what it has of it already it keeps.

    Raises: NoMoreFixedIps, FixedIpAlreadyInUse, InvalidIpForNetwork, SubnetNotFound.
    """
    pools = lock_networks(conn, [port.network_id])[port.network_id]
    kept = [have for have in port.fixed_ips if any(_satisfies(have, want) for want in wanted)]
    for have in port.fixed_ips:
        if have not in kept:
            conn.execute(addresses.delete().where(addresses.c.port_id == port.id, addresses.c.address == have.address))
    for want in wanted:
        if any(_satisfies(have, want) for have in kept):
            continue
        if want.address:
            take_exactly(conn, port.network_id, port.id, pools, want.address, want.subnet_id or None)
        else:
            take_from(conn, port.network_id, port.id, pools, want.subnet_id)


def known_macs(conn: Connection, macs: Sequence[str]) -> set[str]:
    """Those of the MACs that are some port's."""
    found: set[str] = set()
    for start in range(0, len(macs), _MACS_AT_ONCE):
        found |= set(conn.scalars(sa.select(ports.c.mac_address).where(ports.c.mac_address.in_(macs[start : start + _MACS_AT_ONCE]))))
    return found


def bind(conn: Connection, port_ids: Sequence[str], host: str | None) -> None:
    """Record where ports are plugged; None: nowhere."""
    if port_ids:
        conn.execute(_BIND, {"ids": list(port_ids), "to_host": host})


def release(conn: Connection, instance_uuid: str) -> None:
    """Delete the ports that builds made for the instance, addresses with them; unbind and free those that users made."""
    conn.execute(_DELETE_OURS, {"instance": instance_uuid})
    conn.execute(_FREE_USERS, {"instance": instance_uuid})


def give_up(conn: Connection, port_id: str) -> bool:
    """Delete a port that a build made, free one that a user made; answers whether it was deleted. For reconciliation."""
    if conn.execute(ports.delete().where(ports.c.id == port_id, ports.c.created_by_build.is_(True))).rowcount:
        return True
    conn.execute(ports.update().where(ports.c.id == port_id).values(device_id=None, host=None, position=0))
    return False


def delete(conn: Connection, port_id: str) -> None:
    """Delete a port and its addresses.

    Raises: PortNotFound.
    """
    if conn.execute(ports.delete().where(ports.c.id == port_id)).rowcount == 0:
        raise PortNotFound(id=port_id)


def _make(
    conn: Connection,
    request: NetworkRequest,
    instance_uuid: str,
    project_id: str,
    position: int,
    pools: Sequence[SubnetPool],
) -> Port:
    """The port of a request, made by the build."""
    port = Port(
        id=request.port_id,
        network_id=request.network_id,
        mac_address="",
        fixed_ips=(FixedIp("", request.fixed_ip),) if request.fixed_ip else (),
        device_id=instance_uuid,
        created_by_build=True,
        project_id=project_id,
        tag=request.tag,
        created_at=now(),
    )
    try:
        return create(conn, port, pools, position=position)
    except PortInUse:
        # Another process made it since we looked. The instance's own is what we wanted.
        found = get(conn, request.port_id)
        if found.device_id == instance_uuid:
            return found
        raise


def _take(conn: Connection, port: Port, instance_uuid: str, position: int, tag: str | None) -> Port:
    """A port that is there: the instance's own, or a free one, by compare-and-swap on its owner."""
    if port.device_id == instance_uuid:
        return port
    free = sa.or_(ports.c.device_id.is_(None), ports.c.device_id == "")
    values = {"device_id": instance_uuid, "position": position, "tag": tag}
    if port.created_by_build or conn.execute(ports.update().where(ports.c.id == port.id, free).values(**values)).rowcount == 0:
        raise PortInUse(id=port.id)
    return replace(port, device_id=instance_uuid, tag=tag)


def _satisfies(have: FixedIp, want: FixedIp) -> bool:
    return want.address in ("", have.address) and want.subnet_id in ("", have.subnet_id)


def _by_ids(conn: Connection, port_ids: Sequence[str]) -> list[Port]:
    if not port_ids:
        return []
    return _collected(conn.execute(_BY_IDS, {"ids": list(port_ids)}).mappings())


def _collected(rows: Iterable[sa.RowMapping]) -> list[Port]:
    """Ports of rows, in the order of their first rows; their addresses with IPv4 first, as `take_default` gives them."""
    found: dict[str, tuple[sa.RowMapping, list[FixedIp]]] = {}
    for row in rows:
        _, fixed_ips = found.setdefault(row["id"], (row, []))
        if row["address"] is not None:
            fixed_ips.append(FixedIp(row["subnet_id"], row["address"]))
    return [
        Port(
            fixed_ips=tuple(sorted(fixed_ips, key=lambda fixed: (":" in fixed.address, fixed.address))),
            **{name: row[name] for name in _PORT_COLUMNS},
        )
        for row, fixed_ips in found.values()
    ]


def _new_mac() -> str:
    """A random MAC with OpenStack's prefix: locally administered, unicast, known to DHCP servers and to people."""
    tail = secrets.token_bytes(3)
    return f"fa:16:3e:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}"


class SqlPortStore:
    """The `PortStore` on the database: each call is one transaction."""

    def __init__(self, db: Database) -> None:
        """Keep the door to the database."""
        self._db = db

    def network(self, network_id: str) -> Network:
        """One network with its subnets.

        Raises: NetworkNotFound.
        """
        with self._db.read() as conn:
            return networks.get(conn, network_id)

    def ensure_ports(self, instance_uuid: str, project_id: str, requests: Sequence[NetworkRequest]) -> list[Port]:
        """See `ensure`."""
        if not requests:
            return []
        with self._db.write() as conn:
            return ensure(conn, instance_uuid, project_id, requests)

    def ports_of(self, instance_uuid: str) -> list[Port]:
        """See `of_instance`."""
        with self._db.read() as conn:
            return of_instance(conn, instance_uuid)

    def known_macs(self, macs: Sequence[str]) -> set[str]:
        """See the function `known_macs`."""
        with self._db.read() as conn:
            return known_macs(conn, macs)

    def bind(self, port_ids: Sequence[str], host: str | None) -> None:
        """See the function `bind`."""
        if port_ids:
            with self._db.write() as conn:
                bind(conn, port_ids, host)

    def release(self, instance_uuid: str) -> None:
        """See the function `release`."""
        with self._db.write() as conn:
            release(conn, instance_uuid)
