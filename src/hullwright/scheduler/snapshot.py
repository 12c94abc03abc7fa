"""Snapshot: columns kept current from the database, and what this process chose and has not yet claimed.

A refresh reads the rows that changed since the last one (`persistence/models/changes.py`), so that its cost follows what happened and not
how many hosts there are; only the first one reads all. It is made at most every `max_age_seconds`, and never takes more than a tenth of
the time, the first one apart: when very much happens the view gets older instead.
Not for: deciding anything, nor for locking; the scheduler does both.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from hullwright.objects.hosts import HostFacts
from hullwright.persistence.database import Database
from hullwright.persistence.models.changes import Horizon
from hullwright.persistence.models.hosts import allocations, hosts, inventories, removed_hosts
from hullwright.scheduler.columns import Columns, HostRow

IN_FLIGHT_SECONDS = 2.0  # after that a choice whose claim was not seen counts as given up
READ_SHARE = 10  # a refresh that took t seconds is good for at least t times this
BATCH = 500  # ids in one IN (...)

_since = sa.bindparam("since", type_=sa.BigInteger)
_HORIZON, _REMOVED = -1, -1  # in place of a host's id, and of its generation
_zero = sa.literal(0.0, sa.Double)
# One statement, so that the horizon is that of the very moment in which the hosts are looked at.
_beats = sa.union_all(
    sa.select(sa.literal(_HORIZON, sa.BigInteger), Horizon(), _zero, _zero, sa.literal(0), _zero),
    sa.select(
        hosts.c.id,
        hosts.c.generation,
        hosts.c.last_seen_at,
        hosts.c.silent_seconds,
        hosts.c.failed_builds,
        sa.func.coalesce(hosts.c.probed_at, 0.0),
    ).where(hosts.c.changed >= _since),
    sa.select(removed_hosts.c.host_id, sa.literal(_REMOVED), _zero, _zero, sa.literal(0), _zero).where(removed_hosts.c.changed >= _since),
)
_known_by_row = [hosts.c[name] for name in HostRow.__dataclass_fields__]
_inventory = sa.select(
    inventories.c.resource_class,
    inventories.c.host_id,
    inventories.c.total,
    inventories.c.reserved,
    inventories.c.allocation_ratio,
    inventories.c.used,
    inventories.c.holders,
    inventories.c.building,
).where(inventories.c.changed >= _since)
_CLAIM = -1  # in place of a total: the row is not an inventory but a claim, and names its instance
# In one statement with the inventories, so that a choice stops to count in the very reading in which its claim begins to.
_inventory_and_claims = sa.union_all(
    _inventory,
    sa.select(
        allocations.c.instance_uuid, allocations.c.host_id, sa.literal(_CLAIM), sa.literal(0), _zero, *[sa.literal(0) for _ in range(3)]
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

    def __init__(self, db: Database, metrics: Iterable[str] = ()) -> None:
        """Start empty; the first refresh reads. `metrics`: names of those to keep."""
        self.columns = Columns(metrics=metrics)
        self.rows_read = 0  # so far, for tests and benchmarks
        self._db = db
        self._since = 0  # the horizon of the last reading: what has a smaller number was seen
        self._generations: dict[int, int] = {}
        self._choices: dict[str, _Choice] = {}
        self._counted: set[str] = set()  # those of the choices that count in the columns now
        self._probed_at: dict[int, float] = {}  # as in the database, of hosts for whose probe a choice stands
        self._read_at, self._took = float("-inf"), 0.0  # the last reading: when (monotonic), how many seconds

    def refresh(self, max_age_seconds: float, *, count_choices: bool = True) -> bool:
        """Read what changed unless the last reading is young enough; answer whether it was read.

        `count_choices`: whether what is in flight counts as used.
        """
        begun = time.monotonic()
        if max_age_seconds > 0 and begun < self._read_at + max(max_age_seconds, self._took * READ_SHARE):
            return False
        is_first = not self._generations
        with self._db.read() as conn:
            beats = conn.execute(_beats, {"since": self._since}).all()
            news = [row for row in beats if row[0] != _HORIZON]
            static = self._read_static(conn, news)
            if self._choices:
                rows = conn.execute(_inventory_and_claims, {"since": self._since, "chosen_for": list(self._choices)}).all()
            else:
                rows = conn.execute(_inventory, {"since": self._since}).all()
        self.rows_read += len(news) + len(static) + len(rows)
        self._uncount_all()
        self._take_hosts(news, static)
        claimed = {row[0] for row in rows if row[2] == _CLAIM}
        self._take_inventory([row for row in rows if row[2] != _CLAIM] if claimed else rows)
        # Last: a reading that failed half-way is made again.
        self._since = next(int(row[1]) for row in beats if row[0] == _HORIZON)
        self._choices = {key: choice for key, choice in self._choices.items() if key not in claimed and choice.until > begun}
        if count_choices:
            for key in self._choices:
                self._count(key)
        # What the first reading took says nothing of those to come: the view must not be old for that.
        self._took = 0.0 if is_first else time.monotonic() - begun
        self._read_at = begun if count_choices else float("-inf")
        return True

    # --- Choices in flight ------------------------------------------------------------------------------------------------

    def note_choice(self, instance_uuid: str, host_id: int, resources: Mapping[str, int], probe_at: float | None = None) -> None:
        """Count a choice as used from now on, so that the next request sees the host fuller (or probed) than the database does."""
        self.forget_choice(instance_uuid)
        self._choices[instance_uuid] = _Choice(host_id, resources, time.monotonic() + IN_FLIGHT_SECONDS, probe_at)
        self._count(instance_uuid)

    def forget_choice(self, instance_uuid: str) -> None:
        """Count a choice no more: the instance is about to be chosen for again."""
        if instance_uuid in self._choices:
            self._uncount(instance_uuid)
            del self._choices[instance_uuid]

    def has_choices(self) -> bool:
        """Whether anything counts as used that is not in the database."""
        return bool(self._choices)

    def _count(self, instance_uuid: str) -> None:
        choice = self._choices[instance_uuid]
        self._counted.add(instance_uuid)
        self._add(choice, 1)
        position = self.columns.position_of_id(choice.host_id)
        if choice.probe_at is not None and position is not None:
            before = float(self.columns.probed_at[position])
            self._probed_at.setdefault(choice.host_id, before)
            self.columns.probed_at[position] = max(choice.probe_at, before)

    def _uncount(self, instance_uuid: str) -> None:
        if instance_uuid in self._counted:
            self._counted.discard(instance_uuid)
            self._add(self._choices[instance_uuid], -1)

    def _uncount_all(self) -> None:
        """Have the columns say what the database said."""
        for key in list(self._counted):
            self._uncount(key)
        for host_id, probed_at in self._probed_at.items():
            position = self.columns.position_of_id(host_id)
            if position is not None:
                self.columns.probed_at[position] = probed_at
        self._probed_at.clear()

    def _add(self, choice: _Choice, sign: int) -> None:
        position = self.columns.position_of_id(choice.host_id)
        if position is None:
            return
        self.columns.instance_counts[position] += sign
        self.columns.io_ops[position] += sign
        for name, amount in choice.resources.items():
            if name in self.columns.resources:
                self.columns.resources[name].used[position] += sign * amount

    # --- What was read ----------------------------------------------------------------------------------------------------

    def _read_static(self, conn: Any, news: Sequence[Any]) -> list[HostRow]:
        """What is known of the hosts that came or changed, apart from answers, failed builds and probes."""
        changed = [row[0] for row in news if row[1] != _REMOVED and self._generations.get(row[0]) != row[1]]
        known = sa.select(*_known_by_row).order_by(hosts.c.id)  # of equal hosts the first is taken
        if len(changed) > BATCH and not self._generations:
            return [_row(row) for row in conn.execute(known)]
        found: list[HostRow] = []
        for start in range(0, len(changed), BATCH):
            found += [_row(row) for row in conn.execute(known.where(hosts.c.id.in_(changed[start : start + BATCH])))]
        return found

    def _take_hosts(self, news: Sequence[Any], static: Collection[HostRow]) -> None:
        """Bring hosts up to date: those that came, changed or went, and the answers, failed builds and probes of those with news."""
        gone = [row[0] for row in news if row[1] == _REMOVED and row[0] in self._generations]
        if gone:
            self.columns.drop(gone)
            for host_id in gone:
                del self._generations[host_id]
        removed = {row[0] for row in news if row[1] == _REMOVED}
        self.columns.put([row for row in static if row.id not in removed])
        # A host that went between the two statements has no columns; that it went is heard next time.
        present = [row for row in news if row[1] != _REMOVED and self.columns.position_of_id(row[0]) is not None]
        if present:
            self._generations |= {row[0]: row[1] for row in present}
            positions = self.columns.positions([row[0] for row in present])
            self.columns.last_seen_at[positions] = [row[2] for row in present]
            self.columns.silent_seconds[positions] = [row[3] for row in present]
            self.columns.failed_builds[positions] = [row[4] for row in present]
            self.columns.probed_at[positions] = [row[5] for row in present]

    def _take_inventory(self, rows: Sequence[Any]) -> None:
        by_class: dict[str, list[Any]] = {}
        for row in rows:
            if row[1] in self._generations:  # else its host is heard of next time, and this row with it
                by_class.setdefault(row[0], []).append(row)
        for name, those in by_class.items():
            positions = self.columns.positions([row[1] for row in those])
            numbers = [np.array([row[column] for row in those], dtype=np.float64 if column == 4 else np.int64) for column in range(2, 8)]
            self.columns.set_resource(name, positions, *numbers)
        if by_class:
            self.columns.count_instances(self.columns.positions(list({row[1] for those in by_class.values() for row in those})))


def _row(row: Any) -> HostRow:
    values = dict(zip(HostRow.__dataclass_fields__, row, strict=True))
    values["facts"] = None if values["facts"] is None else HostFacts.from_dict(values["facts"])
    return HostRow(**values)
