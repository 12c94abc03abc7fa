"""`hullwright db ...`: the database's schema, and what is kept in it."""

from __future__ import annotations

import argparse

from cliff.lister import Lister
from cliff.show import ShowOne
from sqlalchemy.engine import make_url

from hullwright.cli.base import LocalCommand, Table
from hullwright.persistence import purge, schema
from hullwright.persistence.database import now


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


class Purge(LocalCommand, Lister):
    """Remove the records of instances that were deleted, and of other work that ended, long ago"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--before", type=float, required=True, metavar="DAYS", help="what was over so many days ago; 1 at least")
        parser.add_argument("--dry-run", action="store_true", help="only count what would be removed")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Remove, and say how many rows of which table."""
        schema.check(self.database)
        before = now() - parsed_args.before * 86_400
        keep_keys_seconds = self.conf.api.idempotency_key_hours * 3600.0
        removed = purge.purge(self.database, before, keep_keys_seconds=keep_keys_seconds, is_dry=parsed_args.dry_run)
        return ("Table", "Would be removed" if parsed_args.dry_run else "Removed"), sorted(removed.items())
