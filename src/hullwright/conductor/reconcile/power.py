"""Power states: what the record says is brought in line with what hypervisors say, as operators know it from Nova.

The power state is always copied. A guest that went off by itself is stopped on record too; one that runs though its user stopped it is
stopped; whatever else differs is only shown. No guest is ever started or made anew here. An instance with a task or an open job is left
alone: that job knows better.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from hullwright.objects.states import OPEN_JOB_STATES, PowerState, TaskState, VmState
from hullwright.persistence import actions, instances, jobs
from hullwright.persistence.database import Database
from hullwright.persistence.models.instances import instances as instances_table
from hullwright.persistence.models.jobs import jobs as jobs_table

LOG = logging.getLogger(__name__)
USER = "reconcile"

_OFF = (PowerState.SHUTDOWN, PowerState.CRASHED)


class Remedy(StrEnum):
    """What is done about a power state that does not fit."""

    NONE = "none"
    STOP = "stop"  # as its user would
    FORCE_STOP = "force_stop"  # the plug is pulled


def remedy(vm_state: str, power: PowerState | None) -> Remedy:
    """What to do about a guest in this power state; None: the host has no such guest, which is a finding and not a remedy's business."""
    match vm_state:
        case VmState.ACTIVE if power in (*_OFF, PowerState.SUSPENDED):
            return Remedy.STOP
        case VmState.STOPPED if power not in (None, PowerState.NOSTATE, *_OFF):
            return Remedy.FORCE_STOP
        case VmState.PAUSED if power in _OFF:
            return Remedy.FORCE_STOP
    return Remedy.NONE


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed about one instance."""

    uuid: str
    vm_state: str
    before: int
    after: int
    remedy: Remedy
    job_uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What was on record of an instance before its host was asked."""

    vm_state: str
    power_state: int
    updated_at: float  # stands for the row as it was; compared with nothing but itself, as clocks of conductors differ


def known(conn: sa.Connection, *where: sa.ColumnElement[bool]) -> dict[str, dict[str, Known]]:
    """Host -> uuid -> the instances without a task that are there. To be read before their hosts are asked; `where`: only these."""
    its = instances_table.c
    columns = (its.host, its.uuid, its.vm_state, its.power_state, its.updated_at)
    at_rest = (its.host.is_not(None), its.deleted_at.is_(None), its.task_state.is_(None))
    found: dict[str, dict[str, Known]] = {}
    for row in conn.execute(sa.select(*columns).where(*at_rest, *where)):
        found.setdefault(row.host, {})[row.uuid] = Known(row.vm_state, row.power_state, row.updated_at)
    return found


def sync(db: Database, host: str, before: Mapping[str, Known], powers: Mapping[str, PowerState | None], *, request_id: str) -> list[Change]:
    """Bring the instances of a host in line. `before`: those that were `known` there before the host was asked; `powers`: what it told of
    its guests then, absent or None: no such guest.

    Raises: DatabaseUnavailable.
    """
    changes = []
    for uuid, row in before.items():
        power = powers.get(uuid)
        if row.power_state != _seen(power) or remedy(row.vm_state, power) is not Remedy.NONE:
            change = _apply(db, host, uuid, power, row.updated_at, request_id)
            if change is not None:
                changes.append(change)
    return changes


def _apply(db: Database, host: str, uuid: str, power: PowerState | None, updated_at: float, request_id: str) -> Change | None:
    """One transaction, in which nothing has happened to the instance since before its host was asked; else None."""
    with db.write() as conn:
        change = bring_in_line(conn, host, uuid, power, updated_at=updated_at, request_id=request_id)
        if change is not None and change.job_uuid is not None:
            why = f"power_state: the guest is {_seen(power).name}, the instance {change.vm_state}: {change.remedy.replace('_', ' ')}"
            row = instances.get_row(conn, uuid)
            asked = {"instance_uuid": uuid, "request_id": request_id, "project_id": row["project_id"], "user_id": USER}
            actions.start_rows(conn, [actions.new_row(**asked, action="reconcile", job_uuid=None) | {"message": why}])
    if change is not None:
        LOG.warning("Instance %s on %s is %s, its guest is %s: %s", uuid, host, change.vm_state, _seen(power).name, change.remedy)
    return change


def bring_in_line(
    conn: sa.Connection, host: str, uuid: str, power: PowerState | None, *, updated_at: float, request_id: str
) -> Change | None:
    """In a write transaction: copy what was seen, and post the stop that it calls for; None when nothing is to be done.

    An instance whose row is not as it was before its host was asked (`updated_at`), or that has work, is left alone.
    """
    seen = _seen(power)
    row = conn.execute(sa.select(instances_table).where(instances_table.c.uuid == uuid).with_for_update()).first()
    is_quiet = row is not None and (row.deleted_at, row.task_state, row.host) == (None, None, host) and row.updated_at == updated_at
    if row is None or not is_quiet or _has_work(conn, uuid):
        return None
    needed = remedy(row.vm_state, power)
    if needed is Remedy.NONE and row.power_state == seen:
        return None
    changes: dict[str, Any] = {"power_state": seen}
    job_uuid = None
    if needed is not Remedy.NONE:
        changes["task_state"] = TaskState.POWERING_OFF
        inputs = {"instance_uuid": uuid, "force": needed is Remedy.FORCE_STOP}
        job_uuid = jobs.post(conn, kind="stop_instance", instance_uuid=uuid, inputs=inputs, request_id=request_id)
        asked = {"instance_uuid": uuid, "request_id": request_id, "project_id": row.project_id, "user_id": USER}
        actions.start(conn, **asked, action="stop", job_uuid=job_uuid)
    instances.transition(conn, uuid, expected_task_state=(None,), **changes)
    return Change(uuid, row.vm_state, row.power_state, int(seen), needed, job_uuid)


def _seen(power: PowerState | None) -> PowerState:
    return PowerState.NOSTATE if power is None else power


def _has_work(conn: sa.Connection, uuid: str) -> bool:
    query = sa.select(sa.literal(1)).where(jobs_table.c.instance_uuid == uuid, jobs_table.c.state.in_(OPEN_JOB_STATES))
    return conn.execute(query.limit(1)).first() is not None
