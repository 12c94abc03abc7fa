"""Prefers hosts with more free memory."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "ram_weight_multiplier"
LEAST = 0  # as Nova's


def weigh(hosts: Columns, request: Request) -> Floats:
    """Free memory in MB, allocation ratio counted."""
    return hosts.resource("MEMORY_MB").free


def taken(request: Request) -> float:
    """What the request takes."""
    return -float(request.resources.get("MEMORY_MB", 0))
