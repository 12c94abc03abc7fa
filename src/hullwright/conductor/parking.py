"""What the user of a server sees whose build was parked or got stuck: ERROR, and a fault that says where it stopped and who decides.

Host, claim, ports and volumes stay the instance's until an operator (`doctor --fix`) or a delete takes the build apart.
Not for: parking; see `runner.py`. Not for jobs that change a server which is built: it stays what it was.
"""

from __future__ import annotations

import contextlib

from sqlalchemy.engine import Connection
from taskflow import states as flow_states

from hullwright.objects.builds import Job
from hullwright.objects.errors import InstanceNotFound, UnexpectedTaskStateError
from hullwright.objects.instances import Fault
from hullwright.objects.states import TaskState, VmState
from hullwright.persistence import atoms, faults, instances, job_repairs, jobs
from hullwright.persistence.database import now

_BUILDING = (TaskState.SCHEDULING, TaskState.NETWORKING, TaskState.SPAWNING, None)
_HINT = (
    "The server can be deleted at any time. An operator finds the cause in the job and its host's logs, and has the build taken apart by "
    "`hullwright doctor --fix --kind job_stuck`, or gone on with by `hullwright job release` (docs/runbook.md)."
)


def tell(connection: Connection, job: Job, why: str, step: str | None = None) -> None:
    """Have the server of a build that came to rest undone by halves in ERROR, in the transaction that brings the job to rest.

    `why`: for operators, it may name hosts. A server that is built by now, or is being deleted, is left alone.
    """
    if job.kind != "build_instance" or job.instance_uuid is None:
        return
    try:
        instances.transition(
            connection,
            job.instance_uuid,
            expected_vm_state=(VmState.BUILDING,),
            expected_task_state=_BUILDING,
            vm_state=VmState.ERROR,
            task_state=None,
        )
    except (InstanceNotFound, UnexpectedTaskStateError):
        return
    host = instances.get_row(connection, job.instance_uuid)["host"]
    message = f"The build stopped{f' at step {step}' if step else ''} and could neither go on nor be undone; an operator must decide."
    details = f"{message} Job {job.uuid}{f' on host {host}' if host else ''}: {why} Hint: {_HINT}"
    faults.record(connection, Fault(job.instance_uuid, 500, message, details, host, step, _HINT, now()))


def release(connection: Connection, uuid: str) -> None:
    """Have conductors go on with a stuck job, and take back what its server's user was told: the operator's decision.

    Raises: JobNotFound; Conflict when it is not to be gone on with.
    """
    job_repairs.release(connection, uuid)
    job = jobs.get(connection, uuid)
    if job.kind != "build_instance" or job.instance_uuid is None:
        return
    flow = atoms.load_flow(connection, uuid)
    begun = {atom.name for atom in flow or () if atom.state not in (None, flow_states.PENDING)}
    is_placed = instances.get_row(connection, job.instance_uuid)["host"] is not None
    task_state = TaskState.SPAWNING if is_placed and "spawn" in begun else TaskState.NETWORKING if is_placed else TaskState.SCHEDULING
    told = {"expected_vm_state": (VmState.ERROR,), "expected_task_state": (None,)}
    with contextlib.suppress(UnexpectedTaskStateError):  # it was never told, or has changed since: its steps will say
        instances.transition(connection, job.instance_uuid, **told, vm_state=VmState.BUILDING, task_state=task_state)  # type: ignore[arg-type]
        faults.withdraw(connection, job.instance_uuid, since=job.created_at)
