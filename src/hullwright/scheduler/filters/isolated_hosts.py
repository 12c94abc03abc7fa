"""Keeps `[scheduler] isolated_images` on `isolated_hosts`, and by default all other images away from there.

With `restrict_isolated_hosts_to_isolated_images` off, other images may go to isolated hosts too.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts on the wrong side."""
    options = request.conf.scheduler
    isolated = hosts.named(options.isolated_hosts)
    if request.spec.image_id in options.isolated_images:
        yield isolated, "not isolated, as the image wants it"
    elif options.restrict_isolated_hosts_to_isolated_images:
        yield ~isolated, "kept for isolated images"
