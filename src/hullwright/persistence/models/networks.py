"""Networks, subnets, ports and addresses of the embedded network service."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, PrimaryKeyConstraint, String, Table, UniqueConstraint

from hullwright.persistence.models.base import Json, metadata, time_column, uuid_key

networks = Table(
    "networks",
    metadata,
    uuid_key(),
    Column("name", String(255), nullable=False, index=True),
    Column("description", String(255), nullable=False, default=""),
    Column("mode", String(16), nullable=False),
    Column("bridge", String(15)),
    Column("mtu", Integer, nullable=False, default=1500),
    Column("shared", Boolean, nullable=False, default=True),
    Column("port_security", Boolean, nullable=False, default=True),
    Column("project_id", String(255)),
    time_column("created_at"),
)

subnets = Table(
    "subnets",
    metadata,
    uuid_key(),
    Column("network_id", String(36), ForeignKey("networks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(255), nullable=False, default=""),
    Column("description", String(255), nullable=False, default=""),
    Column("cidr", String(64), nullable=False),
    Column("ip_version", Integer, nullable=False, default=4),
    Column("gateway_ip", String(39)),
    Column("enable_dhcp", Boolean, nullable=False, default=True),
    Column("dns_nameservers", Json, nullable=False),
    Column("allocation_pools", Json, nullable=False),
    # Where the search for a free address begins: past the last one given, so that it does not grow with those in use.
    Column("next_address", String(39)),
    time_column("created_at"),
)

ports = Table(
    "ports",
    metadata,
    uuid_key(),
    Column("network_id", String(36), ForeignKey("networks.id"), nullable=False, index=True),
    Column("name", String(255), nullable=False, default=""),
    Column("description", String(255), nullable=False, default=""),
    Column("mac_address", String(17), nullable=False, unique=True),
    Column("device_id", String(36), index=True),  # instance uuid
    Column("position", Integer, nullable=False, default=0),  # order of the cards in the guest
    Column("host", String(255)),
    Column("created_by_build", Boolean, nullable=False, default=False),
    Column("project_id", String(255)),
    Column("tag", String(60)),
    time_column("created_at"),
)

addresses = Table(
    "addresses",
    metadata,
    Column("subnet_id", String(36), ForeignKey("subnets.id"), nullable=False),
    Column("address", String(39), nullable=False),
    Column("network_id", String(36), nullable=False),
    Column("port_id", String(36), ForeignKey("ports.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("subnet_id", "address"),
    UniqueConstraint("network_id", "address"),
    Index("ix_addresses_port", "port_id"),
)
