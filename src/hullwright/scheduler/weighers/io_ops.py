"""Prefers hosts with more builds under way; with its default, which is negative, those with fewer."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request
from hullwright.scheduler.surroundings import IO_OPS

MULTIPLIER = "io_ops_weight_multiplier"
NEEDS = (IO_OPS,)


def weigh(hosts: Columns, request: Request) -> Floats:
    """Builds under way."""
    return hosts.io_ops.astype(float)
