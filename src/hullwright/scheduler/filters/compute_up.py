"""Passes hosts that are enabled and whose hypervisor answers: `is_up` of objects/hosts.py on columns."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are disabled, forced down, never seen, or were silent for longer than `[compute] service_down_time`."""
    yield hosts.enabled, "disabled"
    answering = (hosts.last_seen_at > 0) & (hosts.silent_seconds <= request.conf.compute.service_down_time)
    yield answering & ~hosts.forced_down, "down"
