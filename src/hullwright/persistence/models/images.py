"""Images of the embedded image service. Their bytes lie in a directory, see `drivers/image/local`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table

from hullwright.persistence.models.base import Json, metadata, time_column, uuid_key

images = Table(
    "images",
    metadata,
    uuid_key(),
    Column("name", String(255), nullable=False, default="", index=True),
    Column("status", String(32), nullable=False),
    Column("disk_format", String(32)),
    Column("container_format", String(32)),
    Column("size_bytes", BigInteger, nullable=False, default=0),
    Column("virtual_size_bytes", BigInteger),
    Column("checksum_md5", String(32)),
    Column("checksum_sha256", String(64)),
    Column("min_disk_gb", Integer, nullable=False, default=0),
    Column("min_ram_mb", Integer, nullable=False, default=0),
    Column("visibility", String(16), nullable=False, default="public"),
    Column("protected", Boolean, nullable=False, default=False),
    Column("owner", String(255)),
    Column("properties", Json, nullable=False),
    Column("tags", Json, nullable=False),
    time_column("created_at"),
    time_column("updated_at"),
)
