"""Prefers hosts with more free virtual CPUs."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "cpu_weight_multiplier"
LEAST = 0  # as Nova's


def weigh(hosts: Columns, request: Request) -> Floats:
    """Free virtual CPUs, allocation ratio counted."""
    return hosts.resource("VCPU").free


def taken(request: Request) -> float:
    """What the request takes."""
    return -float(request.resources.get("VCPU", 0))
