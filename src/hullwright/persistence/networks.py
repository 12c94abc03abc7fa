"""Networks and subnets: rows, and the rule that what is in use is not deleted.

Not for: ports (`ports`) and which address one gets (`addresses`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import NetworkInUse, NetworkNotFound, SubnetInUse, SubnetNotFound
from hullwright.objects.networks import Network, Subnet
from hullwright.persistence.models.networks import addresses, networks, ports, subnets
from hullwright.persistence.paging import Sort, page

# What the API calls a column when it sorts or filters.
COLUMNS: dict[str, sa.Column[Any]] = {
    **{name: networks.c[name] for name in ("id", "name", "description", "shared", "mtu", "project_id")},
    "port_security_enabled": networks.c.port_security,
    "tenant_id": networks.c.project_id,
}
SUBNET_COLUMNS: dict[str, sa.Column[Any]] = {
    name: subnets.c[name] for name in ("id", "name", "description", "network_id", "cidr", "ip_version", "gateway_ip", "enable_dhcp")
}


def create(conn: Connection, network: Network) -> None:
    """Write a network; its subnets are written by `create_subnet`."""
    values = network.to_dict()
    del values["subnets"]
    conn.execute(networks.insert(), values)


def get(conn: Connection, network_id: str) -> Network:
    """One network with its subnets.

    Raises: NetworkNotFound.
    """
    return get_many(conn, [network_id])[network_id]


def get_many(conn: Connection, network_ids: Sequence[str]) -> dict[str, Network]:
    """Networks with their subnets, by id.

    Raises: NetworkNotFound, for the first that is not there.
    """
    rows = list(conn.execute(sa.select(networks).where(networks.c.id.in_(network_ids))).mappings())
    found = {network.id: network for network in with_subnets(conn, rows)}
    for network_id in network_ids:
        if network_id not in found:
            raise NetworkNotFound(id=network_id)
    return found


def usable_by(project_id: str) -> sa.ColumnElement[bool]:
    """Condition: a network that the project may use."""
    return sa.or_(networks.c.shared.is_(True), networks.c.project_id == project_id)


def subnets_usable_by(project_id: str) -> sa.ColumnElement[bool]:
    """Condition: a subnet of a network that the project may use."""
    return subnets.c.network_id.in_(sa.select(networks.c.id).where(usable_by(project_id)))


def list_usable_ids(conn: Connection, project_id: str, limit: int) -> list[str]:
    """The ids of networks that the project may use, at most `limit`."""
    return list(conn.scalars(sa.select(networks.c.id).where(usable_by(project_id)).limit(limit)))


def projects_of(conn: Connection, network_ids: Collection[str]) -> dict[str, str | None]:
    """Network id -> whose it is, of those that are there."""
    return dict(conn.execute(sa.select(networks.c.id, networks.c.project_id).where(networks.c.id.in_(network_ids))).tuples().all())


def port_security_of(conn: Connection, network_ids: Collection[str]) -> dict[str, bool]:
    """Network id -> whether its ports' addresses are checked, of those that are there."""
    return dict(conn.execute(sa.select(networks.c.id, networks.c.port_security).where(networks.c.id.in_(network_ids))).tuples().all())


def list_all(
    conn: Connection,
    *,
    where: Iterable[sa.ColumnElement[bool]] = (),
    sort: Sort = (("created_at", False),),
    marker: str | None = None,
    limit: int | None = None,
) -> list[Network]:
    """A page of networks with their subnets, oldest first unless sorted otherwise.

    Raises: LookupError when the marker is not there.
    """
    return with_subnets(conn, page(conn, sa.select(networks).where(*where), networks, sort, marker, limit))


def with_subnets(conn: Connection, rows: Sequence[sa.RowMapping]) -> list[Network]:
    """Networks from their rows, the subnets read in one statement."""
    by_network: dict[str, list[Subnet]] = {row["id"]: [] for row in rows}
    if rows:
        found = conn.execute(
            sa.select(subnets).where(subnets.c.network_id.in_(list(by_network))).order_by(subnets.c.created_at, subnets.c.id)
        ).mappings()
        for row in found:
            by_network[row["network_id"]].append(_subnet(row))
    return [Network(**row, subnets=tuple(by_network[row["id"]])) for row in rows]


