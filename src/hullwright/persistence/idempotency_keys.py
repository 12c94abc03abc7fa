"""Keys of create requests: what a request made, found again by the key that its client chose.

A key's row is written in the transaction that writes the instances, so that there is never one without the other. Keys that are too old
count for nothing and are removed a few at a time by those who write new ones.
Not for: reading the header or comparing requests; the API does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.idempotency_keys import idempotency_keys as table

_FORGET_AT_ONCE = 16  # more than the one that is written meanwhile, so that old ones never pile up


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request that its client may send again."""

    project_id: str
    key: str
    fingerprint: str  # of what was asked
    keep_seconds: float


@dataclass(frozen=True, slots=True)
class Made:
    """What a request made."""

    server_ids: tuple[str, ...]
    reservation_id: str
    fingerprint: str = ""


def find(conn: Connection, asked: KeyedRequest) -> Made | None:
    """What was made under the key of `asked`, perhaps by a request with another fingerprint."""
    row = conn.execute(sa.select(table).where(*_same_key(asked), table.c.created_at >= now() - asked.keep_seconds)).first()
    return None if row is None else Made(tuple(row.server_ids), row.reservation_id, row.fingerprint)


def remember(conn: Connection, asked: KeyedRequest, server_ids: Sequence[str], reservation_id: str) -> bool:
    """Take the key; False when a request has it already. Waits for one that is about to commit it."""
    conn.execute(sa.delete(table).where(*_same_key(asked), table.c.created_at < now() - asked.keep_seconds))
    row = {
        "project_id": asked.project_id,
        "key": asked.key,
        "fingerprint": asked.fingerprint,
        "server_ids": list(server_ids),
        "reservation_id": reservation_id,
        "created_at": now(),
    }
    return insert_if_absent(conn, table, row)


def forget_some(conn: Connection, keep_seconds: float) -> None:
    """Remove a few keys that are too old. Rows that somebody else removes are left to him, so that nobody waits here."""
    old = sa.select(table.c.id).where(table.c.created_at < now() - keep_seconds).order_by(table.c.created_at)
    ids = conn.scalars(old.limit(_FORGET_AT_ONCE).with_for_update(skip_locked=True)).all()
    if ids:
        conn.execute(sa.delete(table).where(table.c.id.in_(ids)))


def _same_key(asked: KeyedRequest) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return table.c.project_id == asked.project_id, table.c.key == asked.key
