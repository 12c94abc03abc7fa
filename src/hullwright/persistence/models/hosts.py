"""Hosts, what they have (inventories), what is claimed of it (allocations)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from hullwright.persistence.models.base import Json, key, metadata, time_column
from hullwright.persistence.models.changes import changed_column

hosts = Table(
    "hosts",
    metadata,
    key(),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("uri", String(1024), nullable=False),
    Column("driver", String(64), nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("disabled_reason", String(255)),
    Column("forced_down", Boolean, nullable=False, default=False),
    Column("availability_zone", String(255), nullable=False, default="nova"),
    Column("home_zone", String(255), nullable=False, default="nova"),  # its zone while it is in no aggregate that is one
    Column("facts", Json),  # HostFacts
    # What of [compute] is different for this host: allocation ratios, and what is reserved.
    Column("settings", Json, nullable=False, default=dict),
    Column("failed_builds", Integer, nullable=False, default=0),
    Column("failed_step", String(64)),  # of the latest failed build
    Column("failed_in_step", Integer, nullable=False, default=0),  # builds in a row that failed at that step
    time_column("quarantined_at", nullable=True),
    Column("quarantine_reason", Text),
    # When its latest probe began, and at first when the quarantine did: the next probe is due an interval later.
    time_column("probed_at", nullable=True),
    # Grows with each change of the columns above, `failed_...` and `probed_at` apart, and when the host joins an aggregate or leaves one:
    # only then a scheduler reads facts and memberships again.
    Column("generation", Integer, nullable=False, default=0),
    # Of all that a scheduler knows of a host. Asking it, and an answer without news, leave it as it is.
    changed_column(),
    Column("error", Text),  # why it did not answer, when it did not
    time_column("checked_at"),  # when a conductor last took it on itself to ask
    time_column("last_seen_at"),  # when it last answered
    time_column("silent_since", nullable=True),  # the first question since then that it left unanswered
    # From that question to the latest one without an answer. It stands still while nobody asks.
    Column("silent_seconds", Double, nullable=False, default=0.0),
    time_column("created_at"),
    Index("ix_hosts_availability_zone", "availability_zone"),
    sqlite_autoincrement=True,  # an id is never used again: it means one host to whoever has not heard of its removal
)

# One row for each host that was ever removed, so that a scheduler hears of it.
removed_hosts = Table(
    "removed_hosts",
    metadata,
    Column("host_id", BigInteger, primary_key=True, autoincrement=False),
    changed_column(),
)

inventories = Table(
    "inventories",
    metadata,
    Column("host_id", BigInteger, ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
    Column("resource_class", String(64), nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("allocation_ratio", Double, nullable=False, default=1.0),
    # The sum of the host's allocations, kept by the claim's own statement: a claim costs the same on a full host as on an empty one.
    Column("used", BigInteger, nullable=False, default=0),
    # How many instances hold of it, and how many of those are being built; kept by the same statement.
    Column("holders", Integer, nullable=False, default=0),
    Column("building", Integer, nullable=False, default=0),
    changed_column(),
    PrimaryKeyConstraint("host_id", "resource_class"),
    CheckConstraint("used >= 0", name="used_not_negative"),
)

allocations = Table(
    "allocations",
    metadata,
    Column("instance_uuid", String(36), nullable=False),
    Column("host_id", BigInteger, ForeignKey("hosts.id"), nullable=False),
    Column("resource_class", String(64), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("job_uuid", String(36)),  # the build that claimed it, until it has succeeded
    time_column("created_at"),
    PrimaryKeyConstraint("instance_uuid", "resource_class"),
    Index("ix_allocations_host", "host_id"),
)
