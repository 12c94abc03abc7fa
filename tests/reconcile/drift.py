"""Drift of every kind, made on purpose: by SQL behind everybody's back, and on fake hosts. Each maker answers the subject of its finding.

Over 400 lines of short functions: the list of all that can go wrong is read as one, and each kind has at least one maker in it.
Not for: finding or mending it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from hullwright.conf import image as image_options
from hullwright.drivers.fake_host import FakeHost
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.networks import Network, Port, Subnet
from hullwright.objects.states import AttemptState, JobState, PowerState, TaskState, VmState
from hullwright.objects.volumes import Volume
from hullwright.persistence import allocations as allocations_rows
from hullwright.persistence import conductors, images, instances, jobs, networks, ports, volumes
from hullwright.persistence.database import now
from hullwright.persistence.models import metadata
from hullwright.persistence.models.hosts import allocations, hosts, inventories
from hullwright.persistence.models.instances import instance_actions
from hullwright.persistence.models.instances import instances as instances_table
from hullwright.persistence.models.jobs import atoms, attempts, flows, step_events
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.persistence.models.networks import addresses
from hullwright.persistence.models.networks import ports as ports_table
from hullwright.persistence.models.volumes import attachments
from hullwright.persistence.models.volumes import volumes as volumes_table
from support.house import House

LONG_AGO = 1000.0  # seconds


def fake(house: House, name: str = "h1") -> FakeHost:
    """A fake host's things."""
    return FakeHost(HostRef(name, f"fake://{name}", "fake"), house.directory)


def put_guest(house: House, instance_uuid: str, host: str = "h1", *, ours: bool = True, power: PowerState = PowerState.RUNNING) -> None:
    """A guest that nobody asked for."""
    thing = {
        "uuid": instance_uuid,
        "name": f"instance-{instance_uuid[:8]}",
        "hostname": "x",
        "ours": ours,
        "power_state": int(power),
        "starts": 1,
    }
    fake(house, host).things.put("guests", instance_uuid, thing, "define")


def set_power(house: House, instance_uuid: str, power: PowerState, host: str = "h1") -> None:
    """Behind our back."""
    fake(house, host).things.change("guests", instance_uuid, {"power_state": int(power)}, None)


def build(house: House, **fields: Any) -> str:
    """An ACTIVE instance."""
    (instance_uuid,) = house.create(**fields)
    with house.conductor():
        house.rest()
    assert house.get(instance_uuid).vm_state == VmState.ACTIVE
    return instance_uuid


def delete(house: House, instance_uuid: str) -> None:
    """Delete it properly."""
    house.delete(instance_uuid)
    with house.conductor():
        house.rest()


def change(house: House, instance_uuid: str, **columns: Any) -> None:
    """Behind our back, long ago."""
    with house.db.write() as conn:
        conn.execute(
            sa.update(instances_table).where(instances_table.c.uuid == instance_uuid).values(**columns, updated_at=now() - LONG_AGO)
        )


def insert_instance(house: House, **fields: Any) -> str:
    """The row of an instance that nobody works on."""
    instance = house.new_instance(**({"task_state": None, "vm_state": VmState.ERROR} | fields))
    with house.db.write() as conn:
        instances.create(conn, instance)
    change(house, instance.uuid)
    return instance.uuid


def new_network(house: House) -> str:
    """A network with a subnet."""
    network_id = str(uuid.uuid4())
    with house.db.write() as conn:
        networks.create(conn, Network(network_id, "net", created_at=now()))
        subnet = Subnet(
            str(uuid.uuid4()), network_id, "sub", "10.9.0.0/24", allocation_pools=(("10.9.0.10", "10.9.0.250"),), created_at=now()
        )
        networks.create_subnet(conn, subnet)
    return network_id


