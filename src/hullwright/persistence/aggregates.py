"""Aggregates in the database: metadata, hosts, and the availability zones that some of them are.

A host is in the zone of its aggregate that has one, and in its own zone without (`hosts.settle_zones`). No host gets two zones, and none
leaves its zone under instances, nor under a claim that is being made. Whoever changes zones locks the aggregate first, then what its hosts
have (`allocations.lock_rooms`), then the hosts by id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.aggregates import ZONE_KEY, Aggregate
from hullwright.objects.errors import (
    AggregateHostExists,
    AggregateHostNotFound,
    AggregateNameExists,
    AggregateNotFound,
    HostNotFound,
    HostZoneInUse,
    InvalidAggregateAction,
)
from hullwright.objects.hosts import HOST_RATIOS
from hullwright.persistence import allocations
from hullwright.persistence import hosts as host_rows
from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.groups import aggregate_hosts, aggregates, removed_aggregates
from hullwright.persistence.models.hosts import hosts
from hullwright.persistence.models.instances import instances

_members = (
    sa.select(aggregate_hosts.c.aggregate_id, hosts.c.name)
    .join(hosts, hosts.c.id == aggregate_hosts.c.host_id)
    .order_by(aggregate_hosts.c.created_at, hosts.c.id)
)

_metadata_of_hosts = (
    sa.select(hosts.c.name, aggregates.c.metadata)
    .select_from(hosts)
    .join(aggregate_hosts, aggregate_hosts.c.host_id == hosts.c.id)
    .join(aggregates, aggregates.c.id == aggregate_hosts.c.aggregate_id)
    .where(hosts.c.name.in_(sa.bindparam("wanted", expanding=True)))
)


def create(conn: Connection, name: str, availability_zone: str | None = None) -> Aggregate:
    """Add an aggregate without hosts.

    Raises: AggregateNameExists.
    """
    metadata = {ZONE_KEY: availability_zone} if availability_zone else {}
    values = {"uuid": str(uuid4()), "name": name, "metadata": metadata, "created_at": now()}
    if not insert_if_absent(conn, aggregates, values):
        raise AggregateNameExists(name=name)
    found = conn.execute(sa.select(aggregates.c.id).where(aggregates.c.uuid == values["uuid"])).scalar_one()
    return get(conn, found)


def get(conn: Connection, id: int) -> Aggregate:
    """One aggregate.

    Raises: AggregateNotFound.
    """
    return _aggregate(conn, _row(conn, id))


def list_all(conn: Connection) -> list[Aggregate]:
    """All aggregates, oldest first."""
    members: dict[int, list[str]] = {}
    for row in conn.execute(_members):
        members.setdefault(row.aggregate_id, []).append(row.name)
    return [_record(row, members.get(row.id, ())) for row in conn.execute(sa.select(aggregates).order_by(aggregates.c.id))]


def metadata_of_hosts(conn: Connection, names: Collection[str]) -> dict[str, list[Mapping[str, str]]]:
    """Host -> the metadata of each aggregate that it is in; hosts in none are left out."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in conn.execute(_metadata_of_hosts, {"wanted": list(names)}):
        found.setdefault(row.name, []).append(row.metadata)
    return found


def delete(conn: Connection, id: int) -> None:
    """Forget an aggregate without hosts.

    Raises: AggregateNotFound, InvalidAggregateAction.
    """
    _row(conn, id, lock=True)
    if _host_ids(conn, id):
        raise InvalidAggregateAction(action="delete", id=id, reason="Host aggregate is not empty")
    conn.execute(sa.insert(removed_aggregates).values(aggregate_id=id))  # before the other goes: its number is above that
    conn.execute(sa.delete(aggregates).where(aggregates.c.id == id))


