"""Passes hosts with fewer instances than their aggregates' `max_instances_per_host`, else the option of that name."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that hold enough."""
    most = hosts.aggregates.least("max_instances_per_host", request.conf.scheduler.max_instances_per_host, int)
    yield hosts.instance_counts < most, "hold as many instances as they may"