def new_port(house: House, device_id: str | None, *, by_build: bool) -> str:
    """A port with an address."""
    network_id, port_id = new_network(house), str(uuid.uuid4())
    with house.db.write() as conn:
        pools = ports.lock_networks(conn, [network_id])[network_id]
        port = Port(port_id, network_id, "", device_id=device_id, created_by_build=by_build, created_at=now() - LONG_AGO)
        ports.create(conn, port, pools)
    return port_id


def new_volume(house: House, status: str, **fields: Any) -> str:
    """A volume's row."""
    volume = Volume(str(uuid.uuid4()), "v", 1, status=status, created_at=now() - LONG_AGO, **fields)
    with house.db.write() as conn:
        volumes.create(conn, volume)
    return volume.id


def attach(house: House, volume_id: str, instance_uuid: str, **fields: Any) -> str:
    """An attachment's row."""
    row = {
        "id": str(uuid.uuid4()),
        "volume_id": volume_id,
        "instance_uuid": instance_uuid,
        "position": 0,
        "state": "attached",
        "host": "h1",
    }
    row |= {"delete_on_termination": False, "created_by_build": False, "created_at": now() - LONG_AGO} | fields
    with house.db.write() as conn:
        conn.execute(sa.insert(attachments), [row])
    return str(row["id"])


def post_job(house: House, kind: str, *, state: str = JobState.QUEUED, owner: str | None = None, **fields: Any) -> str:
    """A job's row; its instance may be given as `instance_uuid`."""
    instance_uuid = fields.pop("instance_uuid", None)
    inputs = fields.pop("inputs", {"instance_uuid": instance_uuid} if instance_uuid else {})
    row = jobs.new_row(kind=kind, instance_uuid=instance_uuid, inputs=inputs, not_before=now() + LONG_AGO)
    with house.db.write() as conn:
        conn.execute(sa.insert(jobs_table), [row | {"state": state, "owner": owner} | fields])
    return str(row["uuid"])


def execute(house: House, statement: sa.Update | sa.Delete) -> None:
    """Behind everybody's back; something must have changed."""
    with house.db.write() as conn:
        assert conn.execute(statement).rowcount > 0


# --- One maker per kind --------------------------------------------------------------------------------------------------


def allocation_without_instance(house: House) -> str:
    """Resources held by nobody, counted as used."""
    instance_uuid = str(uuid.uuid4())
    with house.db.write() as conn:
        host_id = conn.execute(sa.select(hosts.c.id).where(hosts.c.name == "h1")).scalar_one()
        row = {"instance_uuid": instance_uuid, "host_id": host_id, "resource_class": "VCPU", "amount": 3, "created_at": now()}
        conn.execute(sa.insert(allocations), [row])
        here = sa.and_(inventories.c.host_id == host_id, inventories.c.resource_class == "VCPU")
        conn.execute(sa.update(inventories).where(here).values(used=inventories.c.used + 3, holders=inventories.c.holders + 1))
    return instance_uuid


def instance_without_allocation(house: House) -> str:
    """An instance whose claim is lost, in the count too."""
    instance_uuid = build(house)
    with house.db.write() as conn:
        host_id = conn.execute(sa.select(hosts.c.id).where(hosts.c.name == "h1")).scalar_one()
        conn.execute(sa.delete(allocations).where(allocations.c.instance_uuid == instance_uuid))
        conn.execute(sa.update(inventories).where(inventories.c.host_id == host_id).values(used=0, holders=0))
    return instance_uuid


def instance_with_half_a_claim(house: House) -> str:
    """An instance one of whose resources is not claimed."""
    instance_uuid = build(house)
    execute(house, sa.delete(allocations).where(allocations.c.instance_uuid == instance_uuid, allocations.c.resource_class == "DISK_GB"))
    recount(house)
    return instance_uuid


def instance_with_a_claim_elsewhere(house: House) -> str:
    """An instance one of whose resources is claimed on another host."""
    instance_uuid = build(house)
    house.add_host("h2")
    with house.db.read() as conn:
        host_id = conn.execute(sa.select(hosts.c.id).where(hosts.c.name == "h2")).scalar_one()
    here = sa.and_(allocations.c.instance_uuid == instance_uuid, allocations.c.resource_class == "VCPU")
    execute(house, sa.update(allocations).where(here).values(host_id=host_id))
    recount(house)
    return instance_uuid


