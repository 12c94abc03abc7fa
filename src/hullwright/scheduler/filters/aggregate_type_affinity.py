"""Passes hosts whose aggregates name the flavor in `instance_type`, or no flavor at all."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are kept for other flavors."""
    has, good = hosts.aggregates.with_value("instance_type", request.spec.flavor.name.__eq__)
    yield ~has | good, "kept for other flavors"
