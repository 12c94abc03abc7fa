"""Conductors and their heartbeats. All leases of a conductor hang on its one row: one statement renews them all.

Leases begin and end by the database's clock, whatever the conductors' own clocks say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.persistence.database import clock, now
from hullwright.persistence.models.jobs import conductors

JOBBOARD_VERSION = "taskflow"  # of those who lease jobs by TaskFlow's jobboard
_LEASES_AHEAD = 4  # a lease that ends later than so many leases from now was given before the database's clock was set back


def enlist(connection: Connection, *, id: str, hostname: str, pid: int, version: str, lease_seconds: float) -> None:
    """Record a conductor that starts. Its id is new at each start, so that jobs of its former life are orphans at once."""
    ends = clock(connection) + lease_seconds
    connection.execute(sa.insert(conductors).values(id=id, hostname=hostname, pid=pid, version=version, started_at=now(), expires_at=ends))


def beat(connection: Connection, id: str, lease_seconds: float) -> bool:
    """Move the lease on. False when it has run out already: whatever it held may be somebody else's now."""
    at = clock(connection)
    statement = sa.update(conductors).where(conductors.c.id == id, conductors.c.expires_at > at).values(expires_at=at + lease_seconds)
    return connection.execute(statement).rowcount == 1


def living(connection: Connection) -> sa.Select[Any]:
    """The ids of those whose lease holds."""
    return sa.select(conductors.c.id).where(conductors.c.expires_at > clock(connection))


def has_other_version(connection: Connection, version: str) -> bool:
    """Whether a conductor of another version of the code lives. Those who only use the jobboard (`jobboard.py`) are none."""
    others = living(connection).where(conductors.c.version.not_in((version, JOBBOARD_VERSION)))
    return connection.execute(others.limit(1)).first() is not None


def turn(connection: Connection, id: str) -> tuple[int, int]:
    """A conductor's number among the living ones, from 0, and how many they are. One alone, or one that is not among them: (0, 1)."""
    ids = sorted(connection.execute(living(connection)).scalars())
    return (ids.index(id), len(ids)) if id in ids else (0, 1)


def hold_lapsed(connection: Connection) -> list[str]:
    """The ids of those whose lease has ended, in a write transaction: until its commit none of them can come back to life.

    One that is just beating is left out.
    """
    query = sa.select(conductors.c.id).where(conductors.c.expires_at <= clock(connection)).with_for_update(skip_locked=True)
    return list(connection.execute(query).scalars())


def shorten(connection: Connection, lease_seconds: float) -> None:
    """Have no lease end long after it could: else the jobs of one that died would be nobody's when the clock was set back meanwhile."""
    ends = clock(connection) + lease_seconds
    too_late = conductors.c.expires_at > clock(connection) + lease_seconds * _LEASES_AHEAD
    connection.execute(sa.update(conductors).where(too_late).values(expires_at=ends))


def retire(connection: Connection, id: str) -> None:
    """Forget a conductor that stops, or one that died; jobs that still name it are orphans."""
    connection.execute(sa.delete(conductors).where(conductors.c.id == id))


def retire_lapsed(connection: Connection, id: str) -> bool:
    """Forget a conductor whose lease has ended; False when there is none of that id, or it has just renewed its lease."""
    gone = sa.and_(conductors.c.id == id, conductors.c.expires_at <= clock(connection))
    return connection.execute(sa.delete(conductors).where(gone)).rowcount == 1


def retire_dead(connection: Connection, is_dead: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """Forget conductors whose process is known to be gone, so that a restart need not wait for their leases. Answers the ids.

    `is_dead`: told id, hostname, pid, version, started_at, expires_at.
    """
    rows = connection.execute(sa.select(conductors)).mappings().all()
    gone = [row["id"] for row in rows if is_dead(dict(row))]
    if gone:
        connection.execute(sa.delete(conductors).where(conductors.c.id.in_(gone)))
    return gone


def exists(connection: Connection, id: str) -> bool:
    """Whether a conductor of that id is on record, its lease held or lapsed."""
    return connection.execute(sa.select(conductors.c.id).where(conductors.c.id == id)).first() is not None


def list_all(connection: Connection) -> list[dict[str, Any]]:
    """All conductors with hostname, pid, version, started_at, expires_at, and whether their lease holds (`is_living`)."""
    is_living = (conductors.c.expires_at > clock(connection)).label("is_living")
    rows = connection.execute(sa.select(conductors, is_living).order_by(conductors.c.started_at)).mappings()
    return [{**row, "is_living": bool(row["is_living"])} for row in rows]