def recount(house: House) -> None:
    """Have all that is used be the sum of claims."""
    with house.db.write() as conn:
        for row in conn.execute(sa.select(inventories.c.host_id, inventories.c.resource_class)).all():
            allocations_rows.recount(conn, row.host_id, row.resource_class)


def instance_with_another_claim(house: House) -> str:
    """An instance that holds more than its flavor takes."""
    instance_uuid = build(house)
    with house.db.write() as conn:
        here = sa.and_(allocations.c.instance_uuid == instance_uuid, allocations.c.resource_class == "VCPU")
        conn.execute(sa.update(allocations).where(here).values(amount=7))
        conn.execute(sa.update(inventories).where(inventories.c.resource_class == "VCPU").values(used=7))
    return instance_uuid


def usage_miscounted(house: House) -> str:
    """A count that is off."""
    build(house)
    with house.db.write() as conn:
        conn.execute(sa.update(inventories).where(inventories.c.resource_class == "MEMORY_MB").values(used=12345))
    return "h1 MEMORY_MB"


def builds_miscounted(house: House) -> str:
    """A count of builds under way that is off."""
    build(house)
    with house.db.write() as conn:
        conn.execute(sa.update(inventories).where(inventories.c.resource_class == "VCPU").values(building=3))
    return "h1 VCPU"


def port_of_a_build(house: House) -> str:
    """A port that a build made for an instance that is gone."""
    return new_port(house, insert_instance(house), by_build=True)


def port_of_a_user(house: House) -> str:
    """A user's port that still names an instance that is gone."""
    return new_port(house, str(uuid.uuid4()), by_build=False)


def address_without_port(house: House) -> str:
    """An address whose port went without it; only a database without foreign keys can hold it."""
    port_id = new_port(house, None, by_build=False)
    with house.db.engine.connect() as conn:
        row = conn.execute(sa.select(addresses).where(addresses.c.port_id == port_id)).one()
        conn.exec_driver_sql("PRAGMA foreign_keys=OFF")
        conn.exec_driver_sql("DELETE FROM ports WHERE id = ?", (port_id,))
        conn.exec_driver_sql("PRAGMA foreign_keys=ON")
    return f"{row.subnet_id} {row.address}"


def port_of_nobody(house: House) -> str:
    """A port that a build made, and that lost its owner."""
    return new_port(house, None, by_build=True)


def with_a_port(house: House) -> tuple[str, str]:
    """An ACTIVE instance and its port."""
    request = house.request_port(new_network(house))
    return build(house, networks=(request,)), request.port_id


def port_bound_elsewhere(house: House) -> str:
    """A port that is bound to another host than its instance's."""
    _, port_id = with_a_port(house)
    execute(house, sa.update(ports_table).where(ports_table.c.id == port_id).values(host="h2"))
    return port_id


def port_bound_nowhere(house: House) -> str:
    """A port of an instance on a host, bound to none."""
    _, port_id = with_a_port(house)
    execute(house, sa.update(ports_table).where(ports_table.c.id == port_id).values(host=None))
    return port_id


def port_free_and_bound(house: House) -> str:
    """A user's free port that is still bound."""
    port_id = new_port(house, None, by_build=False)
    execute(house, sa.update(ports_table).where(ports_table.c.id == port_id).values(host="h1"))
    return port_id


def port_lost(house: House) -> str:
    """An instance whose port is gone."""
    instance_uuid, port_id = with_a_port(house)
    execute(house, sa.delete(ports_table).where(ports_table.c.id == port_id))
    return instance_uuid


