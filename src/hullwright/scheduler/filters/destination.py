"""Passes the hosts that the request itself allows. Always on, and never named in the configuration.

No request of the API has hosts ignored: `ignore_hosts` is for operations that move a server, whose own host it names.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts to be ignored, forced or not, as Nova does; then all but the one asked for, forced, or that has the volumes."""
    spec = request.spec
    if spec.ignore_hosts:
        yield ~hosts.named(spec.ignore_hosts), "ignored as asked"
    wanted = spec.force_host or spec.requested_host
    if wanted is not None:
        unknown = " (no host of that name is registered)" if hosts.position(wanted) is None else ""
        yield hosts.named([wanted]), f"not the host asked for{unknown}"
    if spec.volume_host is not None:
        gone = " (that host is not registered any more)" if hosts.position(spec.volume_host) is None else ""
        yield hosts.named([spec.volume_host]), f"not the host that has the bytes of a volume{gone}"
