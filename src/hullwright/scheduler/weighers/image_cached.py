"""Prefers hosts where the image lies already, so that it need not be fetched. Hosts tell it with their facts."""

from __future__ import annotations

import numpy as np

from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "image_cached_weight_multiplier"


def weigh(hosts: Columns, request: Request) -> Floats:
    """1 where it lies, 0 elsewhere; a server that boots from a volume needs none."""
    image_id = request.spec.image_id
    if image_id is None or request.spec.boots_from_volume:
        return np.zeros(len(hosts))
    return hosts.with_ids(hosts.image_holders.get(image_id, ())).astype(float)
