"""Passes hosts whose aggregates are for the request's project, or for nobody in particular.

An aggregate is for the projects in its metadata that begin with `filter_tenant_id`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that are kept for other projects."""
    kept, ours = hosts.none(), hosts.none()
    for key in hosts.aggregates.all_keys():
        if key.startswith("filter_tenant_id"):
            has, good = hosts.aggregates.with_value(key, request.spec.project_id.__eq__)
            kept |= has
            ours |= good
    yield ~kept | ours, "kept for other projects"
