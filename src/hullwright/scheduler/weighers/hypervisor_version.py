"""Prefers hosts with a newer hypervisor."""

from __future__ import annotations

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "hypervisor_version_weight_multiplier"


def weigh(hosts: Columns, request: Request) -> Floats:
    """The version, as a number."""
    return hosts.hypervisor_version.astype(float)