def rename(conn: Connection, id: int, name: str) -> None:
    """Give an aggregate another name.

    Raises: AggregateNotFound, AggregateNameExists.
    """
    row = _row(conn, id, lock=True)
    if conn.execute(sa.select(aggregates.c.id).where(aggregates.c.name == name, aggregates.c.id != row.id)).first():
        raise AggregateNameExists(name=name)
    try:
        conn.execute(sa.update(aggregates).where(aggregates.c.id == id).values(name=name, updated_at=now()))
    except sa.exc.IntegrityError as error:  # somebody else took it this moment
        raise AggregateNameExists(name=name) from error


def set_metadata(conn: Connection, id: int, changes: Mapping[str, str | None], action: str = "update_aggregate_metadata") -> None:
    """Set metadata, and remove what is None; with the zone, the hosts move.

    Raises: AggregateNotFound; InvalidAggregateAction when hosts are in another zone already, or hold instances.
    """
    row = _row(conn, id, lock=True)
    metadata = {key: value for key, value in {**row.metadata, **changes}.items() if value is not None}
    before, after = row.metadata.get(ZONE_KEY), metadata.get(ZONE_KEY)
    if after == "":
        raise InvalidAggregateAction(action=action, id=id, reason=f"Aggregate {row.name} does not support empty named availability zone")
    members = _host_ids(conn, id)
    if before != after and members:
        _lock_hosts(conn, members)
        if after is not None:
            _refuse_second_zone(conn, row, members, after, action)
        names = sa.select(hosts.c.name).where(hosts.c.id.in_(members))
        if conn.execute(sa.select(instances.c.id).where(instances.c.host.in_(names), instances.c.deleted_at.is_(None)).limit(1)).first():
            raise InvalidAggregateAction(action=action, id=id, reason="One or more hosts contain instances in this zone")
    _touch(conn, id, metadata=metadata)
    if any(row.metadata.get(name) != metadata.get(name) for name in HOST_RATIOS):
        host_rows.ask_soon(conn, members)
    if before != after:
        host_rows.settle_zones(conn, members)


def add_host(conn: Connection, id: int, name: str) -> None:
    """Put a host into an aggregate, and so into its zone.

    Raises: AggregateNotFound, HostNotFound, AggregateHostExists; InvalidAggregateAction when the host is in another zone by another
    aggregate, or holds instances that were asked into another zone.
    """
    row = _row(conn, id, lock=True)
    host = _find_host(conn, name)
    zone = row.metadata.get(ZONE_KEY)
    if zone is not None:
        _refuse_second_zone(conn, row, [host.id], zone, "add_host_to_aggregate")
        _refuse_pinned_elsewhere(conn, row, name, zone, "add_host_to_aggregate")
    if not insert_if_absent(conn, aggregate_hosts, {"aggregate_id": id, "host_id": host.id, "created_at": now()}):
        raise AggregateHostExists(id=id, host=name)
    _touch(conn, id)
    host_rows.have_reread(conn, host.id)
    if any(name in row.metadata for name in HOST_RATIOS):
        host_rows.ask_soon(conn, [host.id])
    host_rows.settle_zones(conn, [host.id])


def remove_host(conn: Connection, id: int, name: str) -> None:
    """Take a host out of an aggregate; out of the zone too, unless it is in another aggregate of that zone.

    Raises: AggregateNotFound, HostNotFound, AggregateHostNotFound; InvalidAggregateAction when the host holds instances that were
    asked into the zone that it would leave.
    """
    row = _row(conn, id, lock=True)
    host = _find_host(conn, name)
    membership = (aggregate_hosts.c.aggregate_id == id, aggregate_hosts.c.host_id == host.id)
    if conn.execute(sa.delete(aggregate_hosts).where(*membership)).rowcount == 0:
        raise AggregateHostNotFound(id=id, host=name)
    _touch(conn, id)
    host_rows.have_reread(conn, host.id)
    if any(name in row.metadata for name in HOST_RATIOS):
        host_rows.ask_soon(conn, [host.id])
    host_rows.settle_zones(conn, [host.id])
    zone = conn.execute(sa.select(hosts.c.availability_zone).where(hosts.c.id == host.id)).scalar_one()
    if row.metadata.get(ZONE_KEY) not in (None, zone):
        _refuse_pinned_elsewhere(conn, row, name, zone, "remove_host_from_aggregate")


