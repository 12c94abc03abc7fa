"""Allocations: what each instance holds of its host. A claim is one conditional statement, never a read and then a write.

`inventories.used` is the sum of a host's allocations and is changed in the allocation's own transaction, so a claim costs
the same on a full host as on an empty one, and no concurrency can promise more than there is. How many instances hold of it and how
many of these are being built is counted by the same statements.
Not for: choosing the host (`scheduler/`).
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import ComputeResourcesUnavailable
from hullwright.objects.hosts import describe_amount
from hullwright.objects.placement import Claim
from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_those_absent
from hullwright.persistence.models.hosts import allocations, hosts, inventories

_row = sa.and_(inventories.c.host_id == sa.bindparam("b_host_id"), inventories.c.resource_class == sa.bindparam("b_resource_class"))
_amount = sa.bindparam("b_amount", type_=sa.BigInteger)
_holders, _building = sa.bindparam("b_holders", type_=sa.Integer), sa.bindparam("b_building", type_=sa.Integer)
_usable = inventories.c.total - inventories.c.reserved

# What is asked of the host itself. Said once for each resource, so from the second on with the first row locked: who moves hosts between
# zones locks these rows too (`lock_rooms`), and has either committed by then or sees the claim.
_in_service, _zone = sa.bindparam("b_in_service", type_=sa.Boolean), sa.bindparam("b_zone", type_=sa.String)
_host_will_do = sa.exists().where(
    hosts.c.id == sa.bindparam("b_host_id"),
    sa.or_(~_in_service, sa.and_(hosts.c.enabled, ~hosts.c.forced_down)),
    sa.or_(_zone.is_(None), hosts.c.availability_zone == _zone),
)
# The second condition: an instance may overcommit against others, never against itself.
_take = (
    sa.update(inventories)
    .where(_row, inventories.c.used + _amount <= _usable * inventories.c.allocation_ratio, _amount <= _usable, _host_will_do)
    .values(used=inventories.c.used + _amount, holders=inventories.c.holders + _holders, building=inventories.c.building + _building)
)
_take_if_empty_enough = _take.where(inventories.c.used <= sa.bindparam("b_at_most", type_=sa.BigInteger))
_change = (
    sa.update(inventories)
    .where(_row)
    .values(used=inventories.c.used + _amount, holders=inventories.c.holders + _holders, building=inventories.c.building + _building)
)
_drop = (
    sa.delete(allocations)
    .where(allocations.c.instance_uuid == sa.bindparam("b_instance_uuid"))
    .returning(allocations.c.host_id, allocations.c.resource_class, allocations.c.amount, allocations.c.job_uuid)
)
_end_build = (
    sa.update(allocations)
    .where(allocations.c.instance_uuid == sa.bindparam("b_instance_uuid"), allocations.c.job_uuid.is_not(None))
    .values(job_uuid=None)
    .returning(allocations.c.host_id, allocations.c.resource_class)
)
# Of those who want to be a quarantined host's probe, one finds the latest probe long enough ago.
_take_probe = (
    sa.update(hosts)
    .where(hosts.c.id == sa.bindparam("b_host_id"), hosts.c.probed_at <= sa.bindparam("b_before"))
    .values(probed_at=sa.bindparam("b_now"))
)
_held = sa.select(allocations).where(allocations.c.instance_uuid == sa.bindparam("b_instance_uuid"))


def claim(
    conn: Connection,
    *,
    instance_uuid: str,
    host_id: int,
    resources: Mapping[str, int],
    job_uuid: str | None = None,
    or_keep_on: Collection[int] = (),
    probe_before: float | None = None,
    used_at_most: Mapping[str, int] | None = None,
    only_in_service: bool = False,
    only_in_zone: str | None = None,
) -> int:
    """Claim `resources` (resource class -> amount) of a host for an instance, all or nothing, in the caller's write transaction.

    The same claim found again is success. A claim on another host (or of another size) is given back in the same transaction,
    so that an instance never holds two; unless it is on one of the hosts `or_keep_on`: then it stays where it is.
    `probe_before`: the host is in quarantine and may be had only as its probe, when the latest one began no later than that.
    `used_at_most`: the host may be had only while no more than this (resource class -> amount) is used there.
    `only_in_service`: it may be had only while it is enabled and not forced down; `only_in_zone`: only while it is in that zone.
    When this raises, the transaction is as it was, and another host may be claimed in it; only what the instance held
    elsewhere stays given back.

    Returns the id of the host that the instance holds now.
    Raises: ComputeResourcesUnavailable naming what the host lacks.
    """
    if not resources:
        return host_id
    rows: list[dict[str, object]] = [
        {
            "instance_uuid": instance_uuid,
            "host_id": host_id,
            "resource_class": name,
            "amount": amount,
            "job_uuid": job_uuid,
            "created_at": now(),
        }
        for name, amount in sorted(resources.items())
    ]
    # One order of rows for everybody, and a savepoint that frees them when the host is left: no two claims can deadlock.
    conn.exec_driver_sql("SAVEPOINT claim")
    take = _take if used_at_most is None else _take_if_empty_enough
    more = {"b_in_service": only_in_service, "b_zone": only_in_zone}
    building = int(job_uuid is not None)
    taken = _update(conn, take, host_id, resources, holders=1, building=building, at_most=used_at_most or {}, more=more) == len(rows)
    # Rows of resources before those of hosts, as everywhere.
    may_go = not taken or probe_before is None or _begin_probe(conn, host_id, probe_before)
    if taken and may_go and insert_those_absent(conn, allocations, rows) == len(rows):
        return host_id
    conn.exec_driver_sql("ROLLBACK TO SAVEPOINT claim")
    held = held_by(conn, instance_uuid)
    if held is None:
        moment = "it was full a moment ago" if used_at_most is None else "others went there meanwhile"
        raise _unavailable(conn, host_id, resources, moment if may_go else "another build probes it", only_in_service, only_in_zone)
    if held.resources == dict(resources) and held.host_id in {host_id, *or_keep_on}:
        return held.host_id
    release(conn, instance_uuid)
    return claim(
        conn,
        instance_uuid=instance_uuid,
        host_id=host_id,
        resources=resources,
        job_uuid=job_uuid,
        probe_before=probe_before,
        only_in_service=only_in_service,
        only_in_zone=only_in_zone,
    )


def release(conn: Connection, instance_uuid: str) -> None:
    """Give back whatever an instance holds. Holding nothing counts as done."""
    given_back: dict[tuple[int, bool], dict[str, int]] = {}
    for host_id, resource_class, amount, job_uuid in conn.execute(_drop, {"b_instance_uuid": instance_uuid}):
        given_back.setdefault((host_id, job_uuid is not None), {})[resource_class] = -amount
    for (host_id, is_building), resources in sorted(given_back.items()):
        _update(conn, _change, host_id, resources, holders=-1, building=-int(is_building))


def end_build(conn: Connection, instance_uuid: str) -> None:
    """Count an instance's build as done: it holds what it holds. Doing it twice changes nothing."""
    held_on: dict[int, dict[str, int]] = {}
    for host_id, resource_class in conn.execute(_end_build, {"b_instance_uuid": instance_uuid}):
        held_on.setdefault(host_id, {})[resource_class] = 0
    for host_id, resources in sorted(held_on.items()):
        _update(conn, _change, host_id, resources, holders=0, building=-1)


