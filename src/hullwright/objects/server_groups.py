"""Server groups: instances that are to share a host, or not to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hullwright.objects.records import Record


class GroupPolicy(StrEnum):
    """What a group wants of its members' hosts. The soft ones are wishes: they order hosts and refuse none."""

    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    SOFT_AFFINITY = "soft-affinity"
    SOFT_ANTI_AFFINITY = "soft-anti-affinity"


@dataclass(frozen=True, slots=True)
class ServerGroup(Record):
    """A group. Its policy never changes."""

    uuid: str
    name: str
    project_id: str
    user_id: str
    policy: GroupPolicy
    max_server_per_host: int | None = None  # of anti-affinity only; None: one
    members: tuple[str, ...] = ()  # uuids of living instances
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class GroupPlacement:
    """Where a group's members are, as seen by one that is about to be placed (and not counted itself)."""

    uuid: str
    policy: GroupPolicy
    max_server_per_host: int = 1
    members_on: Mapping[int, int] = field(default_factory=dict)  # host id -> how many members hold a claim there

    def allows(self, host_id: int) -> bool:
        """Whether one more member may go to this host."""
        match self.policy:
            case GroupPolicy.AFFINITY:
                return not self.members_on or host_id in self.members_on
            case GroupPolicy.ANTI_AFFINITY:
                return self.members_on.get(host_id, 0) < self.max_server_per_host
            case _:
                return True
