"""Checks of records against records: resources, ports, volumes, instances, images.

Each check takes a `View` and yields findings; whether somebody is working on an instance is judged by its caller (`checks.run`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from hullwright.conductor.reconcile.findings import Finding
from hullwright.conductor.reconcile.view import View
from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import RequestSpec
from hullwright.objects.states import VmState
from hullwright.persistence.models.hosts import allocations, hosts, inventories
from hullwright.persistence.models.images import images
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.networks import addresses, ports
from hullwright.persistence.models.volumes import attachments, volumes

# An instance that is on no host holds nothing, unless a job is at it.
_no_guest = sa.or_(instances.c.uuid.is_(None), instances.c.deleted_at.is_not(None), instances.c.host.is_(None))
_placed_on = sa.case((instances.c.deleted_at.is_(None), instances.c.host)).label("placed_on")
_told = (instances.c.uuid.label("known"), instances.c.deleted_at, instances.c.vm_state)


def _tell(row: Any) -> str:
    """What is the matter with an instance that has no guest."""
    if row.known is None:
        return "there is no such instance"
    if row.deleted_at is not None:
        return "the instance is deleted"
    return f"the instance is {row.vm_state} and on no host"


# --- Resources -----------------------------------------------------------------------------------------------------------


def allocation_without_instance(view: View) -> Iterator[Finding]:
    """Who is on no host holds nothing."""
    query = (
        sa.select(allocations.c.instance_uuid, hosts.c.name, sa.func.min(allocations.c.created_at).label("since"), *_told)
        .join(hosts, hosts.c.id == allocations.c.host_id)
        .outerjoin(instances, instances.c.uuid == allocations.c.instance_uuid)
        .where(_no_guest, view.about(allocations.c.instance_uuid))
        .group_by(allocations.c.instance_uuid, hosts.c.name, *_told)
    )
    for row in view.conn.execute(query):
        yield Finding(
            "allocation_without_instance",
            row.instance_uuid,
            _tell(row),
            host=row.name,
            instance_uuid=row.instance_uuid,
            since=row.deleted_at or row.since,
        )


def instance_without_allocation(view: View) -> Iterator[Finding]:
    """Who is on a host holds there what its request takes, and nothing else."""
    placed = sa.and_(instances.c.deleted_at.is_(None), instances.c.host.is_not(None))
    here = allocations.join(hosts, hosts.c.id == allocations.c.host_id)
    held = sa.exists().where(allocations.c.instance_uuid == instances.c.uuid).select_from(here)
    nothing_here = ~held.where(hosts.c.name == instances.c.host)
    something_elsewhere = held.where(hosts.c.name != instances.c.host)
    odd = sa.select(instances.c.uuid).where(placed, sa.or_(nothing_here, something_elsewhere), view.about(instances.c.uuid))
    suspects = set(view.conn.execute(odd).scalars()) | _with_odd_claims(view, placed)
    for uuid in sorted(suspects):
        row = view.conn.execute(
            sa.select(instances.c.spec, instances.c.host, hosts.c.id.label("host_id"))
            .join(hosts, hosts.c.name == instances.c.host)
            .where(instances.c.uuid == uuid)
        ).first()
        if row is None:
            continue  # its host is not registered any more
        wanted = RequestSpec.from_dict(row.spec).resources()
        claims = view.conn.execute(sa.select(allocations).where(allocations.c.instance_uuid == uuid)).all()
        if {claim.resource_class: (claim.host_id, claim.amount) for claim in claims} == {n: (row.host_id, a) for n, a in wanted.items()}:
            continue
        elsewhere = any(claim.host_id != row.host_id for claim in claims)
        holds = "resources of another host" if elsewhere else {claim.resource_class: claim.amount for claim in claims} or "nothing"
        data = {"host_id": row.host_id, "resources": wanted}
        yield Finding("instance_without_allocation", uuid, f"it takes {wanted} and holds {holds}", row.host, uuid, data=data)


# A root disk that is a volume takes nothing of the host's disk.
_boots_from_volume = sa.exists().where(attachments.c.instance_uuid == instances.c.uuid, attachments.c.boot_index == 0)


def _wanted(flavor: Any, boots_from_volume: bool) -> dict[str, int]:
    """What an instance of a flavor takes; as `RequestSpec.resources` says it."""
    record = Flavor.from_dict(flavor)
    wanted = record.resources()
    if boots_from_volume and record.root_gb:
        wanted["DISK_GB"] -= record.root_gb
    return {name: amount for name, amount in wanted.items() if amount}


def _with_odd_claims(view: View, placed: sa.ColumnElement[bool]) -> set[str]:
    """Instances whose allocations may differ from their request in number or size. By flavor, of which there are few; the caller looks
    closer.
    """
    from_volume = sa.case((_boots_from_volume, 1), else_=0).label("from_volume")
    columns = (instances.c.uuid, instances.c.flavor, from_volume)
    whose = instances.outerjoin(allocations, allocations.c.instance_uuid == instances.c.uuid)
    held = sa.select(*columns, allocations.c.resource_class, allocations.c.amount).select_from(whose)
    amounts = held.where(placed, view.about(instances.c.uuid)).subquery()
    number = sa.func.count(amounts.c.resource_class).label("number")
    numbers = sa.select(amounts.c.uuid, amounts.c.flavor, amounts.c.from_volume, number)
    counts = numbers.group_by(amounts.c.uuid, amounts.c.flavor, amounts.c.from_volume).subquery()
    suspects: set[str] = set()
    for table, names in ((amounts, ("resource_class", "amount")), (counts, ("number",))):
        keys = [table.c[name] for name in ("flavor", "from_volume", *names)]
        for flavor, is_from_volume, *told in view.conn.execute(sa.select(*keys).distinct()):
            wanted = _wanted(flavor, bool(is_from_volume))
            if told == [len(wanted)] or (len(told) == 2 and told[0] is not None and wanted.get(told[0]) == told[1]):
                continue
            of_flavor = table.c.flavor == sa.bindparam("flavor", flavor, type_=instances.c.flavor.type)
            these = [table.c[name] == value for name, value in zip(names, told, strict=True)]
            suspects |= set(view.conn.execute(sa.select(table.c.uuid).where(of_flavor, keys[1] == is_from_volume, *these)).scalars())
    return suspects


def usage_miscounted(view: View) -> Iterator[Finding]:
    """What is used of a host is the sum of its allocations, and so many instances hold it and are being built as these are."""
    total = sa.func.coalesce(sa.func.sum(allocations.c.amount), 0)
    holders, building = sa.func.count(allocations.c.instance_uuid), sa.func.count(allocations.c.job_uuid)
    counted = (inventories.c.used, inventories.c.holders, inventories.c.building)
    key = (inventories.c.host_id, inventories.c.resource_class, hosts.c.name, *counted)
    query = (
        sa.select(*key, total.label("total"), holders.label("its_holders"), building.label("its_builds"))
        .join(hosts, hosts.c.id == inventories.c.host_id)
        .outerjoin(
            allocations,
            sa.and_(allocations.c.host_id == inventories.c.host_id, allocations.c.resource_class == inventories.c.resource_class),
        )
        .where(view.about(hosts.c.name + " " + inventories.c.resource_class))
        .group_by(*key)
        .having(sa.or_(inventories.c.used != total, inventories.c.holders != holders, inventories.c.building != building))
    )
    for row in view.conn.execute(query):
        evidence = f"{row.used} are counted as used, allocations sum up to {int(row.total)}"
        if row.used == int(row.total):
            evidence = f"{row.holders} instances and {row.building} builds are counted, there are {row.its_holders} and {row.its_builds}"
        data = {"host_id": row.host_id, "resource_class": row.resource_class}
        # The same while others claim and release.
        mark = f"{row.used - int(row.total)} {row.holders - row.its_holders} {row.building - row.its_builds}"
        yield Finding("usage_miscounted", f"{row.name} {row.resource_class}", evidence, row.name, mark=mark, data=data)


# --- Ports and addresses -------------------------------------------------------------------------------------------------


def port_without_instance(view: View) -> Iterator[Finding]:
    """A port's owner is on a host, and a port that a build made has an owner."""
    is_owned = sa.and_(ports.c.device_id.is_not(None), ports.c.device_id != "")
    query = (
        sa.select(ports.c.id, ports.c.device_id, ports.c.host, ports.c.created_at, *_told)
        .outerjoin(instances, instances.c.uuid == ports.c.device_id)
        .where(sa.or_(is_owned, ports.c.created_by_build.is_(True)), _no_guest, view.about(ports.c.id, ports.c.device_id))
    )
    for row in view.conn.execute(query):
        since = row.deleted_at or row.created_at
        evidence = f"of {row.device_id}: {_tell(row)}" if row.device_id else "a build made it, and it belongs to nobody"
        yield Finding("port_without_instance", row.id, evidence, row.host, row.device_id or None, since)


