"""Surroundings: what is known beside hosts and their resources: aggregates, and the images of the instances on each host.

Aggregates are reread when they changed. Images are read only when a weigher that counts says that it needs them (`NEEDS`).
Not for: hosts and resources; see `snapshot`, after each reading of which this is refreshed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from hullwright.objects.instances import RequestSpec
from hullwright.persistence.database import Database
from hullwright.persistence.models.groups import aggregate_hosts, aggregates
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.image_tally import ImageTally

IMAGE_TALLY = "image_tally"  # a word for NEEDS

_generations = sa.select(aggregates.c.id, aggregates.c.generation)
_metadata = sa.select(aggregates.c.id, aggregates.c.generation, aggregates.c.metadata)
_members = sa.select(aggregate_hosts.c.aggregate_id, aggregate_hosts.c.host_id)


class Surroundings:
    """Keeps them current in the columns. One per scheduler, under its lock."""

    def __init__(self, db: Database, needs: Iterable[str], named_properties: Iterable[str] = ()) -> None:
        """`needs`: of the filters and weighers in use; `named_properties`: of images, that count whatever their names."""
        self._db = db
        self.image_tally = ImageTally(named_properties) if IMAGE_TALLY in needs else None
        self._seen: dict[int, int] = {}  # aggregate id -> generation
        self._arrivals = 0  # of hosts, when memberships were last read

    def refresh(self, hosts: Columns) -> None:
        """Read what changed."""
        hosts.image_tally = self.image_tally
        with self._db.read() as conn:
            self._read_aggregates(conn, hosts)
            if self.image_tally is not None:
                self.image_tally.refresh(conn)

    def note_choice(self, spec: RequestSpec, host: str) -> None:
        """Count a choice from now on."""
        if self.image_tally is not None:
            self.image_tally.note_choice(spec.instance_uuid, host, spec.image_properties)

    def forget_choice(self, instance_uuid: str) -> None:
        """Count a choice no more."""
        if self.image_tally is not None:
            self.image_tally.forget_choice(instance_uuid)

    def _read_aggregates(self, conn: Any, hosts: Columns) -> None:
        generations: dict[int, int] = dict(conn.execute(_generations).tuples().all())
        changed: Collection[int] = [key for key, number in generations.items() if self._seen.get(key) != number]
        if hosts.arrivals != self._arrivals:
            changed = list(generations)  # a host that came may be in any of them
        for key in [key for key in self._seen if key not in generations]:
            hosts.aggregates.drop(key)
        if changed:
            members: dict[int, list[int]] = {}
            for aggregate_id, host_id in conn.execute(_members.where(aggregate_hosts.c.aggregate_id.in_(changed))):
                members.setdefault(aggregate_id, []).append(host_id)
            for row in conn.execute(_metadata.where(aggregates.c.id.in_(changed))):
                hosts.aggregates.put(row.id, row.metadata, hosts.with_ids(members.get(row.id, ())))
        # Members that were read after the generation, and are newer, are read once more next time.
        self._seen = generations
        self._arrivals = hosts.arrivals
