"""Mends findings, one function per kind, each inside the transaction in which the finding was checked once more.

Work on a host is never done here: it is posted as a job (`clean_host`, `sweep_networks`, `delete_volume`, `delete_instance`), which
looks again before it acts and goes on until the host answers. A repair says in words what it did; `doctor` writes them down.
Not for: whether to mend; see `doctor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hullwright.conductor.reconcile import power
from hullwright.conductor.reconcile.findings import Finding
from hullwright.flows import catalog
from hullwright.objects.errors import InstanceNotFound, UnexpectedTaskStateError, VolumeInvalidState, VolumeNotFound
from hullwright.objects.instances import Fault
from hullwright.objects.states import AttemptState, PowerState, TaskState, VmState
from hullwright.persistence import actions, allocations, attempts, conductors, faults, images, instances, job_repairs, jobs, ports, volumes
from hullwright.persistence.database import now
from hullwright.persistence.models.networks import addresses


@dataclass(slots=True)
class Repair:
    """One run of repairs: whose it is, and the jobs that it has posted."""

    request_id: str
    posted: list[str] = field(default_factory=list)
    sweep: str | None = None  # the one job that takes networks off all hosts

    def post(self, conn: Connection, kind: str, **inputs: Any) -> str:
        """Post a job. Only a delete stands in its instance's queue: a silent host must not hold up other work."""
        is_delete = kind == "delete_instance"
        uuid = jobs.post(
            conn,
            kind=kind,
            instance_uuid=inputs["instance_uuid"] if is_delete else None,
            inputs=inputs,
            request_id=self.request_id,
            rank=jobs.RANK_DELETE if is_delete else jobs.RANK_DEFAULT,
        )
        self.posted.append(uuid)
        return uuid


Done = tuple[str, str | None]  # what was done in words, and the job that does the rest


# --- Records -------------------------------------------------------------------------------------------------------------


def _allocation_without_instance(run: Repair, conn: Connection, finding: Finding) -> Done:
    held = allocations.held_by(conn, finding.subject)
    allocations.release(conn, finding.subject)
    return f"gave back {dict(held.resources) if held else 'nothing'} of {finding.host}", None


def _instance_without_allocation(run: Repair, conn: Connection, finding: Finding) -> Done:
    resources = dict(finding.data["resources"])
    allocations.record(conn, instance_uuid=finding.subject, host_id=finding.data["host_id"], resources=resources)
    return f"recorded {resources} on {finding.host}", None


def _usage_miscounted(run: Repair, conn: Connection, finding: Finding) -> Done:
    used = allocations.recount(conn, finding.data["host_id"], finding.data["resource_class"])
    return f"{used} are counted as used", None


def _port_without_instance(run: Repair, conn: Connection, finding: Finding) -> Done:
    return ("deleted" if ports.give_up(conn, finding.subject) else "freed for its user"), None


def _port_misbound(run: Repair, conn: Connection, finding: Finding) -> Done:
    host = finding.data["host"]
    ports.bind(conn, [finding.subject], host)
    return f"it is bound to {host or 'no host'}", None


def _address_without_port(run: Repair, conn: Connection, finding: Finding) -> Done:
    here = sa.and_(addresses.c.subnet_id == finding.data["subnet_id"], addresses.c.address == finding.data["address"])
    conn.execute(sa.delete(addresses).where(here))
    return "freed", None


def _attachment_without_instance(run: Repair, conn: Connection, finding: Finding) -> Done:
    doomed = volumes.release(conn, str(finding.instance_uuid), undo=bool(finding.data["is_undo"]))
    jobs_posted = [run.post(conn, "delete_volume", volume_id=volume.id) for volume in doomed]
    if not jobs_posted:
        return "freed its volumes", None
    return f"freed its volumes; {len(doomed)} that were to go with it are deleted", jobs_posted[-1]


def _volume_stuck(run: Repair, conn: Connection, finding: Finding) -> Done:
    to = str(finding.data["to"])
    if to == "deleting":
        volumes.set_status(conn, finding.subject, to)
        return "it is deleted", run.post(conn, "delete_volume", volume_id=finding.subject)
    volumes.swap_status(conn, finding.subject, [str(finding.data["from"])], to)
    return f"it is {to} now", None


def _image_abandoned(run: Repair, conn: Connection, finding: Finding) -> Done:
    images.end_upload(conn, finding.subject, float(finding.data["began_at"]), status="queued", updated_at=now())
    return "it waits for an upload again", None


