"""`hullwright server queue`: which builds wait for room, in the order in which they will get it."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.lister import Lister

from hullwright.cli import builds, http
from hullwright.cli.base import ApiCommand, Table, Time


class List(ApiCommand, Lister):
    """List the servers whose builds wait for room, the next one first"""

    COLUMNS = ("Place", "ID", "Name", "Waits since", "Until")

    @property
    def need_sort_by_cliff(self) -> bool:
        """Places are the order."""
        return False

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask for all, page by page."""
        rows: list[tuple[Any, ...]] = []
        page = self.client.get(http.BUILDS, waiting="true", limit=1000)
        while True:
            rows += [_row(build) for build in page["builds"] if build["waiting"]]
            if not page["next"]:
                return self.COLUMNS, sorted(rows)
            page = self.client.get(page["next"])


def _row(build: dict[str, Any]) -> tuple[Any, ...]:
    waiting = build["waiting"]
    until = Time(builds.seconds(waiting["until"])) if waiting["until"] else "looks for room now"
    return waiting["place"], build["server_id"], build["server_name"], Time(builds.seconds(waiting["since"])), until
