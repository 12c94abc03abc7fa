"""Aggregates of hosts, and groups of servers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, PrimaryKeyConstraint, String, Table

from hullwright.persistence.models.base import Json, key, metadata, time_column, uuid_key
from hullwright.persistence.models.changes import changed_column

aggregates = Table(
    "aggregates",
    metadata,
    key(),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("metadata", Json, nullable=False),
    changed_column(),
    time_column("created_at"),
    time_column("updated_at", nullable=True),
    sqlite_autoincrement=True,  # an id is never used again: it means one aggregate to whoever has not heard of its removal
)

# One row for each aggregate that was ever removed, so that a scheduler hears of it.
removed_aggregates = Table(
    "removed_aggregates",
    metadata,
    Column("aggregate_id", BigInteger, primary_key=True, autoincrement=False),
    changed_column(),
)

# Without a number of its own: a host that joins or leaves an aggregate changes itself (`hosts.generation`).

aggregate_hosts = Table(
    "aggregate_hosts",
    metadata,
    Column("aggregate_id", BigInteger, ForeignKey("aggregates.id", ondelete="CASCADE"), nullable=False),
    Column("host_id", BigInteger, ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
    time_column("created_at"),
    PrimaryKeyConstraint("aggregate_id", "host_id"),
    Index("ix_aggregate_hosts_host", "host_id"),
)

server_groups = Table(
    "server_groups",
    metadata,
    uuid_key("uuid"),
    Column("name", String(255), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("policy", String(32), nullable=False),
    Column("max_server_per_host", Integer),
    time_column("created_at"),
    Index("ix_server_groups_project", "project_id", "created_at"),
)

server_group_members = Table(
    "server_group_members",
    metadata,
    # An instance is in one group at most.
    Column("instance_uuid", String(36), ForeignKey("instances.uuid", ondelete="CASCADE"), primary_key=True),
    Column("group_uuid", String(36), ForeignKey("server_groups.uuid", ondelete="CASCADE"), nullable=False),
    Index("ix_server_group_members_group", "group_uuid"),
)
