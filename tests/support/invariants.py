"""What must be true of a house at rest, whatever was killed on the way there."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from hullwright.objects.hosts import HostRef
from hullwright.objects.states import OPEN_JOB_STATES, VmState
from hullwright.persistence.models.hosts import allocations, hosts, inventories
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import attempts, jobs, step_events
from hullwright.persistence.models.networks import addresses, ports
from hullwright.persistence.models.volumes import attachments
from support.house import House

_RESTING = {VmState.ACTIVE, VmState.ERROR, VmState.DELETED, VmState.STOPPED}


def check(house: House) -> None:
    """Assert all of it; each message names what is wrong."""
    with house.db.read() as connection:
        living = {row.uuid: row for row in connection.execute(sa.select(instances)) if row.deleted_at is None}
        every = list(connection.execute(sa.select(instances.c.uuid, instances.c.vm_state, instances.c.task_state)))
        claims = list(connection.execute(sa.select(allocations)))
        rooms = list(connection.execute(sa.select(inventories)))
        known = {row.id: row for row in connection.execute(sa.select(hosts))}
        open_jobs = list(connection.execute(sa.select(jobs.c.uuid, jobs.c.kind).where(jobs.c.state.in_(OPEN_JOB_STATES))))
        owned = {
            "port": list(connection.execute(sa.select(ports.c.device_id).where(ports.c.device_id.is_not(None))).scalars()),
            "attachment": list(connection.execute(sa.select(attachments.c.instance_uuid)).scalars()),
        }
        orphan_addresses = connection.execute(
            sa.select(sa.func.count()).where(addresses.c.port_id.not_in(sa.select(ports.c.id)))
        ).scalar_one()
        told = list(connection.execute(sa.select(step_events).order_by(step_events.c.job_uuid, step_events.c.seq)))
        made = list(connection.execute(sa.select(attempts)))

    assert open_jobs == [], "work is left"
    for uuid, vm_state, task_state in every:
        assert (vm_state in _RESTING, task_state) == (True, None), f"{uuid} rests in {vm_state}/{task_state}"

    placed = {uuid: row for uuid, row in living.items() if row.host is not None}
    assert {uuid for uuid, row in living.items() if row.vm_state == VmState.ACTIVE} == set(placed), "active and placed are the same"
    assert {claim.instance_uuid for claim in claims} == set(placed), "claims are those of placed instances"
    for claim in claims:
        assert known[claim.host_id].name == placed[claim.instance_uuid].host
    sums = Counter[tuple[int, str]]()
    for claim in claims:
        sums[claim.host_id, claim.resource_class] += claim.amount
    for room in rooms:
        assert room.used == sums[room.host_id, room.resource_class], f"{known[room.host_id].name} {room.resource_class} counts wrong"

    for kind, owners in owned.items():
        assert set(owners) <= set(placed), f"a {kind} belongs to nobody who lives"
    assert orphan_addresses == 0

    drivers = house.drivers()
    for host in known.values():
        virt = drivers.virt(HostRef(host.name, host.uri, host.driver))
        here = sorted(uuid for uuid, row in placed.items() if row.host == host.name)
        assert sorted(guest.uuid for guest in virt.guests()) == here, f"guests on {host.name}"
        assert set(virt.leftovers()) <= set(here), f"files on {host.name}"
    drivers.close()

    seen: dict[str, int] = {}
    running: set[tuple[str, str]] = set()
    for event in told:
        assert event.seq == seen.get(event.job_uuid, 0) + 1, f"a gap in the history of {event.job_uuid}"
        seen[event.job_uuid] = event.seq
        if event.to_state == "RUNNING":
            running.add((event.job_uuid, event.step))
        if event.to_state == "SUCCESS":
            assert (event.job_uuid, event.step) in running, f"{event.step} succeeded and never ran"
    assert [a for a in made if a.state == "running"] == [], "an attempt was never closed"
