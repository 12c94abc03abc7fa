"""Runs revisions on the connection that the caller opened, inside the caller's transaction."""

from __future__ import annotations

from alembic import context

from hullwright.persistence.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a table: it is copied instead
    render_item=context.config.attributes.get("render_item", lambda *_: False),
)
context.run_migrations()
