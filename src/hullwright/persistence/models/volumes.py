"""Volumes and attachments of the embedded volume service."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table

from hullwright.persistence.models.base import Json, metadata, time_column, uuid_key

volumes = Table(
    "volumes",
    metadata,
    uuid_key(),
    Column("name", String(255), nullable=False, default="", index=True),
    Column("size_gb", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("bootable", Boolean, nullable=False, default=False),
    Column("image_id", String(36)),
    Column("volume_type", String(255)),
    Column("description", String(255)),
    Column("availability_zone", String(255), nullable=False, default="nova"),
    Column("project_id", String(255)),
    Column("user_id", String(255)),
    Column("metadata", Json, nullable=False),
    Column("host", String(255)),  # where its bytes are
    Column("placed_by", String(36)),  # attachment whose connecting made them
    Column("cleaning_on", String(255)),  # host where bytes that are not its own are being deleted: none are made there meanwhile
    time_column("created_at"),
)

attachments = Table(
    "attachments",
    metadata,
    uuid_key(),
    Column("volume_id", String(36), ForeignKey("volumes.id"), nullable=False, unique=True),
    Column("instance_uuid", String(36), nullable=False),
    Column("position", Integer, nullable=False, default=0),
    Column("host", String(255)),
    Column("device", String(255)),
    Column("delete_on_termination", Boolean, nullable=False, default=False),
    Column("created_by_build", Boolean, nullable=False, default=False),
    Column("boot_index", Integer),
    Column("state", String(32), nullable=False),
    time_column("created_at"),
    Index("ix_attachments_instance", "instance_uuid"),
)
