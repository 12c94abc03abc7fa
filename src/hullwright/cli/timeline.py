"""`hullwright server timeline`: what was done for a server, from the record that outlives it."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.lister import Lister

from hullwright.cli import builds, find, http, watch, words
from hullwright.cli.base import ApiCommand, Table, Time
from hullwright.objects.states import StepState


class Timeline(ApiCommand, Lister):
    """Show what was done for a server: each attempt, each step, when, how long, and what was undone"""

    COLUMNS = ("Job", "Attempt", "Step", "State", "Host", "Started", "Took", "Remark")

    @property
    def need_sort_by_cliff(self) -> bool:
        """Time is the order."""
        return False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("server", help="name, or id; the id of a server that is deleted works too")
        parser.add_argument("--all", action="store_true", help="every job of the server, not only its build")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Fetch its builds, oldest first."""
        identity = find.recorded_server(self.client, parsed_args.server)
        found = builds.list_for(self.client, identity, "all" if parsed_args.all else "build_instance")
        if not found:
            raise find.NoSuch(kind="server", name=parsed_args.server)
        return self.COLUMNS, [row for build in reversed(found) for row in _rows(self.client, build["id"])]


def _rows(client: http.Client, build_id: str) -> list[tuple[Any, ...]]:
    """One row per step that was done or undone, and one that tells each attempt's choice of host."""
    build = builds.show(client, build_id)
    attempts = {attempt["number"]: attempt for attempt in build["attempts"]}
    rows: list[tuple[Any, ...]] = []
    told: set[int] = set()
    kind = build["kind"].removesuffix("_instance")
    for run in builds.history(build).runs:
        attempt = attempts.get(run.attempt)
        if attempt and run.attempt not in told:
            told.add(run.attempt)
            rows.append(_attempt_row(kind, attempt))
        remark = run.note
        if run.resumed:
            remark = f"taken up again after a crash. {remark}".strip()
        if run.waited_seconds:
            remark = f"waited {words.duration(run.waited_seconds)} for room. {remark}".strip()
        if run.total and run.state == StepState.SUCCESS:
            remark = f"{watch.amount(run)} {remark}".strip()
        took = words.duration(run.seconds())
        rows.append((kind, run.attempt or "", run.title, run.state, run.host or "", Time(run.started_at), took, remark))
    return rows


def _attempt_row(kind: str, attempt: dict[str, Any]) -> tuple[Any, ...]:
    """An attempt as a whole: how it ended and why; else why it went to that host."""
    placement = attempt["placement"] or {}
    remark = attempt["reason"] or placement.get("summary") or ""
    started_at = Time(builds.seconds(attempt["started_at"]))
    took = words.duration(attempt["duration_seconds"])
    return kind, attempt["number"], "", attempt["state"], attempt["host"] or "", started_at, took, remark