def address_without_port(view: View) -> Iterator[Finding]:
    """An address is a port's."""
    query = (
        sa.select(addresses.c.subnet_id, addresses.c.address, addresses.c.port_id)
        .outerjoin(ports, ports.c.id == addresses.c.port_id)
        .where(ports.c.id.is_(None), view.about(addresses.c.subnet_id + " " + addresses.c.address))
    )
    for row in view.conn.execute(query):
        data = {"subnet_id": row.subnet_id, "address": row.address}
        yield Finding("address_without_port", f"{row.subnet_id} {row.address}", f"its port {row.port_id} is gone", data=data)


# --- Volumes -------------------------------------------------------------------------------------------------------------


def attachment_without_instance(view: View) -> Iterator[Finding]:
    """Whoever has a volume attached is on a host."""
    query = (
        sa.select(
            attachments.c.id, attachments.c.volume_id, attachments.c.instance_uuid, attachments.c.host, attachments.c.created_at, *_told
        )
        .outerjoin(instances, instances.c.uuid == attachments.c.instance_uuid)
        .where(attachments.c.state != "deleting", _no_guest, view.about(attachments.c.id, attachments.c.instance_uuid))
    )
    for row in view.conn.execute(query):
        evidence = f"volume {row.volume_id} is attached to {row.instance_uuid}: {_tell(row)}"
        data = {"is_undo": row.deleted_at is None}
        since = row.deleted_at or row.created_at
        yield Finding("attachment_without_instance", row.id, evidence, row.host, row.instance_uuid, since, data=data)


