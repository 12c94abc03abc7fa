"""Prefers hosts on which fewer builds failed since the last success.

A quarantined host whose probe is due comes first, for a build that can still go elsewhere when the probe fails: otherwise a host that was
mended would stay away for as long as the others have room.
"""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "build_failure_weight_multiplier"


def weigh(hosts: Columns, request: Request) -> Floats:
    """The number of failed builds, counted against the host."""
    weights: Floats = -hosts.failed_builds.astype(float)
    if not request.tried and request.spec.max_attempts > 1:
        weights[hosts.probed_at > 0] = 1.0
    return weights
