"""Flavors in the database. An instance keeps a snapshot of its own, so a flavor may change or go at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hullwright.objects.errors import FlavorExists, FlavorNotFound
from hullwright.objects.flavors import Flavor
from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.instances import flavors

_COLUMNS = [flavors.c[name] for name in Flavor.__dataclass_fields__]
_BY_ID = sa.select(*_COLUMNS).where(flavors.c.id == sa.bindparam("wanted"))

SORT_KEYS = {
    "flavorid": "id",
    "id": "id",
    "name": "name",
    "memory_mb": "memory_mb",
    "vcpus": "vcpus",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
    "swap": "swap_mb",
    "rxtx_factor": "rxtx_factor",
    "disabled": "disabled",
    "is_public": "is_public",
    "created_at": "created_at",
}


def _flavor(row: RowMapping) -> Flavor:
    return Flavor(**row)


def get(conn: Connection, id: str, *, for_update: bool = False) -> Flavor:
    """One flavor; `for_update` keeps others from changing it in the meantime.

    Raises: FlavorNotFound.
    """
    row = conn.execute(_BY_ID.with_for_update() if for_update else _BY_ID, {"wanted": id}).mappings().first()
    if row is None:
        raise FlavorNotFound(id=id)
    return _flavor(row)


def create(conn: Connection, flavor: Flavor) -> None:
    """Add a flavor.

    Raises: FlavorExists.
    """
    row = flavor.to_dict()
    if insert_if_absent(conn, flavors, {**row, "created_at": now()}):
        return
    taken = conn.scalar(sa.select(flavors.c.id).where(flavors.c.id == flavor.id))
    if taken is not None:
        raise FlavorExists(field="ID", id=flavor.id)
    raise FlavorExists(field="name", id=flavor.name)


def update(conn: Connection, id: str, **changes: Any) -> None:
    """Change a flavor's columns.

    Raises: FlavorNotFound.
    """
    if conn.execute(sa.update(flavors).where(flavors.c.id == id).values(**changes)).rowcount != 1:
        raise FlavorNotFound(id=id)


def delete(conn: Connection, id: str) -> None:
    """Remove a flavor; instances that were built with it keep their snapshot.

    Raises: FlavorNotFound.
    """
    if conn.execute(sa.delete(flavors).where(flavors.c.id == id)).rowcount != 1:
        raise FlavorNotFound(id=id)


def list_flavors(
    conn: Connection,
    *,
    is_public: bool | None = None,
    min_memory_mb: int = 0,
    min_disk_gb: int = 0,
    sort: Sequence[tuple[str, bool]] = (("id", False),),
    marker: str | None = None,
    limit: int | None = None,
) -> list[Flavor]:
    """Flavors in order: `sort` is (column, descending).

    Raises: FlavorNotFound when the marker is not there.
    """
    query = sa.select(*_COLUMNS).where(flavors.c.disabled.is_(False))
    if is_public is not None:
        query = query.where(flavors.c.is_public == is_public)
    if min_memory_mb:
        query = query.where(flavors.c.memory_mb >= min_memory_mb)
    if min_disk_gb:
        query = query.where(flavors.c.root_gb >= min_disk_gb)
    order = [flavors.c[name].desc() if descending else flavors.c[name].asc() for name, descending in sort]
    found = [_flavor(row) for row in conn.execute(query.order_by(*order, flavors.c.id)).mappings()]
    # There are tens of flavors, not thousands: the marker is found in the answer.
    if marker is not None:
        ids = [flavor.id for flavor in found]
        if marker not in ids:
            raise FlavorNotFound(id=marker)
        found = found[ids.index(marker) + 1 :]
    return found if limit is None else found[:limit]
