"""ImageTally: how many instances on each host have an image with a property of such a value.

Read only when a weigher in use asks for it, and then by change: a refresh reads the instances that came to a host or left one since the
last refresh (`persistence/models/changes.py`), whatever the number of those that stay.
Not for: what it is worth; see `weighers/image_properties`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from hullwright.persistence.models.changes import Horizon
from hullwright.persistence.models.instances import instances
from hullwright.scheduler.columns import Columns, Floats

IN_FLIGHT_SECONDS = 2.0  # as of `snapshot`
_OUTDATED_SECONDS = 43_200.0  # records of instances that left may be removed a day later (`persistence/purge.py`)
KNOWN = ("hw_", "img_", "os_")  # what properties that say something of a guest begin with; others are an owner's notes
_ARRAYS_MAX = 64

Pair = tuple[str, str]  # a property and its value

_horizon = sa.select(Horizon())
_standing = sa.select(instances.c.uuid, instances.c.host, instances.c.spec).where(instances.c.host.is_not(None))
_moved = sa.select(instances.c.uuid, instances.c.host, instances.c.spec).where(
    instances.c.changed >= sa.bindparam("since", type_=sa.BigInteger)
)


def pairs_of(image_properties: Mapping[str, Any], named: Iterable[str] = ()) -> frozenset[Pair]:
    """The properties that count, with their values as text; those in `named` count whatever they begin with."""
    also = frozenset(named)
    return frozenset((name, str(value)) for name, value in image_properties.items() if name.startswith(KNOWN) or name in also)


@dataclass(frozen=True, slots=True)
class _Standing:
    """An instance on a host; `until`: when it was chosen here and its claim was not yet seen, how long that counts (monotonic)."""

    host: str
    pairs: frozenset[Pair]
    until: float | None = None


class ImageTally:
    """Kept current beside the columns. One per scheduler, under its lock."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """`named`: properties that count whatever they begin with. Nothing is read yet."""
        self.rows_read = 0  # so far, for tests and benchmarks
        self._named = frozenset(named)
        self._since = 0  # the horizon of the last reading
        self._read_at = 0.0  # and when it was, monotonic
        self._by_instance: dict[str, _Standing] = {}
        self._by_pair: dict[Pair, dict[str, int]] = {}  # pair -> host's name -> instances
        self._arrays: dict[Pair, Floats] = {}  # the same as columns, of pairs that were asked for
        self._hosts: Columns | None = None  # that the arrays belong to
        self._layout = -1

    def refresh(self, conn: Any) -> None:
        """Read the instances that moved."""
        at = time.monotonic()
        if at > self._read_at + _OUTDATED_SECONDS:
            self._since = 0
        for uuid in [uuid for uuid, standing in self._by_instance.items() if standing.until is not None and standing.until <= at]:
            self._forget(uuid)
        horizon = int(conn.execute(_horizon).scalar_one())
        rows = conn.execute(_moved, {"since": self._since}).all() if self._since else conn.execute(_standing).all()
        if not self._since:  # the first reading, or one after a long while
            for uuid in [uuid for uuid, standing in self._by_instance.items() if standing.until is None]:
                self._forget(uuid)
        self.rows_read += len(rows)
        for row in rows:
            if row.host is not None:
                self._note(row.uuid, _Standing(row.host, pairs_of(row.spec.get("image_properties") or {}, self._named)))
            elif (known := self._by_instance.get(row.uuid)) is not None and known.until is None:
                self._forget(row.uuid)
        self._since, self._read_at = horizon, at

    def note_choice(self, instance_uuid: str, host: str, image_properties: Mapping[str, Any]) -> None:
        """Count a choice from now on as an instance."""
        self.forget_choice(instance_uuid)
        if instance_uuid not in self._by_instance:
            self._note(instance_uuid, _Standing(host, pairs_of(image_properties, self._named), time.monotonic() + IN_FLIGHT_SECONDS))

    def forget_choice(self, instance_uuid: str) -> None:
        """Count a choice no more."""
        known = self._by_instance.get(instance_uuid)
        if known is not None and known.until is not None:
            self._forget(instance_uuid)

    def on_hosts(self, hosts: Columns, pair: Pair) -> Floats:
        """How many instances of each host have an image with this property and value."""
        if hosts is not self._hosts or hosts.layout != self._layout:
            self._arrays.clear()
            self._hosts, self._layout = hosts, hosts.layout
        found = self._arrays.get(pair)
        if found is None:
            if len(self._arrays) >= _ARRAYS_MAX:
                self._arrays.clear()
            found = self._arrays[pair] = np.zeros(len(hosts))
            for name, count in self._by_pair.get(pair, {}).items():
                if (position := hosts.position(name)) is not None:
                    found[position] = count
        return found

    def _note(self, uuid: str, standing: _Standing) -> None:
        if uuid in self._by_instance:
            self._forget(uuid)
        self._by_instance[uuid] = standing
        self._count(standing, 1)

    def _forget(self, uuid: str) -> None:
        self._count(self._by_instance.pop(uuid), -1)

    def _count(self, standing: _Standing, sign: int) -> None:
        for pair in standing.pairs:
            counts = self._by_pair.setdefault(pair, {})
            counts[standing.host] = counts.get(standing.host, 0) + sign
            if not counts[standing.host]:
                del counts[standing.host]
            if not counts:
                del self._by_pair[pair]
            if (array := self._arrays.get(pair)) is not None and (position := self._position(standing.host)) is not None:
                array[position] += sign

    def _position(self, host: str) -> int | None:
        """In the arrays, as long as the columns are laid out as these are."""
        hosts = self._hosts
        return hosts.position(host) if hosts is not None and hosts.layout == self._layout else None