def _instance_stranded(run: Repair, conn: Connection, finding: Finding) -> Done:
    return bring_to_rest(run, conn, finding.subject, "The work on it was lost.")


def bring_to_rest(run: Repair, conn: Connection, uuid: str, why: str) -> Done:
    """Have an instance that nobody works on in a stable state: a delete goes on, a build is undone, else only its task is cleared.

    A build that was parked is in ERROR already and still has all that was made for it.
    """
    row = instances.get_row(conn, uuid, for_update=True)
    if row["task_state"] == TaskState.DELETING:
        job = run.post(conn, "delete_instance", instance_uuid=uuid)
        actions.hand_over(conn, uuid, "delete", job)
        return "its delete is begun anew", job
    actions.close_open(conn, uuid)
    if not _is_unbuilt(row):
        instances.transition(conn, uuid, expected_task_state=(_task_state(row["task_state"]),), task_state=None)
        return f"it is {row['vm_state']} again, as it was before {row['task_state']}", None
    cleaning = None
    if row["host"] is not None:
        cleaning = run.post(conn, "clean_host", instance_uuid=uuid, host=row["host"])
    for volume in volumes.release(conn, uuid, undo=True):
        run.post(conn, "delete_volume", volume_id=volume.id)
    ports.release(conn, uuid)
    allocations.release(conn, uuid)
    instances.transition(
        conn,
        uuid,
        expected_task_state=(_task_state(row["task_state"]),),
        vm_state=VmState.ERROR,
        task_state=None,
        power_state=PowerState.NOSTATE,
        host=None,
        node=None,
    )
    hint = "Delete the server and ask for another."
    faults.record(conn, Fault(uuid, 500, why, why, row["host"], None, hint, now()))
    return "it is in ERROR, and what was built of it is taken apart", cleaning


def _is_unbuilt(row: RowMapping) -> bool:
    return row["vm_state"] == VmState.BUILDING or (row["vm_state"] == VmState.ERROR and row["launched_at"] is None)


def _task_state(text: str | None) -> TaskState | None:
    return None if text is None else TaskState(text)


# --- Work ----------------------------------------------------------------------------------------------------------------


def _give_up(run: Repair, conn: Connection, finding: Finding) -> Done:
    """End a job that can neither go on nor be undone. What must end is begun anew; the rest is undone by other means."""
    kind = catalog.KINDS.get(str(finding.data["kind"]))
    if kind is not None and kind.goes_on:
        job_repairs.begin_anew(conn, finding.subject)
        run.posted.append(finding.subject)
        return "it is begun anew", finding.subject
    places = sorted({made.host for made in attempts.list_for(conn, finding.subject) if made.host is not None})
    volume_id = job_repairs.give_up(conn, finding.subject, f"Given up: {finding.evidence}")
    actions.finish(conn, finding.subject, failed=True)
    if volume_id is not None:
        return f"given up; its volume is {_fail_unmade(conn, volume_id)}", None
    if finding.instance_uuid is None:
        return "given up", None
    try:
        row = instances.get_row(conn, finding.instance_uuid, for_update=True)
    except InstanceNotFound:
        return "given up; its instance is gone", None
    if _is_unbuilt(row) or row["task_state"] is not None:
        text, job = bring_to_rest(run, conn, finding.instance_uuid, f"The build could neither go on nor be undone: {finding.evidence}")
    else:
        text, job = f"its instance is {row['vm_state']}", None
    for host in places if finding.data["kind"] == "build_instance" else ():
        if host != row["host"]:  # an attempt there may not have been undone
            job = run.post(conn, "clean_host", instance_uuid=finding.instance_uuid, host=host)
    return f"given up; {text}", job


def _fail_unmade(conn: Connection, volume_id: str) -> str:
    """Give a volume that was never made status error; answers how it is. One that was made may be in use by now."""
    with contextlib.suppress(VolumeInvalidState, VolumeNotFound):
        volumes.swap_status(conn, volume_id, ["creating"], "error")
    try:
        return volumes.get(conn, volume_id).status
    except VolumeNotFound:
        return "deleted"


def _job_without_instance(run: Repair, conn: Connection, finding: Finding) -> Done:
    ended = job_repairs.cancel(conn, finding.subject)
    if ended:
        actions.finish(conn, finding.subject, failed=True)
    return ("cancelled" if ended else "its conductor is asked to stop"), None


