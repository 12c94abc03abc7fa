"""Key pairs: public keys by user. Private keys are never here."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import KeypairExists, KeypairNotFound
from hullwright.objects.records import Record
from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.instances import key_pairs


@dataclass(frozen=True, slots=True)
class KeyPair(Record):
    """A user's public key."""

    id: int
    user_id: str
    name: str
    type: str
    fingerprint: str
    public_key: str
    created_at: float


def get(conn: Connection, user_id: str, name: str) -> KeyPair:
    """One key pair.

    Raises: KeypairNotFound.
    """
    query = sa.select(key_pairs).where(key_pairs.c.user_id == user_id, key_pairs.c.name == name)
    row = conn.execute(query).mappings().first()
    if row is None:
        raise KeypairNotFound(id=name, user=user_id)
    return KeyPair(**row)


def create(conn: Connection, *, user_id: str, name: str, type: str, fingerprint: str, public_key: str) -> None:
    """Add a key pair.

    Raises: KeypairExists.
    """
    row = {
        "user_id": user_id,
        "name": name,
        "type": type,
        "fingerprint": fingerprint,
        "public_key": public_key,
        "created_at": now(),
    }
    if not insert_if_absent(conn, key_pairs, row):
        raise KeypairExists(id=name)


def delete(conn: Connection, user_id: str, name: str) -> None:
    """Remove a key pair; servers made with it keep the key.

    Raises: KeypairNotFound.
    """
    statement = sa.delete(key_pairs).where(key_pairs.c.user_id == user_id, key_pairs.c.name == name)
    if conn.execute(statement).rowcount != 1:
        raise KeypairNotFound(id=name, user=user_id)


def list_for(conn: Connection, user_id: str, *, marker: str | None = None, limit: int | None = None) -> list[KeyPair]:
    """A user's key pairs by name, after the name `marker`.

    Raises: KeypairNotFound when the marker is not there.
    """
    if marker is not None:
        get(conn, user_id, marker)
    query = sa.select(key_pairs).where(key_pairs.c.user_id == user_id).order_by(key_pairs.c.name)
    if marker is not None:
        query = query.where(key_pairs.c.name > marker)
    if limit is not None:
        query = query.limit(limit)
    return [KeyPair(**row) for row in conn.execute(query).mappings()]


def count(conn: Connection, user_id: str) -> int:
    """How many a user has."""
    query = sa.select(sa.func.count()).select_from(key_pairs).where(key_pairs.c.user_id == user_id)
    return int(conn.scalar(query) or 0)
