"""Passes hosts of the availability zone that was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts of other zones; without a zone asked for, none."""
    zone = request.spec.availability_zone
    if zone is not None:
        yield hosts.availability_zone.equal(zone), f"outside availability zone {zone}"