def record(conn: Connection, *, instance_uuid: str, host_id: int, resources: Mapping[str, int]) -> None:
    """Write down what an instance takes in fact, whether there is room for it or not, in place of what it held. For reconciliation."""
    release(conn, instance_uuid)
    _update(conn, _change, host_id, resources, holders=1, building=0)
    held = {"instance_uuid": instance_uuid, "host_id": host_id, "job_uuid": None, "created_at": now()}
    rows = [held | {"resource_class": name, "amount": amount} for name, amount in sorted(resources.items())]
    if rows:
        insert_those_absent(conn, allocations, rows)


def recount(conn: Connection, host_id: int, resource_class: str) -> int:
    """Set what is used of a host's resource, and by how many, to what its allocations say; answers the sum. For reconciliation."""
    here = sa.and_(inventories.c.host_id == host_id, inventories.c.resource_class == resource_class)
    # Claims change this row before they write allocations: with the lock on it, the sum that is read next is whole.
    conn.execute(sa.select(inventories.c.used).where(here).with_for_update()).first()
    theirs = sa.and_(allocations.c.host_id == host_id, allocations.c.resource_class == resource_class)
    total = sa.func.coalesce(sa.func.sum(allocations.c.amount), 0)
    used, holders, building = conn.execute(sa.select(total, sa.func.count(), sa.func.count(allocations.c.job_uuid)).where(theirs)).one()
    conn.execute(sa.update(inventories).where(here).values(used=int(used), holders=holders, building=building))
    return int(used)


