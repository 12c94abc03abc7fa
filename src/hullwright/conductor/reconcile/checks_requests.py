"""Checks of what instances have against what they asked for, and of where it is: ports, volumes, states.

Instances that are on a host are at rest when nobody works on them: then each port and volume of their request is theirs, where they
are, and no other is. A round looks at those that changed lately, a look by hand at all (`View.placed`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from hullwright.conductor.reconcile.findings import Finding
from hullwright.conductor.reconcile.view import View, in_batches
from hullwright.objects.states import VmState
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.networks import addresses, ports, subnets
from hullwright.persistence.models.volumes import attachments, volumes

_HAVE_HOSTS = (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED)


def instance_inconsistent(view: View) -> Iterator[Finding]:
    """Who has a guest has a host; who never had one has none; who is deleted is nowhere and nothing else."""
    living, at_rest = instances.c.deleted_at.is_(None), instances.c.task_state.is_(None)
    # A build that fails is taken off its host. A host that lost the guest of an instance keeps the instance, in ERROR.
    never_ran = sa.and_(instances.c.vm_state == VmState.ERROR, instances.c.launched_at.is_(None), instances.c.host.is_not(None))
    nowhere = sa.and_(instances.c.vm_state.in_(_HAVE_HOSTS), instances.c.host.is_(None))
    half_gone = instances.c.vm_state == VmState.DELETED
    half_here = sa.or_(instances.c.vm_state != VmState.DELETED, instances.c.host.is_not(None), instances.c.task_state.is_not(None))
    deleted = instances.c.deleted_at.is_not(None) if view.since is None else instances.c.deleted_at >= view.since
    columns = (instances.c.uuid, instances.c.vm_state, instances.c.task_state, instances.c.host, instances.c.deleted_at)
    for where in (sa.and_(living, at_rest, sa.or_(never_ran, nowhere, half_gone)), sa.and_(deleted, half_here)):
        query = sa.select(*columns, instances.c.updated_at).where(where, view.about(instances.c.uuid))
        for row in view.conn.execute(query):
            told = f"{row.vm_state}/{row.task_state} on {row.host or 'no host'}"
            evidence = f"it is {told}, and {'not deleted' if row.deleted_at is None else 'deleted'}"
            yield Finding("instance_inconsistent", row.uuid, evidence, row.host, row.uuid, row.updated_at, told)


# --- Ports ---------------------------------------------------------------------------------------------------------------


def port_misbound(view: View) -> Iterator[Finding]:
    """A port is bound where its instance is, and to no host while it has none."""
    placed = sa.and_(instances.c.deleted_at.is_(None), instances.c.host.is_not(None))
    unowned = sa.or_(ports.c.device_id.is_(None), ports.c.device_id == "")
    elsewhere = sa.and_(placed, sa.or_(ports.c.host.is_(None), ports.c.host != instances.c.host))
    query = (
        sa.select(ports.c.id, ports.c.host, ports.c.created_at, instances.c.uuid, instances.c.host.label("wanted"))
        .outerjoin(instances, instances.c.uuid == ports.c.device_id)
        .where(sa.or_(elsewhere, sa.and_(unowned, ports.c.host.is_not(None))), view.about(ports.c.id))
    )
    for row in view.conn.execute(query):
        owner = f"its instance is on {row.wanted}" if row.uuid else "it belongs to nobody"
        evidence = f"it is bound to {row.host or 'no host'}, and {owner}"
        mark = f"{row.host} {row.wanted}"
        yield Finding("port_misbound", row.id, evidence, row.host, row.uuid, row.created_at, mark, {"host": row.wanted})


def ports_differ(view: View) -> Iterator[Finding]:
    """An instance has the ports that it asked for, each with an address where there was one to be had, and no others."""
    columns = (ports.c.id, ports.c.device_id, ports.c.network_id, ports.c.created_by_build, ports.c.created_at)
    for batch in in_batches(view.placed):
        wanted = {row.uuid: {asked["port_id"] for asked in row.spec.get("networks", ())} for row in batch}
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        for port in view.conn.execute(sa.select(*columns).where(ports.c.device_id.in_(wanted))):
            found[port.device_id][port.id] = port
        bare = _without_address(view, [port for theirs in found.values() for port in theirs.values()])
        for row in batch:
            have = set(found[row.uuid])
            wrong = [f"port {id} is missing" for id in sorted(wanted[row.uuid] - have)]
            wrong += [f"port {id} was never asked for" for id in sorted(have - wanted[row.uuid])]
            wrong += [f"port {id} has no address" for id in sorted(have & bare)]
            if wrong:
                yield Finding("ports_differ", row.uuid, "; ".join(wrong), row.host, row.uuid, row.updated_at, f"{len(wrong)} wrong")


def _without_address(view: View, theirs: list[Any]) -> set[str]:
    """Those that a build made on a network with subnets, and that have no address. What users make without one is their will."""
    made = [port for port in theirs if port.created_by_build]
    addressed: set[str] = set()
    for batch in in_batches(made):
        query = sa.select(addresses.c.port_id).where(addresses.c.port_id.in_([port.id for port in batch]))
        addressed |= set(view.conn.execute(query).scalars())
    bare = [port for port in made if port.id not in addressed]
    since: dict[str, float] = {}  # the oldest subnet of a network: a port that is older had none to take an address from
    for batch in in_batches(sorted({port.network_id for port in bare})):
        oldest = sa.select(subnets.c.network_id, sa.func.min(subnets.c.created_at)).where(subnets.c.network_id.in_(batch))
        since |= dict(view.conn.execute(oldest.group_by(subnets.c.network_id)).tuples().all())
    return {port.id for port in bare if since.get(port.network_id, port.created_at) < port.created_at}


# --- Volumes -------------------------------------------------------------------------------------------------------------


def attachment_misplaced(view: View) -> Iterator[Finding]:
    """A volume of an instance that is on a host is attached there."""
    placed = sa.and_(instances.c.deleted_at.is_(None), instances.c.host.is_not(None))
    elsewhere = sa.or_(attachments.c.state != "attached", attachments.c.host.is_(None), attachments.c.host != instances.c.host)
    is_broken = volumes.c.status == "error"
    columns = (attachments.c.id, attachments.c.volume_id, attachments.c.state, attachments.c.host, attachments.c.created_at)
    query = (
        sa.select(*columns, volumes.c.status, instances.c.uuid, instances.c.host.label("wanted"))
        .join(instances, instances.c.uuid == attachments.c.instance_uuid)
        .join(volumes, volumes.c.id == attachments.c.volume_id)
        .where(placed, attachments.c.state != "deleting", sa.or_(elsewhere, is_broken), view.about(attachments.c.id))
    )
    for row in view.conn.execute(query):
        where = f"{row.state} on {row.host or 'no host'}"
        evidence = f"volume {row.volume_id} is {row.status} and {where}, its instance is on {row.wanted}"
        yield Finding("attachment_misplaced", row.id, evidence, row.wanted, row.uuid, row.created_at, f"{row.state} {row.host}")


def attachments_differ(view: View) -> Iterator[Finding]:
    """An instance has the volumes that it asked for, and no others."""
    columns = (attachments.c.id, attachments.c.instance_uuid)
    for batch in in_batches(view.placed):
        wanted = {row.uuid: {device["attachment_id"] for device in row.spec.get("block_devices", ())} for row in batch}
        found: dict[str, set[str]] = defaultdict(set)
        query = sa.select(*columns).where(attachments.c.instance_uuid.in_(wanted), attachments.c.state != "deleting")
        for id, instance_uuid in view.conn.execute(query):
            found[instance_uuid].add(id)
        for row in batch:
            missing, surplus = sorted(wanted[row.uuid] - found[row.uuid]), sorted(found[row.uuid] - wanted[row.uuid])
            wrong = [f"attachment {id} is missing" for id in missing] + [f"attachment {id} was never asked for" for id in surplus]
            if wrong:
                told = "; ".join(wrong)
                yield Finding("attachments_differ", row.uuid, told, row.host, row.uuid, row.updated_at, f"{len(wrong)} wrong")