def update(conn: Connection, network_id: str, **changes: Any) -> None:
    """Change columns of a network.

    Raises: NetworkNotFound.
    """
    if not changes:
        return
    if conn.execute(networks.update().where(networks.c.id == network_id).values(**changes)).rowcount == 0:
        raise NetworkNotFound(id=network_id)


def delete(conn: Connection, network_id: str) -> None:
    """Delete a network with its subnets.

    Raises: NetworkNotFound, NetworkInUse while it has ports.
    """
    # The lock keeps a port from appearing between the look and the delete; ports are made under it too.
    locked = conn.execute(sa.select(networks.c.id).where(networks.c.id == network_id).with_for_update()).one_or_none()
    if locked is None:
        raise NetworkNotFound(id=network_id)
    if conn.execute(sa.select(ports.c.id).where(ports.c.network_id == network_id).limit(1)).first() is not None:
        raise NetworkInUse(id=network_id)
    conn.execute(subnets.delete().where(subnets.c.network_id == network_id))
    conn.execute(networks.delete().where(networks.c.id == network_id))


def lock_ranges(conn: Connection) -> None:
    """Let nobody else add a subnet until the transaction ends, so that ranges compared now do not overlap later. Ports go on."""
    conn.execute(sa.select(networks.c.id).order_by(networks.c.id).with_for_update(key_share=True)).all()


def create_subnet(conn: Connection, subnet: Subnet) -> None:
    """Write a subnet of an existing network."""
    conn.execute(subnets.insert(), subnet.to_dict())


def get_subnet(conn: Connection, subnet_id: str) -> Subnet:
    """One subnet.

    Raises: SubnetNotFound.
    """
    row = conn.execute(sa.select(subnets).where(subnets.c.id == subnet_id)).mappings().one_or_none()
    if row is None:
        raise SubnetNotFound(id=subnet_id)
    return _subnet(row)


def list_subnets(
    conn: Connection,
    *,
    where: Iterable[sa.ColumnElement[bool]] = (),
    sort: Sort = (("created_at", False),),
    marker: str | None = None,
    limit: int | None = None,
) -> list[Subnet]:
    """A page of subnets, oldest first unless sorted otherwise.

    Raises: LookupError when the marker is not there.
    """
    return [_subnet(row) for row in page(conn, sa.select(subnets).where(*where), subnets, sort, marker, limit)]


def update_subnet(conn: Connection, subnet_id: str, **changes: Any) -> None:
    """Change columns of a subnet.

    Raises: SubnetNotFound.
    """
    if not changes:
        return
    if conn.execute(subnets.update().where(subnets.c.id == subnet_id).values(**changes)).rowcount == 0:
        raise SubnetNotFound(id=subnet_id)


def delete_subnet(conn: Connection, subnet_id: str) -> None:
    """Delete a subnet.

    Raises: SubnetNotFound, SubnetInUse while a port has an address of it.
    """
    # The allocation of addresses locks the same row.
    locked = conn.execute(sa.select(subnets.c.id).where(subnets.c.id == subnet_id).with_for_update()).one_or_none()
    if locked is None:
        raise SubnetNotFound(id=subnet_id)
    if conn.execute(sa.select(addresses.c.address).where(addresses.c.subnet_id == subnet_id).limit(1)).first() is not None:
        raise SubnetInUse(id=subnet_id)
    conn.execute(subnets.delete().where(subnets.c.id == subnet_id))


def _subnet(row: sa.RowMapping) -> Subnet:
    values = dict(row)
    del values["next_address"]
    values["dns_nameservers"] = tuple(values["dns_nameservers"])
    values["allocation_pools"] = tuple((first, last) for first, last in values["allocation_pools"])
    return Subnet(**values)
