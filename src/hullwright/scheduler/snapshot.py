"""Snapshot: columns kept current from the database, and what this process chose and has not yet claimed.

A refresh reads the numbers that change often (answers, failed builds, probes, what is used) of all hosts, and the rest only of hosts
whose generation changed. It is made at most every `max_age_seconds`, and never takes more than a tenth of the time: with very many
hosts the view gets older instead. Not for: deciding anything, nor for locking; the scheduler does both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from hullwright.objects.hosts import HostFacts
from hullwright.persistence.database import Database
from hullwright.persistence.models.hosts import allocations, hosts, inventories
from hullwright.scheduler.columns import Columns, HostRow

IN_FLIGHT_SECONDS = 2.0  # after that a choice whose claim was not seen counts as given up
READ_SHARE = 10  # a refresh that took t seconds is good for at least t times this
_BATCH = 500  # ids in one IN (...)

_beats = sa.select(
    hosts.c.id,
    hosts.c.generation,
    hosts.c.last_seen_at,
    hosts.c.silent_seconds,
    hosts.c.failed_builds,
    sa.func.coalesce(hosts.c.probed_at, 0.0),
).order_by(hosts.c.id)
_known_by_row = [hosts.c[name] for name in HostRow.__dataclass_fields__]
_inventory = sa.select(
    inventories.c.resource_class,
    inventories.c.host_id,
    inventories.c.total,
    inventories.c.reserved,
    inventories.c.allocation_ratio,
    inventories.c.used,
)
_CLAIM = -1  # in place of a total: the row is not an inventory but a claim, and names its instance
# In one statement with the inventories, so that a choice stops to count in the very reading in which its claim begins to.
_inventory_and_claims = sa.union_all(
    _inventory,
    sa.select(
        allocations.c.instance_uuid, allocations.c.host_id, sa.literal(_CLAIM), sa.literal(0), sa.literal(0.0, sa.Double), sa.literal(0)
    ).where(allocations.c.instance_uuid.in_(sa.bindparam("chosen_for", expanding=True))),
)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A host chosen here and not yet seen in the database as a claim."""

    host_id: int
    resources: Mapping[str, int]
    until: float  # monotonic
    probe_at: float | None  # seconds since the epoch, when the choice is a quarantined host's probe


class Snapshot:
    """The hosts as last read, plus the choices in flight."""

    def __init__(self, db: Database) -> None:
        """Start empty; the first refresh reads."""
        self.columns = Columns()
        self._db = db
        self._generations: dict[int, int] = {}
        self._choices: dict[str, _Choice] = {}
        self._good_until = 0.0  # monotonic

    def refresh(self, max_age_seconds: float, *, count_choices: bool = True) -> bool:
        """Read anew unless the last reading is young enough; answer whether it was read.

        `count_choices`: whether what is in flight counts as used.
        """
        begun = time.monotonic()
        if max_age_seconds > 0 and begun < self._good_until:
            return False
        with self._db.read() as conn:
            beats = conn.execute(_beats).all()
            self._take_hosts(conn, beats)
            if self._choices:
                rows = conn.execute(_inventory_and_claims, {"chosen_for": list(self._choices)}).all()
            else:
                rows = conn.execute(_inventory).all()
        claimed = {row[0] for row in rows if row[2] == _CLAIM}
        self._take_inventory([row for row in rows if row[2] != _CLAIM] if claimed else rows)
        self._choices = {key: choice for key, choice in self._choices.items() if key not in claimed and choice.until > begun}
        if count_choices:
            for choice in self._choices.values():
                self._count(choice)
        took = time.monotonic() - begun
        self._good_until = begun + max(max_age_seconds, took * READ_SHARE) if count_choices else 0.0
        return True

    def note_choice(self, instance_uuid: str, host_id: int, resources: Mapping[str, int], probe_at: float | None = None) -> None:
        """Count a choice as used from now on, so that the next request sees the host fuller (or probed) than the database does."""
        choice = _Choice(host_id, resources, time.monotonic() + IN_FLIGHT_SECONDS, probe_at)
        self.forget_choice(instance_uuid)
        self._choices[instance_uuid] = choice
        self._count(choice)

    def forget_choice(self, instance_uuid: str) -> None:
        """Count a choice no more: the instance is about to be chosen for again."""
        choice = self._choices.pop(instance_uuid, None)
        if choice is not None:
            self._count(choice, -1)

    def has_choices(self) -> bool:
        """Whether anything counts as used that is not in the database."""
        return bool(self._choices)

    def _count(self, choice: _Choice, sign: int = 1) -> None:
        position = self.columns.position_of_id(choice.host_id)
        if position is None:
            return
        if choice.probe_at is not None and sign > 0:
            self.columns.probed_at[position] = max(choice.probe_at, self.columns.probed_at[position])
        for name, amount in choice.resources.items():
            if name in self.columns.resources:
                self.columns.resources[name].used[position] += sign * amount

    def _take_hosts(self, conn: Any, beats: Sequence[Any]) -> None:
        """Bring hosts up to date: those that came, changed or went, and everybody's answers, failed builds and probes."""
        generations = {row[0]: row[1] for row in beats}
        if generations != self._generations:
            gone = [host_id for host_id in self._generations if host_id not in generations]
            changed = [host_id for host_id, number in generations.items() if self._generations.get(host_id) != number]
            if gone:
                self.columns.drop(gone)
            for start in range(0, len(changed), _BATCH):
                some = sa.select(*_known_by_row).where(hosts.c.id.in_(changed[start : start + _BATCH]))
                self.columns.put([_row(row) for row in conn.execute(some)])
            # A host that went between the two statements has no columns: it is looked at again next time.
            known = {key: value for key, value in generations.items() if self.columns.position_of_id(key) is not None}
            self._generations = known
        present = [row for row in beats if row[0] in self._generations]
        if present:
            positions = self.columns.positions([row[0] for row in present])
            self.columns.last_seen_at[positions] = [row[2] for row in present]
            self.columns.silent_seconds[positions] = [row[3] for row in present]
            self.columns.failed_builds[positions] = [row[4] for row in present]
            self.columns.probed_at[positions] = [row[5] for row in present]

    def _take_inventory(self, rows: Sequence[Any]) -> None:
        by_class: dict[str, list[Any]] = {}
        for row in rows:
            by_class.setdefault(row[0], []).append(row)
        for name, resource in self.columns.resources.items():
            if name not in by_class:
                resource.usable[:] = resource.capacity[:] = resource.used[:] = 0
        for name, those in by_class.items():
            present = [row for row in those if row[1] in self._generations]
            positions = self.columns.positions([row[1] for row in present])
            numbers = [np.array([row[column] for row in present], dtype=np.float64 if column == 4 else np.int64) for column in (2, 3, 4, 5)]
            self.columns.set_resource(name, positions, *numbers)


def _row(row: Any) -> HostRow:
    values = dict(row._mapping)
    values["facts"] = None if values["facts"] is None else HostFacts.from_dict(values["facts"])
    return HostRow(**values)