def volume_stuck(view: View) -> Iterator[Finding]:
    """A volume's status is that of its attachment, or one that a job brings it out of."""
    status, state = volumes.c.status, attachments.c.state
    odd = sa.or_(
        status.not_in(("available", "reserved", "in-use", "error")),
        sa.and_(status.in_(("reserved", "in-use")), attachments.c.id.is_(None)),
        sa.and_(status == "available", state.is_not(None)),
        sa.and_(status == "reserved", state == "attached"),
        sa.and_(status == "in-use", state == "reserved"),
    )
    query = (
        sa.select(
            volumes.c.id,
            status,
            volumes.c.host,
            volumes.c.created_at,
            attachments.c.instance_uuid,
            state.label("state"),
            *_told,
            _placed_on,
        )
        .outerjoin(attachments, attachments.c.volume_id == volumes.c.id)
        .outerjoin(instances, instances.c.uuid == attachments.c.instance_uuid)
        .where(odd, view.about(volumes.c.id))
    )
    for row in view.conn.execute(query):
        if row.id in view.busy_volumes:
            continue
        is_doomed = "deleting" in (row.status, row.state)
        if row.instance_uuid and not is_doomed and row.placed_on is None:
            continue  # the attachment is wrong, and another check's
        held = f"attached to {row.instance_uuid} ({row.state})" if row.instance_uuid else "attached to nobody"
        to = "deleting" if is_doomed else {"attached": "in-use", "reserved": "reserved"}.get(row.state or "", "")
        to = to or ("error" if row.status == "creating" else "available")
        if to == row.status and not is_doomed:
            continue
        yield Finding(
            "volume_stuck",
            row.id,
            f"it is {row.status}, {held}, and no job is at it",
            row.host,
            row.instance_uuid,
            mark=row.status,
            data={"from": row.status, "to": to},
        )


# --- Instances and images ------------------------------------------------------------------------------------------------


def instance_stranded(view: View) -> Iterator[Finding]:
    """Whoever waits for work has a job."""
    waits = sa.or_(instances.c.task_state.is_not(None), instances.c.vm_state == VmState.BUILDING)
    columns = (instances.c.uuid, instances.c.vm_state, instances.c.task_state, instances.c.host, instances.c.updated_at)
    query = sa.select(*columns).where(instances.c.deleted_at.is_(None), waits, view.about(instances.c.uuid))
    for row in view.conn.execute(query):
        evidence = f"it is {row.vm_state}/{row.task_state} and no job is open for it"
        mark = f"{row.vm_state} {row.task_state}"
        yield Finding("instance_stranded", row.uuid, evidence, row.host, row.uuid, row.updated_at, mark)


def image_abandoned(view: View) -> Iterator[Finding]:
    """Whatever is saving has somebody who sends."""
    query = sa.select(images.c.id, images.c.updated_at).where(images.c.status == "saving", view.about(images.c.id))
    for row in view.conn.execute(query):
        if not view.uploading(row.id):
            data = {"began_at": row.updated_at}
            yield Finding(
                "image_abandoned", row.id, "it is saving, and nobody writes it", since=row.updated_at, mark=str(row.updated_at), data=data
            )
