"""Passes hosts that are enabled, whose hypervisor answers (`is_up` of objects/hosts.py on columns), and that are not in quarantine.

A quarantined host passes for its probe: one build each `[compute] quarantine_probe_interval`. Here it passes for everybody once that
time is over; the claim lets one of them have it, and moves the time.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are disabled, forced down, never seen, silent for longer than `[compute] service_down_time`, or in quarantine."""
    yield hosts.enabled, "disabled"
    answering = (hosts.last_seen_at > 0) & (hosts.silent_seconds <= request.conf.compute.service_down_time)
    yield answering & ~hosts.forced_down, "down"
    probe_is_due = hosts.probed_at <= request.at - request.conf.compute.quarantine_probe_interval
    yield (hosts.probed_at == 0) | probe_is_due, "in quarantine after failed builds", hosts.quarantine_reasons