def port_of_another(house: House) -> str:
    """An instance that has a port too many."""
    instance_uuid = build(house)
    port_id = new_port(house, instance_uuid, by_build=True)
    execute(house, sa.update(ports_table).where(ports_table.c.id == port_id).values(host="h1"))
    return instance_uuid


def port_without_address(house: House) -> str:
    """An instance whose port lost its address."""
    instance_uuid, port_id = with_a_port(house)
    execute(house, sa.delete(addresses).where(addresses.c.port_id == port_id))
    return instance_uuid


def with_a_volume(house: House) -> tuple[str, str, str]:
    """An ACTIVE instance, its volume, and the attachment."""
    request = house.request_volume(volume_id=new_volume(house, "available"))
    return build(house, block_devices=(request,)), str(request.volume_id), request.attachment_id


def attached_elsewhere(house: House) -> str:
    """A volume attached on another host than its instance's."""
    _, _, attachment_id = with_a_volume(house)
    execute(house, sa.update(attachments).where(attachments.c.id == attachment_id).values(host="h2"))
    return attachment_id


def reserved_and_placed(house: House) -> str:
    """A volume that its running instance never got."""
    _, volume_id, attachment_id = with_a_volume(house)
    execute(house, sa.update(attachments).where(attachments.c.id == attachment_id).values(state="reserved", host=None))
    execute(house, sa.update(volumes_table).where(volumes_table.c.id == volume_id).values(status="reserved"))
    return attachment_id


def attached_and_in_error(house: House) -> str:
    """A volume in error that a running instance has."""
    _, volume_id, attachment_id = with_a_volume(house)
    execute(house, sa.update(volumes_table).where(volumes_table.c.id == volume_id).values(status="error"))
    return attachment_id


def attachment_lost(house: House) -> str:
    """An instance whose volume counts as free."""
    instance_uuid, volume_id, attachment_id = with_a_volume(house)
    execute(house, sa.delete(attachments).where(attachments.c.id == attachment_id))
    execute(house, sa.update(volumes_table).where(volumes_table.c.id == volume_id).values(status="available"))
    return instance_uuid


def attachment_of_another(house: House) -> str:
    """An instance that has a volume too many."""
    instance_uuid = build(house)
    attach(house, new_volume(house, "in-use"), instance_uuid)
    return instance_uuid


def attachment_of_a_user(house: House) -> str:
    """A user's volume, attached to an instance that is gone."""
    return attach(house, new_volume(house, "in-use"), str(uuid.uuid4()))


def attachment_of_a_build(house: House) -> str:
    """A volume that a build made and left."""
    return attach(house, new_volume(house, "creating"), insert_instance(house), created_by_build=True, state="reserved", host=None)


def volume_reserved(house: House) -> str:
    """A volume reserved for nobody."""
    return new_volume(house, "reserved")


def volume_attaching(house: House) -> str:
    """A volume attaching to nobody."""
    return new_volume(house, "attaching")


def volume_creating(house: House) -> str:
    """A volume that nobody makes."""
    return new_volume(house, "creating")


def volume_deleting(house: House) -> str:
    """A volume that nobody deletes."""
    return new_volume(house, "deleting")


def volume_available_and_attached(house: House) -> str:
    """A volume that its instance has, and that counts as free."""
    volume_id = new_volume(house, "available")
    instance_uuid = build(house, block_devices=(house.request_volume(volume_id=volume_id),))
    with house.db.write() as conn:
        conn.execute(sa.update(volumes_table).where(volumes_table.c.id == volume_id).values(status="available"))
    change(house, instance_uuid)
    return volume_id


def instance_stranded_in_a_build(house: House) -> str:
    """An instance in BUILD whose job is lost, with claim, guest and port."""
    port = house.request_port(new_network(house))
    instance_uuid = build(house, networks=(port,))
    with house.db.write() as conn:
        conn.execute(sa.delete(jobs_table).where(jobs_table.c.instance_uuid == instance_uuid))
    change(house, instance_uuid, vm_state=VmState.BUILDING, task_state=TaskState.SPAWNING)
    return instance_uuid


