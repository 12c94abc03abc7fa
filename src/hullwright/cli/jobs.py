"""`hullwright job release`: an operator lets a parked job go on. Which ones are parked, `hullwright doctor --kind job_stuck` tells."""

from __future__ import annotations

import argparse
import contextlib

from hullwright.cli.base import LocalCommand
from hullwright.conductor import parking
from hullwright.persistence import schema
from hullwright.persistence.wakeup import Wakeup


class Release(LocalCommand):
    """Have conductors go on with stuck jobs, when what parked them is mended or the version that knows them is installed"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("jobs", nargs="+", metavar="ID", help="a job that `hullwright doctor --kind job_stuck` tells")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """All of them or none."""
        schema.check(self.database)
        with contextlib.closing(self.database) as database:
            with database.write() as connection:
                for uuid in parsed_args.jobs:
                    parking.release(connection, uuid)
            with contextlib.closing(Wakeup(database, self.conf.state_path)) as wakeup:
                wakeup.poke()
        self.app.stdout.write("".join(f"job {uuid} is in the queue again\n" for uuid in parsed_args.jobs))