def lock_rooms(conn: Connection, host_ids: Collection[int]) -> None:
    """Wait for the claims that are being made on hosts, and have others wait for the end of this write transaction."""
    theirs = sa.select(inventories.c.host_id).where(inventories.c.host_id.in_(host_ids))
    conn.execute(theirs.order_by(inventories.c.host_id, inventories.c.resource_class).with_for_update(key_share=True)).all()


def held_by(conn: Connection, instance_uuid: str) -> Claim | None:
    """What an instance holds, or None."""
    rows = conn.execute(_held, {"b_instance_uuid": instance_uuid}).all()
    if not rows:
        return None
    return Claim(instance_uuid, rows[0].host_id, {row.resource_class: row.amount for row in rows}, rows[0].job_uuid)


def hosts_of(conn: Connection, instance_uuids: Collection[str]) -> dict[str, int]:
    """Where instances hold something: instance uuid -> host id."""
    query = sa.select(allocations.c.instance_uuid, allocations.c.host_id).distinct()
    return {row.instance_uuid: row.host_id for row in conn.execute(query.where(allocations.c.instance_uuid.in_(instance_uuids)))}


def _update(
    conn: Connection,
    statement: sa.Update,
    host_id: int,
    resources: Mapping[str, int],
    *,
    holders: int,
    building: int,
    at_most: Mapping[str, int] = types.MappingProxyType({}),
    more: Mapping[str, object] = types.MappingProxyType({}),
) -> int:
    same = {"b_host_id": host_id, "b_holders": holders, "b_building": building, **more}
    parameters = [same | {"b_resource_class": name, "b_amount": amount} for name, amount in sorted(resources.items())]
    for row in parameters:
        if (limit := at_most.get(str(row["b_resource_class"]))) is not None:
            row["b_at_most"] = limit
    return conn.execute(statement, parameters).rowcount


def _begin_probe(conn: Connection, host_id: int, before: float) -> bool:
    return conn.execute(_take_probe, {"b_host_id": host_id, "b_before": before, "b_now": now()}).rowcount == 1


def _unavailable(
    conn: Connection, host_id: int, resources: Mapping[str, int], otherwise: str, in_service: bool, zone: str | None
) -> ComputeResourcesUnavailable:
    """Say what is missing. Read after the fact: when nothing is (room came back in between), it says `otherwise`."""
    known = sa.select(hosts.c.name, hosts.c.enabled, hosts.c.forced_down, hosts.c.availability_zone).where(hosts.c.id == host_id)
    host = conn.execute(known).first()
    if host is not None and in_service and (host.forced_down or not host.enabled):
        return ComputeResourcesUnavailable(host=host.name, reason="it is down" if host.forced_down else "it is disabled")
    if host is not None and zone is not None and host.availability_zone != zone:
        return ComputeResourcesUnavailable(host=host.name, reason=f"it is not in availability zone {zone} any more")
    query = sa.select(inventories).where(inventories.c.host_id == host_id)
    found = {row.resource_class: row for row in conn.execute(query)}
    lacks = []
    for name, amount in sorted(resources.items()):
        asked = describe_amount(name, amount)
        row = found.get(name)
        if row is None:
            lacks.append(f"{asked} asked, the host has none")
            continue
        usable = row.total - row.reserved
        free = int(usable * row.allocation_ratio) - row.used
        if amount > min(free, usable):
            lacks.append(f"{asked} asked, {max(min(free, usable), 0)} free")
    return ComputeResourcesUnavailable(host="?" if host is None else host.name, reason=", ".join(lacks) or otherwise)