def instance_stranded_in_a_delete(house: House) -> str:
    """An instance that nobody deletes."""
    instance_uuid = build(house)
    change(house, instance_uuid, task_state=TaskState.DELETING)
    return instance_uuid


def instance_stranded_at_the_power_button(house: House) -> str:
    """An instance that nobody stops."""
    instance_uuid = build(house)
    change(house, instance_uuid, task_state=TaskState.POWERING_OFF)
    return instance_uuid


def active_nowhere(house: House) -> str:
    """An ACTIVE instance without a host."""
    return insert_instance(house, vm_state=VmState.ACTIVE)


def failed_somewhere(house: House) -> str:
    """An instance in ERROR that never ran, and holds a host."""
    instance_uuid = build(house)
    change(house, instance_uuid, vm_state=VmState.ERROR, launched_at=None)
    return instance_uuid


def deleted_and_here(house: House) -> str:
    """An instance in state DELETED that is not deleted."""
    return insert_instance(house, vm_state=VmState.DELETED)


def deleted_and_in_error(house: House) -> str:
    """A deleted instance in another state."""
    return insert_instance(house, deleted_at=now() - LONG_AGO)


def image_abandoned(house: House) -> str:
    """An image whose upload was killed."""
    image = Image(str(uuid.uuid4()), "i", status="saving", created_at=now(), updated_at=now() - LONG_AGO)
    with house.db.write() as conn:
        images.create(conn, image)
    directory = image_options.directory(house.conf)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{image.id}.part").write_bytes(b"some")
    return image.id


def job_stuck_build(house: House) -> str:
    """A build whose undo failed, for a reason that no host has."""
    house.faults("h1", {"operation": "spawn", "error": "HypervisorError"}, {"operation": "destroy", "error": "KeyError"})
    (instance_uuid,) = house.create()
    with house.conductor():
        house.rest()
    house.faults("h1")
    with house.db.read() as conn:
        job = jobs.latest(conn, instance_uuid)
    assert job is not None
    assert job.state == JobState.STUCK
    return job.uuid


def job_stuck_delete(house: House) -> str:
    """A delete that was parked because it crashed its conductors."""
    instance_uuid = build(house)
    house.delete(instance_uuid)
    with house.db.write() as conn:
        here = sa.and_(jobs_table.c.instance_uuid == instance_uuid, jobs_table.c.kind == "delete_instance")
        job_uuid = conn.execute(sa.select(jobs_table.c.uuid).where(here)).scalar_one()
        conn.execute(sa.update(jobs_table).where(here).values(state=JobState.STUCK, leases=9, error="crashed"))
    return str(job_uuid)


def job_stuck_volume(house: House) -> str:
    """A new volume that got stuck."""
    volume_id = new_volume(house, "creating")
    return post_job(house, "create_volume", state=JobState.STUCK, inputs={"volume_id": volume_id}, error="crashed")


def job_without_instance(house: House) -> str:
    """A build of nobody."""
    return post_job(house, "build_instance", instance_uuid=str(uuid.uuid4()))


def job_orphaned(house: House) -> str:
    """A job that a conductor took along."""
    instance_uuid = insert_instance(house, vm_state=VmState.BUILDING, task_state=TaskState.SCHEDULING)
    return post_job(house, "build_instance", state=JobState.RUNNING, owner="dead", instance_uuid=instance_uuid)


def flow_unknown(house: House) -> str:
    """A build that a later version began."""
    instance_uuid = insert_instance(house, vm_state=VmState.BUILDING, task_state=TaskState.SCHEDULING)
    job_uuid = post_job(house, "build_instance", instance_uuid=instance_uuid)
    meta = {"factory": {"name": "hullwright.flows.build.build_instance_v99", "args": [], "kwargs": {}}}
    with house.db.write() as conn:
        conn.execute(sa.insert(flows), [{"uuid": job_uuid, "name": "build_instance", "state": "RUNNING", "meta": meta}])
    return job_uuid


