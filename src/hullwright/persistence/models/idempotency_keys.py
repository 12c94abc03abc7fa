"""Keys that clients sent with create requests, so that a request that is sent again makes nothing again."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, UniqueConstraint

from hullwright.persistence.models.base import Json, key, metadata, time_column

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    key(),
    Column("project_id", String(255), nullable=False),
    Column("key", String(255), nullable=False),
    Column("fingerprint", String(64), nullable=False),  # sha256 of the request; the request itself may hold secrets
    Column("server_ids", Json, nullable=False),
    Column("reservation_id", String(255), nullable=False),
    time_column("created_at"),
    UniqueConstraint("project_id", "key"),
    Index("ix_idempotency_keys_created", "created_at"),
)
