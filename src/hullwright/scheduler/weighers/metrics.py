"""Prefers hosts by the metrics that they tell, each times its ratio in `[metrics] weight_setting`; off while that is empty."""

from __future__ import annotations

from typing import Any

import numpy as np

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "metrics_weight_multiplier"


def multiplier(conf: Any) -> float:
    """It has a group of its own, as Nova has it."""
    return float(conf.metrics.weight_multiplier) if conf.metrics.weight_setting else 0.0


def weigh(hosts: Columns, request: Request) -> Floats:
    """The sum. A host that lacks a metric cannot be weighed: it counts as the least that pass with it, or as the option says."""
    options = request.conf.metrics
    weights = np.zeros(len(hosts))
    for name, ratio in options.weight_setting.items():
        if ratio:
            weights += ratio * hosts.metrics.of(name)
    if not options.required:
        weights[np.isnan(weights)] = options.weight_of_unavailable
    # Else they stay unknown. Nova fails the request. Not -10000 here either: among numbers so far apart the hosts that can be weighed
    # would all be equal.
    return weights
