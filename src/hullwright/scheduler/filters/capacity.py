"""Passes hosts with room for the flavor, allocation ratios counted.

An instance may overcommit against others, never against itself. What passes here still has to be claimed: only the claim
is exact (`persistence/allocations.py` states the same rule in SQL).
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.objects.hosts import describe_amount
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request
from hullwright.scheduler.shortage import Shortage


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that lack one of the resources, and say which."""
    for name, amount in request.resources.items():
        yield hosts.resource(name).fits(amount), f"lack {describe_amount(name, amount)}", Shortage(hosts, name, amount)
