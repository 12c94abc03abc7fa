"""The schema's revision: bring a database to this code's revision, and refuse to run on any other.

Alembic does the work, without an ini file; its scripts are in `migrations/`, and a new one is made by tools/schema-revision.
Not for: the tables themselves; see `models`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import Unavailable
from hullwright.persistence.database import Database
from hullwright.persistence.models import metadata

HEAD = "0001"  # the newest revision in migrations/versions; told here so that a service starts without loading Alembic
_TOLD = 3  # differences that an error names
_LOCK = 0x68756C6C  # of PostgreSQL's advisory locks: one process upgrades at a time


class WrongSchema(Unavailable):
    """The database has another schema revision than this code needs."""

    message = "The database has schema revision {found}, and this version of Hullwright needs {needed}."
    hint = "Run `hullwright db upgrade`; if the database is newer than the code, install the newer version."


class UnreleasedSchema(WrongSchema):
    """The database was made by another state of a revision that is not released yet, and is still being changed in place."""

    message = "The database says schema revision {found}, but was made by an earlier or later state of it: {differences}."
    hint = "It cannot be upgraded. Put it aside and make a new one with `hullwright db upgrade`, or go back to the code that made it."


def current(db: Database) -> str | None:
    """The database's revision; None when it has none yet.

    Raises: DatabaseUnavailable.
    """
    with db.read() as connection:
        return _current(connection)


def check(db: Database) -> None:
    """Make sure that this code and the database fit.

    Raises: WrongSchema, UnreleasedSchema; DatabaseUnavailable.
    """
    found = current(db)
    if found != HEAD:
        raise WrongSchema(found=found or "none", needed=HEAD)
    with db.read() as connection:
        differences = _differences(connection)
    if differences:
        told = ", ".join(differences[:_TOLD]) + (", ..." if len(differences) > _TOLD else "")
        raise UnreleasedSchema(found=HEAD, differences=told)


def _differences(connection: Connection) -> list[str]:
    """Columns that only the database or only the models have. Types are not compared: this is asked at each start."""
    found = {table: {column["name"] for column in columns} for (_, table), columns in sa.inspect(connection).get_multi_columns().items()}
    missing, unknown = [], []
    for table in metadata.sorted_tables:
        wanted = {column.name for column in table.columns}
        missing += [f"no {table.name}.{name}" for name in sorted(wanted - found.get(table.name, set()))]
        unknown += [f"an unknown {table.name}.{name}" for name in sorted(found.get(table.name, set()) - wanted)]
    return missing + unknown


def upgrade(db: Database) -> str | None:
    """Bring the database to this code's revision, in one transaction; safe to call from several processes at once.

    Returns the revision that it had before.
    Raises: WrongSchema when it is newer than this code; DatabaseUnavailable.
    """
    if current(db) == HEAD:
        return HEAD
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    with db.write() as connection:  # on SQLite the write lock itself; the others wait and then find nothing to do
        if db.is_postgresql:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        before = _current(connection)
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "hullwright.persistence:migrations")
        try:
            command.upgrade(config, HEAD)
        except CommandError as error:
            raise WrongSchema(found=before or "none", needed=HEAD) from error
    return before


def _current(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
