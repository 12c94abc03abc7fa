"""Prefers hosts with more instances, when it counts at all."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "num_instances_weight_multiplier"


def weigh(hosts: Columns, request: Request) -> Floats:
    """Instances there."""
    return hosts.instance_counts.astype(float)


def taken(request: Request) -> float:
    """It is one more."""
    return 1.0
