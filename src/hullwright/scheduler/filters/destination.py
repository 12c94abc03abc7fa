"""Passes the hosts that the request itself allows. Always on, and never named in the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts to be ignored, and all but the one asked for or forced."""
    spec = request.spec
    wanted = spec.force_host or spec.requested_host
    if wanted is not None:
        unknown = " (no host of that name is registered)" if hosts.position(wanted) is None else ""
        yield hosts.named([wanted]), f"not the host asked for{unknown}"
    if spec.ignore_hosts and not spec.force_host:
        yield ~hosts.named(spec.ignore_hosts), "ignored as asked"
