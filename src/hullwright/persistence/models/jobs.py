"""Jobs, conductors, the TaskFlow store (logbooks, flows, atoms), and the build's record: attempts, step events, progress."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, PrimaryKeyConstraint, String, Table, Text, text

from hullwright.persistence.models.base import BigKey, Json, key, metadata, time_column, uuid_key

conductors = Table(
    "conductors",
    metadata,
    Column("id", String(255), primary_key=True),  # new at each start: a restarted conductor is another owner
    Column("hostname", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(64), nullable=False),
    time_column("started_at"),
    time_column("expires_at"),  # the one lease that all its jobs hang on; moved by its heartbeat
)

jobs = Table(
    "jobs",
    metadata,
    key(),
    Column("uuid", String(36), nullable=False, unique=True),  # also the uuid of its flow
    Column("board", String(64), nullable=False, default="hullwright"),  # whose conductors it is for
    Column("kind", String(64), nullable=False),
    Column("instance_uuid", String(36)),
    Column("inputs", Json, nullable=False),  # no secrets
    Column("state", String(16), nullable=False),
    Column("owner", String(255)),
    Column("fence", Integer, nullable=False, default=0),
    Column("leases", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("seq", Integer, nullable=False, default=0),  # of the last step event
    Column("progress", Integer, nullable=False, default=0),  # percent
    Column("result", Json),
    Column("error", Text),
    Column("request_id", String(64)),
    Column("rank", Integer, nullable=False, default=10),  # lower goes first: people wait for queries and deletes
    time_column("created_at"),
    time_column("started_at", nullable=True),
    time_column("finished_at", nullable=True),
    time_column("not_before"),
    time_column("deadline_at", nullable=True),
    time_column("waiting_since", nullable=True),
    Column("waits_for", String(40)),
    Index("ix_jobs_instance", "instance_uuid", "id"),
    # Only open jobs are in it: looking for work does not grow with the work done.
    Index(
        "ix_jobs_open",
        "board",
        "state",
        "rank",
        "id",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index("ix_jobs_owner", "owner"),
    # Only those that wait for room: the queue is as long as it is, whatever else there was.
    Index("ix_jobs_waiting", "waits_for", "id", sqlite_where=text("waits_for IS NOT NULL"), postgresql_where=text("waits_for IS NOT NULL")),
    # What ended lately is examined (`conductor/reconcile`), whatever ended before.
    Index(
        "ix_jobs_finished", "finished_at", sqlite_where=text("finished_at IS NOT NULL"), postgresql_where=text("finished_at IS NOT NULL")
    ),
    # Questions that were answered (rank 0): there are few, as each is removed once its answer is read.
    Index(
        "ix_jobs_answered",
        "rank",
        "finished_at",
        sqlite_where=text("rank = 0 AND finished_at IS NOT NULL"),
        postgresql_where=text("rank = 0 AND finished_at IS NOT NULL"),
    ),
    Index("ix_jobs_stuck", "id", sqlite_where=text("state = 'stuck'"), postgresql_where=text("state = 'stuck'")),
)

logbooks = Table(
    "logbooks",
    metadata,
    uuid_key("uuid"),
    Column("name", String(255)),
    Column("meta", Json),
    time_column("created_at"),
    time_column("updated_at", nullable=True),
)

flows = Table(
    "flows",
    metadata,
    uuid_key("uuid"),
    Column("book_uuid", String(36), index=True),  # a job's flow has none: the job is its book
    Column("name", String(255), nullable=False),
    Column("state", String(32)),
    Column("meta", Json),
)

atoms = Table(
    "atoms",
    metadata,
    uuid_key("uuid"),
    Column("flow_uuid", String(36), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("kind", String(32), nullable=False),  # TASK_DETAIL, RETRY_DETAIL
    Column("state", String(32)),
    Column("intention", String(16)),
    Column("body", Json, nullable=False),  # results, failures, meta, version
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_uuid", String(36), nullable=False),
    Column("number", Integer, nullable=False),
    Column("instance_uuid", String(36), nullable=False),
    Column("state", String(16), nullable=False),
    Column("host", String(255)),
    Column("alternates", Json, nullable=False),
    Column("report", Json, nullable=False),
    Column("step", String(64)),
    Column("error", String(255)),
    Column("reason", Text),
    time_column("started_at"),
    time_column("finished_at", nullable=True),
    PrimaryKeyConstraint("job_uuid", "number"),
    Index("ix_attempts_instance", "instance_uuid"),
    Index("ix_attempts_host", "host", "started_at"),
)

step_events = Table(
    "step_events",
    metadata,
    Column("job_uuid", String(36), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", String(64), nullable=False),
    Column("from_state", String(32)),
    Column("to_state", String(32), nullable=False),
    time_column("at"),
    Column("owner", String(255), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("host", String(255)),
    Column("result", Json),
    PrimaryKeyConstraint("job_uuid", "seq"),
)

step_progress = Table(
    "step_progress",
    metadata,
    Column("job_uuid", String(36), nullable=False),
    Column("step", String(64), nullable=False),
    Column("done", BigKey, nullable=False),
    Column("total", BigKey, nullable=False),
    Column("unit", String(16), nullable=False),
    time_column("at"),
    PrimaryKeyConstraint("job_uuid", "step"),
)