def _job_orphaned(run: Repair, conn: Connection, finding: Finding) -> Done:
    job_repairs.take_from(conn, finding.subject, finding.mark)
    run.posted.append(finding.subject)
    return "queued again", None


def _attempt_unclosed(run: Repair, conn: Connection, finding: Finding) -> Done:
    job_uuid, number = finding.data["job_uuid"], finding.data["number"]
    if finding.data["succeeded"]:
        attempts.end(conn, job_uuid, number, AttemptState.SUCCEEDED)
        return "closed as succeeded", None
    attempts.end(conn, job_uuid, number, AttemptState.FAILED, error="Error", reason="its job ended without closing it")
    return "closed as failed", None


def _action_unclosed(run: Repair, conn: Connection, finding: Finding) -> Done:
    failed = bool(finding.data["failed"])
    actions.finish(conn, finding.data["job_uuid"], failed=failed)
    return f"closed as {'failed' if failed else 'done'}", None


def _conductor_stale(run: Repair, conn: Connection, finding: Finding) -> Done:
    is_gone = conductors.retire_lapsed(conn, finding.subject)
    return ("forgotten" if is_gone else "it has come back to life"), None


# --- Hosts ---------------------------------------------------------------------------------------------------------------


def _clean_host(run: Repair, conn: Connection, finding: Finding) -> Done:
    return "the host is cleaned of it", run.post(conn, "clean_host", instance_uuid=finding.subject, host=finding.host)


def _clean_volume(run: Repair, conn: Connection, finding: Finding) -> Done:
    return "the host is cleaned of it", run.post(conn, "clean_host", volume_id=finding.subject, host=finding.host)


def _guest_missing(run: Repair, conn: Connection, finding: Finding) -> Done:
    instances.transition(
        conn,
        finding.subject,
        expected_task_state=(None,),
        expected_vm_state=(VmState(finding.mark),),
        vm_state=VmState.ERROR,
        power_state=PowerState.NOSTATE,
    )
    message = "The guest is not on its host any more."
    hint = "Guests are not made anew: delete the server, or bring the guest back on its host and reset its state."
    faults.record(conn, Fault(finding.subject, 500, message, f"{message} Host: {finding.host}.", finding.host, None, hint, now()))
    return "the instance is in ERROR and says why", None


def _power_state_wrong(run: Repair, conn: Connection, finding: Finding) -> Done:
    seen = PowerState[str(finding.data["seen"])]
    updated_at = float(finding.data["updated_at"])
    change = power.bring_in_line(conn, str(finding.host), finding.subject, seen, updated_at=updated_at, request_id=run.request_id)
    if change is None or change.job_uuid is None:
        return f"it is told to be {seen.name}", None
    run.posted.append(change.job_uuid)
    return "it is stopped", change.job_uuid


def _network_left(run: Repair, conn: Connection, finding: Finding) -> Done:
    run.sweep = run.sweep or run.post(conn, "sweep_networks")
    return "hosts are swept", run.sweep


REPAIRS: dict[str, Callable[[Repair, Connection, Finding], Done]] = {
    "allocation_without_instance": _allocation_without_instance,
    "instance_without_allocation": _instance_without_allocation,
    "usage_miscounted": _usage_miscounted,
    "port_without_instance": _port_without_instance,
    "port_misbound": _port_misbound,
    "address_without_port": _address_without_port,
    "attachment_without_instance": _attachment_without_instance,
    "volume_stuck": _volume_stuck,
    "instance_stranded": _instance_stranded,
    "image_abandoned": _image_abandoned,
    "job_stuck": _give_up,
    "flow_unknown": _give_up,
    "job_without_instance": _job_without_instance,
    "job_orphaned": _job_orphaned,
    "attempt_unclosed": _attempt_unclosed,
    "action_unclosed": _action_unclosed,
    "conductor_stale": _conductor_stale,
    "guest_of_deleted": _clean_host,
    "guest_misplaced": _clean_host,
    "guest_elsewhere": _clean_host,
    "guest_unknown": _clean_host,
    "guest_missing": _guest_missing,
    "power_state_wrong": _power_state_wrong,
    "files_left": _clean_host,
    "files_elsewhere": _clean_host,
    "files_unknown": _clean_host,
    "volume_file_misplaced": _clean_volume,
    "volume_file_unknown": _clean_volume,
    "network_left": _network_left,
    "network_entry_left": _network_left,
}
# What a repair may find when somebody else was quicker: then there is nothing to mend.
OUTRUN = (InstanceNotFound, UnexpectedTaskStateError, VolumeInvalidState)
