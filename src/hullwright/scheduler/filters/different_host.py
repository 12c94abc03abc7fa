"""Passes hosts that hold none of the instances named by the hint `different_host`."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.relations import hinted
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject the hosts of those instances; instances that have no host are in nobody's way."""
    named = hinted(request.spec.scheduler_hints, "different_host")
    if named:
        there = {request.relations.host_of[uuid] for uuid in named if uuid in request.relations.host_of}
        yield ~hosts.with_ids(there), "hold an instance of the hint different_host"
