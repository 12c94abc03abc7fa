"""Prefers hosts on which fewer builds failed since the last success. A quarantined host whose probe is due has `probes` to speak for it."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request
from hullwright.scheduler.weighers import probes

MULTIPLIER = "build_failure_weight_multiplier"
AGAINST = True  # as Nova's: where an aggregate says that failures count for nothing, its hosts are as good as those without any


def weigh(hosts: Columns, request: Request) -> Floats:
    """The number of failed builds; none where the request may probe."""
    failures = hosts.failed_builds.astype(float)
    failures[probes.due_for(hosts, request)] = 0.0
    return failures
