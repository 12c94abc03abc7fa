"""Passes hosts with fewer builds under way than `[scheduler] max_io_ops_per_host`."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are busy enough."""
    most = request.conf.scheduler.max_io_ops_per_host
    yield hosts.io_ops < most, f"busy with {most} builds or more"
