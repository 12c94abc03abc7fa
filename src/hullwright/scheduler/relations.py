"""Relations: where other instances are that a request speaks of: the members of its server group, those that its hints name.

Read for each request that has such, and for no other. What this process chose for a group and has not yet claimed counts too, so that
requests of one group do not meet on a host. Not for: keeping a policy; the claim does that (`claim`), and this saves it from trying.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hullwright.objects.instances import RequestSpec
from hullwright.objects.server_groups import GroupPlacement
from hullwright.persistence import allocations, server_groups
from hullwright.persistence.database import Database

IN_FLIGHT_SECONDS = 2.0  # as of `snapshot`
HINTS = ("same_host", "different_host")


@dataclass(frozen=True, slots=True)
class Relations:
    """What filters and weighers may know of other instances."""

    group: GroupPlacement | None = None
    host_of: Mapping[str, int] = field(default_factory=dict)  # instance uuid -> host id, of those that hints name and that have one


NONE = Relations()


@dataclass(frozen=True, slots=True)
class _Choice:
    group_uuid: str
    host_id: int
    until: float  # monotonic


class RelationReader:
    """Reads them, and remembers the choices in flight. One per scheduler, under its lock."""

    def __init__(self, db: Database) -> None:
        """Nothing is read yet."""
        self._db = db
        self._choices: dict[str, _Choice] = {}

    def read(self, spec: RequestSpec, *, count_choices: bool = True) -> Relations:
        """The relations of a request, of this moment."""
        group_uuid, named = spec.server_group, named_instances(spec.scheduler_hints)
        if group_uuid is None and not named:
            return NONE
        with self._db.read() as conn:
            group = None
            if group_uuid is not None:
                # Choices first: one that becomes a claim meanwhile is then seen twice, and counted once.
                in_flight = self._in_flight(group_uuid) if count_choices else {}
                group = server_groups.placement(conn, group_uuid, spec.instance_uuid, in_flight)
            return Relations(group, allocations.hosts_of(conn, named) if named else {})

    def note_choice(self, spec: RequestSpec, host_id: int) -> None:
        """Count a choice as a member of its group from now on."""
        if spec.server_group is not None:
            self._choices[spec.instance_uuid] = _Choice(spec.server_group, host_id, time.monotonic() + IN_FLIGHT_SECONDS)

    def forget_choice(self, instance_uuid: str) -> None:
        """Count it no more."""
        self._choices.pop(instance_uuid, None)

    def has_choices(self, spec: RequestSpec) -> bool:
        """Whether a choice counts for the request's group."""
        return spec.server_group is not None and bool(self._in_flight(spec.server_group))

    def _in_flight(self, group_uuid: str) -> dict[str, int]:
        at = time.monotonic()
        self._choices = {key: choice for key, choice in self._choices.items() if choice.until > at}
        return {key: choice.host_id for key, choice in self._choices.items() if choice.group_uuid == group_uuid}


def hinted(hints: Mapping[str, Any], name: str) -> Collection[str]:
    """The instances that a hint names: one, or a list. What is no uuid names nobody."""
    value = hints.get(name) or ()
    found = []
    for each in [value] if isinstance(value, str) else value:
        try:
            found.append(str(UUID(str(each))))
        except ValueError:
            continue
    return found


def named_instances(hints: Mapping[str, Any]) -> list[str]:
    """All instances that hints name."""
    return [uuid for name in HINTS for uuid in hinted(hints, name)]
