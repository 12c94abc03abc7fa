"""Prefers hosts with more free disk."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "disk_weight_multiplier"
LEAST = 0  # as Nova's


def weigh(hosts: Columns, request: Request) -> Floats:
    """Free disk in GB, allocation ratio counted."""
    return hosts.resource("DISK_GB").free


def taken(request: Request) -> float:
    """What the request takes."""
    return -float(request.resources.get("DISK_GB", 0))
