"""Faults: why an instance is in ERROR. Only the latest is shown."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.instances import Fault
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instance_faults

_COLUMNS = [instance_faults.c[name] for name in Fault.__dataclass_fields__]


def record(conn: Connection, fault: Fault) -> None:
    """Add a fault; its time is now unless it has one."""
    row = fault.to_dict()
    row["created_at"] = row["created_at"] or now()
    conn.execute(sa.insert(instance_faults), row)


def withdraw(conn: Connection, uuid: str, *, since: float) -> None:
    """Take back what was told of an instance from a time on: it was not the end."""
    conn.execute(sa.delete(instance_faults).where(instance_faults.c.instance_uuid == uuid, instance_faults.c.created_at >= since))


def latest(conn: Connection, uuid: str) -> Fault | None:
    """The newest fault of an instance."""
    return latest_of(conn, [uuid]).get(uuid)


def latest_of(conn: Connection, uuids: Sequence[str]) -> dict[str, Fault]:
    """Instance uuid -> its newest fault, for those that have one; one statement."""
    newest = (
        sa.select(sa.func.max(instance_faults.c.id))
        .where(instance_faults.c.instance_uuid.in_(uuids))
        .group_by(instance_faults.c.instance_uuid)
    )
    rows = conn.execute(sa.select(*_COLUMNS).where(instance_faults.c.id.in_(newest))).mappings()
    return {row["instance_uuid"]: Fault(**row) for row in rows}
