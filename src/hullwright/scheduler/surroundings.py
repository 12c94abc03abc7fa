"""Surroundings: what the columns hold beside hosts and their resources: aggregates, how many instances a host has, how many it builds.

Aggregates are reread when they changed. The counts are read only when a filter or weigher that is in use says that it needs them
(`NEEDS`); what this process chose and has not yet claimed counts too.
Not for: hosts and resources; see `snapshot`, after each reading of which this is refreshed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import sqlalchemy as sa

from hullwright.persistence.database import Database
from hullwright.persistence.models.groups import aggregate_hosts, aggregates
from hullwright.persistence.models.hosts import allocations
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs
from hullwright.scheduler.columns import Columns, Integers

INSTANCES, IO_OPS = "instances", "io_ops"  # words for NEEDS
IN_FLIGHT_SECONDS = 2.0  # as of `snapshot`

_generations = sa.select(aggregates.c.id, aggregates.c.generation)
_metadata = sa.select(aggregates.c.id, aggregates.c.generation, aggregates.c.metadata)
_members = sa.select(aggregate_hosts.c.aggregate_id, aggregate_hosts.c.host_id)
_counts = sa.select(allocations.c.host_id, sa.func.count(allocations.c.instance_uuid.distinct())).group_by(allocations.c.host_id)
_claimed = sa.select(allocations.c.instance_uuid).distinct().where(allocations.c.instance_uuid.in_(sa.bindparam("chosen", expanding=True)))
# The condition is that of the index of open jobs, in its own words: it is found whatever the number of jobs done.
_building = (
    sa.select(instances.c.uuid, instances.c.host)
    .join(jobs, jobs.c.instance_uuid == instances.c.uuid)
    .where(sa.text("jobs.state IN ('queued', 'running')"), jobs.c.kind == "build_instance", instances.c.host.is_not(None))
)


class Surroundings:
    """Keeps them current in the columns. One per scheduler, under its lock."""

    def __init__(self, db: Database, needs: Iterable[str]) -> None:
        """`needs`: of the filters and weighers in use."""
        self._db = db
        self._needs = frozenset(needs)
        self._seen: dict[int, int] = {}  # aggregate id -> generation
        self._arrivals = 0  # of hosts, when memberships were last read
        self._choices: dict[str, tuple[int, float]] = {}  # instance uuid -> host id, and until when (monotonic) it counts

    def refresh(self, hosts: Columns, *, count_choices: bool = True) -> None:
        """Read what changed."""
        with self._db.read() as conn:
            self._read_aggregates(conn, hosts)
            at = time.monotonic()
            self._choices = {key: choice for key, choice in self._choices.items() if choice[1] > at}
            chosen = self._choices if count_choices else {}
            if INSTANCES in self._needs:
                counts = conn.execute(_counts).tuples().all()
                claimed = set(conn.execute(_claimed, {"chosen": list(chosen)}).scalars()) if chosen else set()
                _fill(hosts, hosts.instance_counts, counts)
                self._add(hosts, hosts.instance_counts, [key for key in chosen if key not in claimed])
            if IO_OPS in self._needs:
                building = {row.uuid: row.host for row in conn.execute(_building)}
                hosts.io_ops[:] = 0
                for name in building.values():
                    if (position := hosts.position(name)) is not None:
                        hosts.io_ops[position] += 1
                self._add(hosts, hosts.io_ops, [key for key in chosen if key not in building])

    def note_choice(self, hosts: Columns, instance_uuid: str, host_id: int) -> None:
        """Count a choice from now on as an instance, and as one that is being built."""
        self._choices[instance_uuid] = (host_id, time.monotonic() + IN_FLIGHT_SECONDS)
        for column in (hosts.instance_counts, hosts.io_ops):
            self._add(hosts, column, [instance_uuid])

    def forget_choice(self, instance_uuid: str) -> None:
        """Count a choice no more from the next reading on."""
        self._choices.pop(instance_uuid, None)

    def _add(self, hosts: Columns, column: Integers, chosen: Iterable[str]) -> None:
        for key in chosen:
            if (position := hosts.position_of_id(self._choices[key][0])) is not None:
                column[position] += 1

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


def _fill(hosts: Columns, column: Integers, counts: Iterable[tuple[int, int]]) -> None:
    column[:] = 0
    known = [(position, count) for host_id, count in counts if (position := hosts.position_of_id(host_id)) is not None]
    if known:
        positions, numbers = zip(*known, strict=True)
        column[np.array(positions)] = numbers
