"""Passes the host where the server's group is, when its policy is affinity. Always on, because the claim insists on it."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.objects.server_groups import GroupPolicy
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts without a member, unless no host has one yet."""
    group = request.relations.group
    if group is not None and group.policy == GroupPolicy.AFFINITY and group.members_on:
        yield hosts.with_ids(group.members_on), "hold no member of the server group (affinity)"
