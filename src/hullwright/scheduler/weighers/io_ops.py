"""Prefers hosts with more builds under way; with its default, which is negative, those with fewer."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "io_ops_weight_multiplier"
LEAST = 0  # as Nova's


def weigh(hosts: Columns, request: Request) -> Floats:
    """Builds under way."""
    return hosts.io_ops.astype(float)


def taken(request: Request) -> float:
    """It is one more."""
    return 1.0
