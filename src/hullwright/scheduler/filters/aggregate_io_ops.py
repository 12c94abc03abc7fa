"""Passes hosts with fewer builds under way than their aggregates' `max_io_ops_per_host`, else the option of that name."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are busy enough."""
    most = hosts.aggregates.least("max_io_ops_per_host", request.conf.scheduler.max_io_ops_per_host, int)
    yield hosts.io_ops < most, "busy with as many builds as they may have at once"
