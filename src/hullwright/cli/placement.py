"""`hullwright host why`: why a server went where it went, attempt by attempt; and the table of a dry run.

Not for: what its steps did; see `server timeline`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from cliff.lister import Lister

from hullwright.cli import builds, find, http
from hullwright.cli.base import ApiCommand, Pairs, Table, Words

COLUMNS = ("Attempt", "Hosts", "What", "Why", "Which", "More")


def summary(report: Mapping[str, Any]) -> Table:
    """A report as one record."""
    row = {
        "Summary": report["summary"],
        "Chosen": report["chosen"],
        "Advice": Words(report["advice"]),
        "Candidates": Words([f"{each['host']} ({each['weight']:g})" for each in report["candidates"]]),
    }
    row |= {f"Rejected by {each['check']}: {each['reason']}": _which(each) for each in report["rejections"]}
    return tuple(row), tuple(row.values())


def _which(rejection: Mapping[str, Any]) -> str:
    named = ", ".join(rejection.get("details") or rejection["hosts"])
    unnamed = rejection["count"] - len(rejection["hosts"])
    return f"{rejection['count']}: {named}{f' and {unnamed} more' if unnamed else ''}" if named else str(rejection["count"])


def rows(attempt: int | str, report: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """A report as rows: what was rejected, what fitted, what to do about it."""
    found: list[tuple[Any, ...]] = [
        (attempt, each["count"], "rejected", f"{each['check']}: {each['reason']}", Words(each["hosts"]), Words(each.get("details", ())))
        for each in report["rejections"]
    ]
    for each in report["candidates"]:
        what = "chosen" if each["host"] == report["chosen"] else "fits"
        found.append((attempt, 1, what, f"weight {each['weight']:g}", Words([each["host"]]), Pairs(each["parts"])))
    named = [each["host"] for each in report["candidates"]]
    if report["chosen"] is not None and report["chosen"] not in named:  # not one of the best: others were to have those
        named.append(report["chosen"])
        found.append((attempt, 1, "chosen", "", Words([report["chosen"]]), Words([])))
    unnamed = report["fit"] - len(named)
    if unnamed > 0:
        found.append((attempt, unnamed, "fits", "", Words([]), Words([])))
    return found + [(attempt, "", "advice", text, Words([]), Words([])) for text in report["advice"]]


class Why(ApiCommand, Lister):
    """Show why a server went to its host: who was rejected, for what, and how the others weighed"""

    @property
    def need_sort_by_cliff(self) -> bool:
        """Attempts and reasons have an order."""
        return False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("server", help="name, or id; the id of a server that is deleted works too")
        parser.add_argument("--now", action="store_true", help="not what was decided then, but what would be now")
        parser.add_argument("--full", action="store_true", help="every host by name, as it is now")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Read the attempts on record, or ask."""
        if parsed_args.now or parsed_args.full:
            identity = find.server(self.client, parsed_args.server)["id"]
        else:
            identity = find.recorded_server(self.client, parsed_args.server)
        if parsed_args.full:
            return ("Host", "Fits", "Weight", "Check", "Reason", "More"), self._every_host(identity)
        if parsed_args.now:
            return COLUMNS, rows("now", self.client.post(http.EXPLAIN, {"server_id": identity})["placement"])
        found = builds.list_for(self.client, identity)
        if not found:
            raise find.NoSuch(kind="server", name=parsed_args.server)
        build = builds.show(self.client, found[0]["id"])
        told = [row for attempt in build["attempts"] if attempt["placement"] for row in rows(attempt["number"], attempt["placement"])]
        return COLUMNS, told

    def _every_host(self, identity: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        query: dict[str, str] = {"detail": "full"}
        while True:
            answer = self.client.request("POST", http.EXPLAIN, params=query, json={"server_id": identity}).json()["placement"]
            found += [(it["host"], it["fits"], it["weight"], it["check"], it["reason"], it["detail"]) for it in answer["hosts"]]
            if answer["next_marker"] is None:
                return found
            query["marker"] = answer["next_marker"]
