"""`hullwright doctor`: where records disagree with each other or with the hosts, and what mends it.

For the operator, on a machine that reaches the database and the hosts; it works with or without conductors. What must be done on a host
is posted as a job, which conductors do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from cliff.columns import FormattableColumn
from cliff.lister import Lister

from hullwright.cli import words
from hullwright.cli.base import LocalCommand, Table, Time
from hullwright.conductor.reconcile.doctor import Doctor, open_jobs, told
from hullwright.conductor.reconcile.findings import KINDS, Kind, Outcome
from hullwright.conductor.reconcile.rounds import RECONCILE, mended_kinds
from hullwright.drivers.registry import Drivers
from hullwright.objects.errors import HostNotFound
from hullwright.objects.states import JobState
from hullwright.persistence import conductors, hosts, job_repairs, jobs, schema
from hullwright.persistence.database import Database, now
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore
from hullwright.persistence.wakeup import Wakeup

_TOLD = ("kind", "subject", "host", "evidence", "state", "text")
_UNASKED = 3  # the exit code when nothing was found where it could be looked; 2 is a wrong command line
COLUMNS = ("Kind", "Subject", "Host", "Age", "Evidence", "Repair")


class Age(FormattableColumn[float | None]):
    """Seconds: 2 min 05 s to a person, a number to a program."""

    def human_readable(self) -> str:
        """With units."""
        return words.duration(self._value)


class Run(LocalCommand, Lister):
    """Find what is wrong between records and hosts; with --fix mend it; exit with 1 while something is wrong"""

    exit_code = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--fix", action="store_true", help="mend what is found; without it nothing is changed")
        parser.add_argument(
            "--force",
            action="store_true",
            help="with --fix: also destroy what might be somebody's after all: guests and files that there is no record of (of another "
            "installation, or younger than a restored backup), or whose instance is on another host",
        )
        parser.add_argument(
            "--deep",
            action="store_true",
            help="read all base images on the hosts and compare their checksums; without it, those that were written to since they came",
        )
        parser.add_argument("--host", action="append", metavar="NAME", help="only what is wrong on this host; may be repeated")
        parser.add_argument("--kind", action="append", choices=sorted(KINDS), metavar="KIND", help="only this kind; may be repeated")
        parser.add_argument("--grace", type=float, metavar="SECONDS", help="between the two looks; default [reconcile] grace_seconds")
        parser.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="for the jobs that --fix posts; default 60")
        parser.add_argument("--kinds", action="store_true", help="list what can be found, and stop")
        parser.add_argument("--history", action="store_true", help="list what was found and mended before, and stop")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """0: nothing is wrong, or all of it was mended. 1: something is. 3: nothing was found, but not every host could be asked."""
        super().run(parsed_args)
        return self.exit_code

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Look twice; mend when told to."""
        if parsed_args.kinds:
            return self._kinds()
        schema.check(self.database)
        with contextlib.closing(self.database) as database:
            return self._history(database) if parsed_args.history else self._examine(database, parsed_args)

    def _examine(self, database: Database, parsed_args: argparse.Namespace) -> Table:
        for name in parsed_args.host or ():
            with database.read() as conn:
                if name not in {host.name for host in hosts.list_all(conn)}:
                    raise HostNotFound(id=name)
        grace_seconds = self.conf.reconcile.grace_seconds if parsed_args.grace is None else parsed_args.grace
        kinds = parsed_args.kind or tuple(KINDS)
        with self._doctor(database) as doctor:
            look = doctor.examine(grace_seconds=grace_seconds, names=parsed_args.host, kinds=kinds, deep=parsed_args.deep)
            for name, reason in sorted(look.silent.items()):
                self.app.LOG.warning("host %s could not be asked: %s", name, reason)
            if not parsed_args.fix:
                self.exit_code = 1 if look.findings else _UNASKED if look.silent else 0
                return COLUMNS, [_row(Outcome(finding, "found"))[:-1] for finding in look.findings]
            run = str(uuid.uuid4())
            outcomes = doctor.mend(look, kinds=kinds, with_consent=parsed_args.force, request_id=f"req-{run}")
        if outcomes:
            outcomes = self._await(database, outcomes, parsed_args.wait)
            with database.write() as conn:
                row = jobs.new_row(kind=RECONCILE, instance_uuid=None, inputs={"by": "doctor"}, request_id=f"req-{run}", uuid=run)
                job_repairs.record(conn, row, {"count": len(outcomes), "outcomes": told(outcomes), "silent": dict(look.silent)})
        is_mended = all(outcome.state in ("mended", "gone") for outcome in outcomes)
        self.exit_code = 1 if not is_mended else _UNASKED if look.silent else 0
        return (*COLUMNS, "Outcome"), [_row(outcome) for outcome in outcomes]

    @contextlib.contextmanager
    def _doctor(self, database: Database) -> Iterator[Doctor]:
        drivers = Drivers(
            self.conf, ports=SqlPortStore(database), volumes=SqlVolumeStore(database), images=SqlImageStore(database)
        )  # fmt: skip
        with contextlib.closing(drivers):
            yield Doctor(database, drivers, self.conf)

    def _await(self, database: Database, outcomes: list[Outcome], wait_seconds: float) -> list[Outcome]:
        """Have the posted jobs done by conductors, and say how they ended."""
        posted = [outcome.job_uuid for outcome in outcomes if outcome.job_uuid is not None]
        if not posted:
            return outcomes
        with contextlib.closing(Wakeup(database, self.conf.state_path)) as wakeup:
            wakeup.poke()
        until = time.monotonic() + wait_seconds
        while True:
            with database.read() as conn:
                left = list(open_jobs(conn, posted))
                is_served = conn.execute(conductors.living(conn)).first() is not None
            if not left or not is_served or time.monotonic() > until:
                break
            time.sleep(0.2)
        if left:
            why = "conductors are still at them" if is_served else "no conductor runs"
            self.app.LOG.warning("%d jobs that do the rest have not ended: %s", len(left), why)
        with database.read() as conn:
            return [_ended(outcome, jobs.get(conn, outcome.job_uuid)) if outcome.job_uuid else outcome for outcome in outcomes]

    def _kinds(self) -> Table:
        by_itself = mended_kinds(self.conf)
        rows = [(name, kind.title, kind.repair, "periodically" if name in by_itself else "") for name, kind in KINDS.items()]
        rows = [(*row[:3], _mended_by(KINDS[row[0]], row[3])) for row in rows]
        return ("Kind", "Means", "Repair", "Mended"), rows

    def _history(self, database: Database) -> Table:
        with database.read() as conn:
            rounds = jobs.list_jobs(conn, kinds=[RECONCILE], states=[JobState.DONE], limit=1000)
        rows = [
            (Time(job.finished_at), job.inputs.get("by", "conductor"), *(it[name] for name in _TOLD))
            for job in rounds
            for it in (job.result or {}).get("outcomes", ())
        ]
        return ("When", "By", "Kind", "Subject", "Host", "Evidence", "Outcome", "What was done"), rows


def _mended_by(kind: Kind, by_itself: str) -> str:
    if not kind.is_mendable:
        return "by a person"
    return "with --force" if kind.needs_consent else by_itself or "by --fix"


def _ended(outcome: Outcome, job: Any) -> Outcome:
    if job.state == JobState.DONE:
        return dataclasses.replace(outcome, state="mended")
    if job.state in (JobState.QUEUED, JobState.RUNNING):
        return outcome
    return dataclasses.replace(outcome, state="failed", text=f"{outcome.text}; its job ended {job.state}: {job.error}")


def _row(outcome: Outcome) -> Sequence[Any]:
    finding = outcome.finding
    age = Age(None if finding.since is None else max(0.0, round(now() - finding.since, 1)))
    state = f"{outcome.state}: {outcome.text}" if outcome.text else outcome.state
    return (finding.kind, finding.subject, finding.host or "", age, finding.evidence, finding.repair, state)
