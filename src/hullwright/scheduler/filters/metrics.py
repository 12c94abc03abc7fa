"""Passes hosts that tell all metrics that `[metrics] weight_setting` names, so that the weigher of that name can compare them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that lack one."""
    for name in request.conf.metrics.weight_setting:
        yield ~np.isnan(hosts.metrics.of(name)), f"not telling the metric {name}"
