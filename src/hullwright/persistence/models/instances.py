"""Instances and what hangs on them: faults, actions; also flavors and key pairs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from hullwright.persistence.models.base import Json, key, metadata, time_column, uuid_key

instances = Table(
    "instances",
    metadata,
    key(),  # libvirt names are made from it: instance-0000002a
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("description", String(255)),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("vm_state", String(32), nullable=False),
    Column("task_state", String(32)),
    Column("power_state", Integer, nullable=False, default=0),
    Column("host", String(255)),
    Column("node", String(255)),
    Column("availability_zone", String(255)),
    Column("image_id", String(36)),
    Column("flavor_id", String(255), nullable=False),
    Column("flavor", Json, nullable=False),  # snapshot
    Column("key_name", String(255)),
    Column("key_data", Text),
    Column("user_data", Text),  # base64; never copied to another table
    Column("config_drive", Boolean, nullable=False, default=False),
    Column("disk_config", String(8), nullable=False, default="MANUAL"),
    Column("access_ip_v4", String(39)),
    Column("access_ip_v6", String(39)),
    Column("metadata", Json, nullable=False),
    Column("tags", Json, nullable=False),
    Column("spec", Json, nullable=False),  # RequestSpec
    Column("reservation_id", String(255), nullable=False, default=""),
    Column("launch_index", Integer, nullable=False, default=0),
    Column("locked", Boolean, nullable=False, default=False),
    Column("locked_reason", String(255)),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("launched_at", nullable=True),
    time_column("terminated_at", nullable=True),
    time_column("deleted_at", nullable=True),
    # Of its host, and of nothing else: taken when it gets one, or has none any more.
    Column("changed", BigInteger, nullable=False, default=0),
    # Lists are by project, newest first, living ones only: the index answers them without a sort.
    Index("ix_instances_project", "project_id", "deleted_at", "created_at", "id"),
    Index("ix_instances_listing", "deleted_at", "created_at", "id"),
    Index("ix_instances_host", "host"),
    Index("ix_instances_updated", "updated_at"),
    Index("ix_instances_changed", "changed"),
)

instance_faults = Table(
    "instance_faults",
    metadata,
    key(),
    Column("instance_uuid", String(36), ForeignKey("instances.uuid", ondelete="CASCADE"), nullable=False),
    Column("code", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("host", String(255)),
    Column("step", String(64)),
    Column("hint", Text, nullable=False, default=""),
    time_column("created_at"),
    Index("ix_instance_faults_instance", "instance_uuid", "id"),
)

instance_actions = Table(
    "instance_actions",
    metadata,
    key(),
    Column("instance_uuid", String(36), ForeignKey("instances.uuid", ondelete="CASCADE"), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("job_uuid", String(36)),
    time_column("started_at"),
    time_column("finished_at", nullable=True),
    Column("message", String(255)),
    Index("ix_instance_actions_instance", "instance_uuid", "id"),
    Index("ix_instance_actions_job", "job_uuid"),
)

flavors = Table(
    "flavors",
    metadata,
    uuid_key(),  # any string: operators choose ids such as "1" or "m1.tiny"
    Column("name", String(255), nullable=False, unique=True),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("root_gb", Integer, nullable=False),
    Column("ephemeral_gb", Integer, nullable=False, default=0),
    Column("swap_mb", Integer, nullable=False, default=0),
    Column("is_public", Boolean, nullable=False, default=True),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("rxtx_factor", Double, nullable=False, default=1.0),
    Column("description", Text),
    Column("extra_specs", Json, nullable=False),
    time_column("created_at"),
)
flavors.c.id.type = String(255)

key_pairs = Table(
    "key_pairs",
    metadata,
    key(),
    Column("user_id", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("type", String(16), nullable=False, default="ssh"),
    Column("fingerprint", String(255), nullable=False),
    Column("public_key", Text, nullable=False),
    time_column("created_at"),
    UniqueConstraint("user_id", "name"),
)
