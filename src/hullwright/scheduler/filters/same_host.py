"""Passes hosts that hold one of the instances named by the hint `same_host`."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.relations import hinted
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject all others; when none of the instances has a host, all."""
    if request.spec.scheduler_hints.get("same_host"):
        named = hinted(request.spec.scheduler_hints, "same_host")
        there = {request.relations.host_of[uuid] for uuid in named if uuid in request.relations.host_of}
        yield hosts.with_ids(there), "hold no instance of the hint same_host"