def attempt_unclosed(house: House) -> str:
    """An attempt that runs on after its build."""
    instance_uuid = build(house)
    with house.db.write() as conn:
        job = jobs.latest(conn, instance_uuid)
        assert job is not None
        conn.execute(sa.update(attempts).where(attempts.c.job_uuid == job.uuid).values(state=AttemptState.RUNNING, finished_at=None))
    return f"{job.uuid} 1"


def action_unclosed(house: House) -> str:
    """An action that outlived its job."""
    instance_uuid = build(house)
    here = instance_actions.c.instance_uuid == instance_uuid
    execute(house, sa.update(instance_actions).where(here).values(finished_at=None))
    with house.db.read() as conn:
        return str(conn.execute(sa.select(instance_actions.c.id).where(here)).scalar_one())


def built(house: House) -> str:
    """The job of a build that is done."""
    instance_uuid = build(house)
    with house.db.read() as conn:
        job = jobs.latest(conn, instance_uuid)
    assert job is not None
    return job.uuid


def job_owned(house: House) -> str:
    """A job that has ended and has an owner."""
    job_uuid = built(house)
    execute(house, sa.update(jobs_table).where(jobs_table.c.uuid == job_uuid).values(owner="somebody"))
    return job_uuid


def job_done_and_flow_reverted(house: House) -> str:
    """A job that is done, and whose flow is not."""
    job_uuid = built(house)
    execute(house, sa.update(flows).where(flows.c.uuid == job_uuid).values(state="REVERTED"))
    return job_uuid


def job_done_and_step_failed(house: House) -> str:
    """A job that is done, and one of whose steps failed."""
    job_uuid = built(house)
    execute(house, sa.update(atoms).where(atoms.c.flow_uuid == job_uuid, atoms.c.name == "spawn").values(state="FAILURE"))
    return job_uuid


def job_reverted_and_flow_done(house: House) -> str:
    """A job that counts as undone, and whose flow is done."""
    job_uuid = built(house)
    execute(house, sa.update(jobs_table).where(jobs_table.c.uuid == job_uuid).values(state=JobState.REVERTED))
    return job_uuid


def history_with_a_gap(house: House) -> str:
    """A job that lost an event."""
    job_uuid = built(house)
    execute(house, sa.delete(step_events).where(step_events.c.job_uuid == job_uuid, step_events.c.seq == 5))
    return job_uuid


def history_too_short(house: House) -> str:
    """A job that lost its last event."""
    job_uuid = built(house)
    last = sa.select(sa.func.max(step_events.c.seq)).where(step_events.c.job_uuid == job_uuid).scalar_subquery()
    execute(house, sa.delete(step_events).where(step_events.c.job_uuid == job_uuid, step_events.c.seq == last))
    return job_uuid


def history_of_an_old_owner(house: House) -> str:
    """A job into whose history an owner of an older fence wrote."""
    job_uuid = built(house)
    execute(house, sa.update(step_events).where(step_events.c.job_uuid == job_uuid, step_events.c.seq < 5).values(fence=7))
    return job_uuid


def history_out_of_order(house: House) -> str:
    """A job with a step that succeeded and was never begun."""
    job_uuid = built(house)
    here = sa.and_(step_events.c.job_uuid == job_uuid, step_events.c.step == "spawn", step_events.c.to_state == "RUNNING")
    execute(house, sa.update(step_events).where(here).values(step="another"))
    return job_uuid


def history_of_a_false_success(house: House) -> str:
    """A job that is done, and one of whose steps failed last."""
    job_uuid = built(house)
    here = sa.and_(step_events.c.job_uuid == job_uuid, step_events.c.step == "spawn", step_events.c.to_state == "SUCCESS")
    execute(house, sa.update(step_events).where(here).values(to_state="FAILURE"))
    return job_uuid


