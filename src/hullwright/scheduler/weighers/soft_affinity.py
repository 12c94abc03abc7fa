"""Prefers hosts with more members of the server's group, when its policy is soft-affinity."""

from __future__ import annotations

import numpy as np

from hullwright.objects.server_groups import GroupPolicy
from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

MULTIPLIER = "soft_affinity_weight_multiplier"


def weigh(hosts: Columns, request: Request) -> Floats:
    """Members there."""
    group = request.relations.group
    if group is None or group.policy != GroupPolicy.SOFT_AFFINITY:
        return np.zeros(len(hosts))
    return hosts.amounts(group.members_on)
