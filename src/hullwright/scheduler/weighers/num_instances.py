"""Prefers hosts with more instances, when it counts at all."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request
from hullwright.scheduler.surroundings import INSTANCES

MULTIPLIER = "num_instances_weight_multiplier"
NEEDS = (INSTANCES,)


def weigh(hosts: Columns, request: Request) -> Floats:
    """Instances there."""
    return hosts.instance_counts.astype(float)
