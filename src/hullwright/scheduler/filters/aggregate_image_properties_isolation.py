"""Passes hosts whose aggregates' metadata do not contradict the image's properties.

A property that an aggregate names and the image has must be one of the values that the host's aggregates have for it. With
`[scheduler] aggregate_image_properties_isolation_namespace` only metadata of that namespace counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts whose aggregates want another value, and say of what."""
    options = request.conf.scheduler
    namespace = options.aggregate_image_properties_isolation_namespace
    prefix = namespace + options.aggregate_image_properties_isolation_separator if namespace else ""
    for key in sorted(hosts.aggregates.all_keys()):
        value = request.spec.image_properties.get(key)
        if value and key.startswith(prefix):
            has, good = hosts.aggregates.with_value(key, str(value).__eq__)
            yield ~has | good, f"in an aggregate whose {key} is not the image's"