def conductor_stale(house: House) -> str:
    """A conductor that died long ago."""
    with house.db.write() as conn:
        conductors.enlist(conn, id="dead", hostname="elsewhere", pid=1, version="0", lease_seconds=-LONG_AGO)
    return "dead"


def guest_of_deleted(house: House) -> str:
    """The guest of a deleted instance, running."""
    instance_uuid = build(house)
    delete(house, instance_uuid)
    change(house, instance_uuid)
    put_guest(house, instance_uuid)
    return instance_uuid


def guest_misplaced(house: House) -> str:
    """The guest of an instance in ERROR."""
    instance_uuid = insert_instance(house)
    put_guest(house, instance_uuid)
    return instance_uuid


def guest_elsewhere(house: House) -> str:
    """A second guest of an instance, on another host."""
    instance_uuid = build(house)
    change(house, instance_uuid)
    house.add_host("h2")
    put_guest(house, instance_uuid, "h2")
    return instance_uuid


def guest_unknown(house: House) -> str:
    """A guest of ours of which the database knows nothing."""
    instance_uuid = str(uuid.uuid4())
    put_guest(house, instance_uuid)
    return instance_uuid


def guest_missing(house: House) -> str:
    """An instance whose guest somebody undefined."""
    instance_uuid = build(house)
    change(house, instance_uuid)
    fake(house).things.drop("guests", instance_uuid, "destroy")
    return instance_uuid


def power_off_behind_our_back(house: House) -> str:
    """An ACTIVE instance whose guest is off."""
    instance_uuid = build(house)
    change(house, instance_uuid)
    set_power(house, instance_uuid, PowerState.SHUTDOWN)
    return instance_uuid


def power_told_wrongly(house: House) -> str:
    """An instance that is told to be off, and runs."""
    instance_uuid = build(house)
    change(house, instance_uuid, power_state=PowerState.SHUTDOWN)
    return instance_uuid


def files_left(house: House) -> str:
    """The disks of a deleted instance."""
    instance_uuid = insert_instance(house)
    change(house, instance_uuid, vm_state=VmState.DELETED, deleted_at=now() - LONG_AGO)
    fake(house).things.put("disks", instance_uuid, {"name": "disk.config"}, None)
    return instance_uuid


def files_elsewhere(house: House) -> str:
    """Disks of an instance on another host than its own."""
    instance_uuid = build(house)
    change(house, instance_uuid)
    house.add_host("h2")
    fake(house, "h2").things.put("disks", instance_uuid, {"name": "disk"}, None)
    return instance_uuid


def files_unknown(house: House) -> str:
    """Disks of which the database knows nothing."""
    instance_uuid = str(uuid.uuid4())
    fake(house).things.put("disks", instance_uuid, {"name": "disk"}, None)
    return instance_uuid


def volume_file_of_a_cut_connect(house: House) -> str:
    """What a host made of a new volume and could not tell; the volume was made anew elsewhere."""
    device = house.request_volume(source_type="blank", size_gb=1)
    build(house, block_devices=(device,))
    house.add_host("h2")
    fake(house, "h2").things.put("volumes", device.volume_id, {"path": "x"}, "create_volume")
    return device.volume_id


def volume_file_of_a_free_volume(house: House) -> str:
    """The same, and nobody has used the volume since."""
    volume_id = new_volume(house, "available")
    fake(house).things.put("volumes", volume_id, {"path": "x"}, "create_volume")
    return volume_id


def volume_file_unknown(house: House) -> str:
    """Bytes of which the database knows nothing."""
    volume_id = str(uuid.uuid4())
    fake(house).things.put("volumes", volume_id, {"path": "x"}, "create_volume")
    return volume_id


def base_image_half(house: House) -> str:
    """A transfer whose conductor died."""
    image_id = str(uuid.uuid4())
    fake(house).things.put("parts", image_id, {"done": 4711}, None)
    return image_id


def network_entry_left(house: House) -> str:
    """An address that a host still gives to a port that is gone."""
    left = f"{new_network(house)} fa:16:3e:00:00:07"
    fake(house).things.put("entries", left, {}, None)
    return left


