"""Puts a quarantined host whose probe is due first, for a build that can still go elsewhere when the probe fails. Always on.

Otherwise a host that was mended would stay away for as long as the others have room.
"""

from __future__ import annotations

from typing import Any

from hullwright.scheduler.columns import Columns, Floats, Mask
from hullwright.scheduler.request import Request


def multiplier(conf: Any) -> float:
    """More than all others make together with the defaults."""
    return 1_000_000.0


def weigh(hosts: Columns, request: Request) -> Floats:
    """1 for such a host."""
    return due_for(hosts, request).astype(float)


def due_for(hosts: Columns, request: Request) -> Mask:
    """The hosts that the request may probe; only those whose probe is due pass the filter `compute_up`."""
    can_go_elsewhere = not request.tried and request.spec.max_attempts > 1
    return hosts.probed_at > 0 if can_go_elsewhere else hosts.none()
