"""`hullwright db ...`: the database's schema."""

from __future__ import annotations

import argparse

from cliff.show import ShowOne
from sqlalchemy.engine import make_url

from hullwright.cli.base import LocalCommand, Table
from hullwright.persistence import schema


class Upgrade(LocalCommand):
    """Bring the database's schema to what this version needs; a new database is made"""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Upgrade, and say from where to where."""
        before = schema.upgrade(self.database)
        done = "already at" if before == schema.HEAD else f"upgraded from {before or 'nothing'} to"
        self.app.stdout.write(f"schema {done} revision {schema.HEAD}\n")


class Current(LocalCommand, ShowOne):
    """Show which schema the database has, and which one this version needs"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Show both; the URL without its password."""
        url = make_url(self.database.url).render_as_string(hide_password=True)
        return ("Database", "Revision", "Needed"), (url, schema.current(self.database), schema.HEAD)


class Check(LocalCommand):
    """Exit with 1 unless the database is there and its schema fits this version"""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Check."""
        schema.check(self.database)
        self.app.stdout.write(f"schema revision {schema.HEAD} fits\n")