def base_image_damaged(house: House) -> str:
    """A base image that somebody wrote into."""
    image_id = house.add_image()
    delete(house, build(house, image_id=image_id))
    assert fake(house).things.change("images", image_id, {"damage": "its sha256 is another"}, None) is not False
    return image_id


def network_left(house: House) -> str:
    """A network of which only a host knows."""
    network_id = str(uuid.uuid4())
    fake(house).things.put("networks", network_id, {"name": "net"}, None)
    return network_id


MAKERS: dict[str, tuple[str, Callable[[House], str]]] = {
    maker.__name__: (kind, maker)
    for kind, makers in {
        "allocation_without_instance": [allocation_without_instance],
        "instance_without_allocation": [
            *(instance_without_allocation, instance_with_another_claim),
            *(instance_with_half_a_claim, instance_with_a_claim_elsewhere),
        ],
        "usage_miscounted": [usage_miscounted, builds_miscounted],
        "port_without_instance": [port_of_a_build, port_of_a_user, port_of_nobody],
        "port_misbound": [port_bound_elsewhere, port_bound_nowhere, port_free_and_bound],
        "ports_differ": [port_lost, port_of_another, port_without_address],
        "address_without_port": [address_without_port],
        "attachment_without_instance": [attachment_of_a_user, attachment_of_a_build],
        "attachment_misplaced": [attached_elsewhere, reserved_and_placed, attached_and_in_error],
        "attachments_differ": [attachment_lost, attachment_of_another],
        "instance_inconsistent": [active_nowhere, failed_somewhere, deleted_and_here, deleted_and_in_error],
        "volume_stuck": [volume_reserved, volume_attaching, volume_creating, volume_deleting, volume_available_and_attached],
        "instance_stranded": [instance_stranded_in_a_build, instance_stranded_in_a_delete, instance_stranded_at_the_power_button],
        "image_abandoned": [image_abandoned],
        "job_stuck": [job_stuck_build, job_stuck_delete, job_stuck_volume],
        "job_without_instance": [job_without_instance],
        "job_orphaned": [job_orphaned],
        "flow_unknown": [flow_unknown],
        "attempt_unclosed": [attempt_unclosed],
        "action_unclosed": [action_unclosed],
        "job_inconsistent": [job_owned, job_done_and_flow_reverted, job_done_and_step_failed, job_reverted_and_flow_done],
        "history_broken": [
            *(history_with_a_gap, history_too_short, history_of_an_old_owner),
            *(history_out_of_order, history_of_a_false_success),
        ],
        "conductor_stale": [conductor_stale],
        "guest_of_deleted": [guest_of_deleted],
        "guest_misplaced": [guest_misplaced],
        "guest_elsewhere": [guest_elsewhere],
        "guest_unknown": [guest_unknown],
        "guest_missing": [guest_missing],
        "power_state_wrong": [power_off_behind_our_back, power_told_wrongly],
        "files_left": [files_left],
        "files_elsewhere": [files_elsewhere],
        "files_unknown": [files_unknown],
        "volume_file_misplaced": [volume_file_of_a_cut_connect, volume_file_of_a_free_volume],
        "volume_file_unknown": [volume_file_unknown],
        "base_image_half": [base_image_half],
        "base_image_damaged": [base_image_damaged],
        "network_left": [network_left],
        "network_entry_left": [network_entry_left],
    }.items()
    for maker in makers
}


def dump(house: House) -> str:
    """Everything in the database and on the hosts, to be compared."""
    with house.db.read() as conn:
        rows = {table.name: [list(map(str, row)) for row in conn.execute(sa.select(table))] for table in metadata.sorted_tables}
        names = list(conn.execute(sa.select(hosts.c.name)).scalars())
    journals = {name: fake(house, name).things.lines() for name in names}
    return json.dumps([rows, journals], default=str, sort_keys=True)
