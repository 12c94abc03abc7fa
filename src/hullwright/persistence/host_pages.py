"""Hosts for the API's pages: facts, inventories and counts in a fixed number of statements, however many hosts there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.hosts import Host, Inventory
from hullwright.persistence import hosts
from hullwright.persistence.models.instances import instances


@dataclass(frozen=True)
class HostPage:
    """Hosts and what is on them."""

    hosts: list[Host]
    inventories: Mapping[int, list[Inventory]]  # by host id
    instances: Mapping[str, int]  # living ones, by host name


def read(conn: Connection, found: list[Host] | None = None) -> HostPage:
    """These hosts, or all by name."""
    counts = sa.select(instances.c.host, sa.func.count()).where(instances.c.deleted_at.is_(None)).group_by(instances.c.host)
    if found is None:
        chosen, ids = instances.c.host.is_not(None), None
    else:
        chosen, ids = instances.c.host.in_([host.name for host in found]), [host.id for host in found]
    return HostPage(
        hosts=hosts.list_all(conn) if found is None else found,
        inventories=hosts.list_inventories(conn, ids),
        instances={str(name): count for name, count in conn.execute(counts.where(chosen))},
    )


def servers_of(conn: Connection, names: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Host name -> (uuid, guest's name) of its living instances."""
    query = sa.select(instances.c.host, instances.c.uuid, instances.c.id).where(
        instances.c.host.in_(names), instances.c.deleted_at.is_(None)
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for host, uuid, id in conn.execute(query.order_by(instances.c.id)):
        found.setdefault(str(host), []).append((uuid, f"instance-{id:08x}"))
    return found
