"""Prefers hosts on which fewer builds failed since the last success."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "build_failure_weight_multiplier"


def weigh(hosts: Columns, request: Request) -> Floats:
    """The number of failed builds, counted against the host."""
    return -hosts.failed_builds.astype(float)
