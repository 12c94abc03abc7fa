"""Conductors and their heartbeats. All leases of a conductor hang on its one row: one statement renews them all."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import conductors


def enlist(connection: Connection, *, id: str, hostname: str, pid: int, version: str, lease_seconds: float) -> None:
    """Record a conductor that starts. Its id is new at each start, so that jobs of its former life are orphans at once."""
    connection.execute(
        sa.insert(conductors).values(id=id, hostname=hostname, pid=pid, version=version, started_at=now(), expires_at=now() + lease_seconds)
    )


def beat(connection: Connection, id: str, lease_seconds: float) -> bool:
    """Move the lease on. False when it has run out already: whatever it held may be somebody else's now."""
    statement = sa.update(conductors).where(conductors.c.id == id, conductors.c.expires_at > now()).values(expires_at=now() + lease_seconds)
    return connection.execute(statement).rowcount == 1


def retire(connection: Connection, id: str) -> None:
    """Forget a conductor that stops, or one that died; jobs that still name it are orphans."""
    connection.execute(sa.delete(conductors).where(conductors.c.id == id))


def retire_same_process(connection: Connection, hostname: str, is_alive: Any) -> list[str]:
    """Forget conductors of this machine whose process is gone, so that a restart need not wait for their leases.

    `is_alive`: (pid, started_at) -> bool. Answers the ids.
    """
    rows = connection.execute(sa.select(conductors).where(conductors.c.hostname == hostname)).mappings().all()
    gone = [row["id"] for row in rows if not is_alive(row["pid"], row["started_at"])]
    if gone:
        connection.execute(sa.delete(conductors).where(conductors.c.id.in_(gone)))
    return gone


def list_all(connection: Connection) -> list[dict[str, Any]]:
    """All conductors with hostname, pid, version, started_at, expires_at."""
    return [dict(row) for row in connection.execute(sa.select(conductors).order_by(conductors.c.started_at)).mappings()]
