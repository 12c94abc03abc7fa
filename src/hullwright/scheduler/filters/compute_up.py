"""Passes hosts that are enabled and whose hypervisor answered lately."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are disabled, forced down, or silent for `[compute] service_down_time` seconds."""
    yield hosts.enabled, "disabled"
    answered = hosts.last_seen_at >= request.at - request.conf.compute.service_down_time
    yield answered & ~hosts.forced_down, "down"