def set_home_zone(conn: Connection, name: str, zone: str) -> None:
    """Give a host another zone of its own. It moves there at once, or when it has left the aggregates that are zones.

    Raises: HostNotFound; HostZoneInUse when instances were asked into the zone that it would leave.
    """
    host = _find_host(conn, name)
    conn.execute(sa.update(hosts).where(hosts.c.id == host.id).values(home_zone=zone))
    host_rows.settle_zones(conn, [host.id])
    settled = conn.execute(sa.select(hosts.c.availability_zone).where(hosts.c.id == host.id)).scalar_one()
    if settled != host.availability_zone and (count := _count_pinned_elsewhere(conn, name, settled)):
        raise HostZoneInUse(host=name, zone=zone, count=count)


# --- Parts ------------------------------------------------------------------------------------------------------------


def _row(conn: Connection, id: int, *, lock: bool = False) -> Any:
    query = sa.select(aggregates).where(aggregates.c.id == id)
    row = conn.execute(query.with_for_update(key_share=True) if lock else query).first()
    if row is None:
        raise AggregateNotFound(id=id)
    return row


def _aggregate(conn: Connection, row: Any) -> Aggregate:
    return _record(row, [found.name for found in conn.execute(_members.where(aggregate_hosts.c.aggregate_id == row.id))])


def _record(row: Any, members: Iterable[str]) -> Aggregate:
    return Aggregate(row.id, row.uuid, row.name, row.metadata, tuple(members), row.created_at, row.updated_at)


def _touch(conn: Connection, id: int, **values: Any) -> None:
    conn.execute(sa.update(aggregates).where(aggregates.c.id == id).values({**values, "updated_at": now()}))


def _host_ids(conn: Connection, id: int) -> list[int]:
    return list(conn.execute(sa.select(aggregate_hosts.c.host_id).where(aggregate_hosts.c.aggregate_id == id)).scalars())


def _lock_hosts(conn: Connection, host_ids: Collection[int]) -> None:
    allocations.lock_rooms(conn, host_ids)
    conn.execute(sa.select(hosts.c.id).where(hosts.c.id.in_(host_ids)).order_by(hosts.c.id).with_for_update(key_share=True)).all()


def _find_host(conn: Connection, name: str) -> Any:
    query = sa.select(hosts.c.id, hosts.c.availability_zone).where(hosts.c.name == name)
    found = conn.execute(query).first()
    if found is not None:
        allocations.lock_rooms(conn, [found.id])
    host = conn.execute(query.with_for_update(key_share=True)).first()
    if host is None:
        raise HostNotFound(id=name)
    return host


def _refuse_second_zone(conn: Connection, row: Any, host_ids: Collection[int], zone: str, action: str) -> None:
    others = sa.select(aggregates.c.metadata).join(aggregate_hosts)
    others = others.where(aggregate_hosts.c.host_id.in_(host_ids), aggregates.c.id != row.id)
    zones = {found for other in conn.execute(others) if (found := other.metadata.get(ZONE_KEY))} - {zone}
    if zones:
        told = ", ".join(sorted(zones))
        raise InvalidAggregateAction(action=action, id=row.id, reason=f"One or more hosts already in availability zone(s) {told}")


def _refuse_pinned_elsewhere(conn: Connection, row: Any, host: str, zone: str, action: str) -> None:
    if pinned := _count_pinned_elsewhere(conn, host, zone):
        reason = f"Host {host} would change to availability zone {zone}, and {pinned} of its instances asked for another"
        raise InvalidAggregateAction(action=action, id=row.id, reason=reason)


def _count_pinned_elsewhere(conn: Connection, host: str, zone: str) -> int:
    """How many instances of a host were asked into another zone than that."""
    there = sa.select(instances.c.spec).where(instances.c.host == host, instances.c.deleted_at.is_(None))
    return sum(found.spec.get("availability_zone") not in (None, zone) for found in conn.execute(there))
