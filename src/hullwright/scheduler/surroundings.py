"""Surroundings: what is known beside hosts and their resources: aggregates, and the images of the instances on each host.

By change (`persistence/models/changes.py`): a refresh reads the metadata of the aggregates that changed, and the memberships of the hosts
that came or changed. Images are read only when a weigher that counts says that it needs them (`NEEDS`).
Not for: hosts and resources; see `snapshot`, after each reading of which this is refreshed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from hullwright.objects.instances import RequestSpec
from hullwright.persistence.database import Database
from hullwright.persistence.models.base import Json
from hullwright.persistence.models.changes import Horizon
from hullwright.persistence.models.groups import aggregate_hosts, aggregates, removed_aggregates
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.image_tally import ImageTally
from hullwright.scheduler.snapshot import BATCH

IMAGE_TALLY = "image_tally"  # a word for NEEDS

_HORIZON, _PRESENT, _REMOVED = 0, 1, 2  # what a row is about
_nothing = sa.type_coerce(sa.null(), Json)
_since = sa.bindparam("since", type_=sa.BigInteger)
# One statement, so that the horizon is that of the very moment in which the aggregates are looked at.
_changes = sa.union_all(
    sa.select(sa.literal(_HORIZON).label("about"), Horizon().label("number"), _nothing.label("metadata")),
    sa.select(sa.literal(_PRESENT), aggregates.c.id, aggregates.c.metadata).where(aggregates.c.changed >= _since),
    sa.select(sa.literal(_REMOVED), removed_aggregates.c.aggregate_id, _nothing).where(removed_aggregates.c.changed >= _since),
)
_members = sa.select(aggregate_hosts.c.aggregate_id, aggregate_hosts.c.host_id)


class Surroundings:
    """Keeps them current in the columns. One per scheduler, under its lock."""

    def __init__(self, db: Database, needs: Iterable[str], named_properties: Iterable[str] = ()) -> None:
        """`needs`: of the filters and weighers in use; `named_properties`: of images, that count whatever their names."""
        self._db = db
        self.image_tally = ImageTally(named_properties) if IMAGE_TALLY in needs else None
        self.is_behind = True  # also after a reading that failed: hosts may be known by now whose aggregates are not
        self._rows_read = 0  # of aggregates and memberships
        self._since = 0  # the horizon of the last reading

    @property
    def rows_read(self) -> int:
        """So far, for tests and benchmarks."""
        return self._rows_read + (self.image_tally.rows_read if self.image_tally is not None else 0)

    def refresh(self, hosts: Columns) -> None:
        """Read what changed."""
        hosts.image_tally = self.image_tally
        self.is_behind = True
        with self._db.read() as conn:
            self._read_aggregates(conn, hosts)
            if self.image_tally is not None:
                self.image_tally.refresh(conn)
        self.is_behind = False

    def note_choice(self, spec: RequestSpec, host: str) -> None:
        """Count a choice from now on."""
        if self.image_tally is not None:
            self.image_tally.note_choice(spec.instance_uuid, host, spec.image_properties)

    def forget_choice(self, instance_uuid: str) -> None:
        """Count a choice no more."""
        if self.image_tally is not None:
            self.image_tally.forget_choice(instance_uuid)

    def _read_aggregates(self, conn: Any, hosts: Columns) -> None:
        # Memberships first: each aggregate that they name is then known, or was removed meanwhile, and with that its hosts changed again.
        memberships = self._read_memberships(conn, hosts)
        changes = conn.execute(_changes, {"since": self._since}).all()
        self._rows_read += len(memberships) + len(changes) - 1
        for row in changes:
            if row.about == _HORIZON:
                self._since = int(row.number)
            elif row.about == _REMOVED:
                hosts.aggregates.drop(row.number)
            else:
                hosts.aggregates.put(row.number, row.metadata)
        if hosts.membership_news:
            members: dict[int, list[int]] = {}
            for aggregate_id, host_id in memberships:
                if (position := hosts.position_of_id(host_id)) is not None:
                    members.setdefault(aggregate_id, []).append(position)
            hosts.aggregates.place(hosts.positions(list(hosts.membership_news)), members)
            hosts.membership_news.clear()

    def _read_memberships(self, conn: Any, hosts: Columns) -> list[Any]:
        """Those of the hosts whose aggregates are to be read anew."""
        wanted = list(hosts.membership_news)
        if len(wanted) > BATCH and len(wanted) == len(hosts):
            return list(conn.execute(_members))
        found: list[Any] = []
        for start in range(0, len(wanted), BATCH):
            found += conn.execute(_members.where(aggregate_hosts.c.host_id.in_(wanted[start : start + BATCH])))
        return found
