"""Passes hosts with fewer instances than `[scheduler] max_instances_per_host`."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that hold enough."""
    most = request.conf.scheduler.max_instances_per_host
    yield hosts.instance_counts < most, f"hold {most} instances or more"
