"""Prefers hosts with more instances whose images have the request's properties, when it counts at all; negative spreads them.

`[scheduler] image_props_weight_setting` says which properties count and how much; without it all of them count once.
"""

from __future__ import annotations

import numpy as np

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.image_tally import pairs_of
from hullwright.scheduler.request import Request
from hullwright.scheduler.surroundings import IMAGE_TALLY

MULTIPLIER = "image_props_weight_multiplier"
NEEDS = (IMAGE_TALLY,)


def weigh(hosts: Columns, request: Request) -> Floats:
    """For each property, the instances there that have the same value."""
    weights, tally = np.zeros(len(hosts)), hosts.image_tally
    if tally is None:
        return weights
    setting = request.conf.scheduler.image_props_weight_setting
    for name, value in sorted(pairs_of(request.spec.image_properties, setting)):
        worth = setting.get(name, 0.0) if setting else 1.0
        if worth:
            weights += worth * tally.on_hosts(hosts, (name, value))
    return weights
