"""Passes hosts that hold fewer members of the server's group than its policy anti-affinity allows. Always on: the claim insists on it."""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.objects.server_groups import GroupPolicy
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that hold as many members of the group as one host may."""
    group = request.relations.group
    if group is not None and group.policy == GroupPolicy.ANTI_AFFINITY:
        full = [host_id for host_id, count in group.members_on.items() if count >= group.max_server_per_host]
        most = "a member" if group.max_server_per_host == 1 else f"{group.max_server_per_host} members"
        yield ~hosts.with_ids(full), f"already hold {most} of the server group (anti-affinity)"
