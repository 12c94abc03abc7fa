"""Removes the records of what is long over: deleted instances with the work on them, work that was on no instance, and clients' old keys.

What is not over stays, however old: instances that something is still on record for (an allocation, a port, an attachment), or that open or
stuck work speaks of. The newest instance stays too, for the next one's number, by which its guest is named, is one more than the largest.
So does the one that changed last: by the largest number schedulers see what has changed since (`models/changes.py`).
Not for: living instances, counters and what is on hosts; see `conductor/reconcile` for those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import BadRequest
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence.database import Database, now
from hullwright.persistence.jobs import BOARD
from hullwright.persistence.models.groups import server_group_members
from hullwright.persistence.models.hosts import allocations
from hullwright.persistence.models.idempotency_keys import idempotency_keys
from hullwright.persistence.models.instances import instance_actions, instance_faults, instances
from hullwright.persistence.models.jobs import atoms, attempts, flows, jobs, step_events, step_progress
from hullwright.persistence.models.networks import ports
from hullwright.persistence.models.volumes import attachments

MIN_SECONDS = 86_400.0  # younger records may still be examined, or not yet be known to a scheduler
_AT_ONCE = 100  # instances or jobs in one transaction: others wait no longer than for a few thousand rows
_UNFINISHED = (*OPEN_JOB_STATES, JobState.STUCK)

_all = instances.alias()
_OF_A_JOB = (step_events.c.job_uuid, step_progress.c.job_uuid, attempts.c.job_uuid, atoms.c.flow_uuid, flows.c.uuid, jobs.c.uuid)
_OF_AN_INSTANCE = (
    instance_faults.c.instance_uuid,
    instance_actions.c.instance_uuid,
    server_group_members.c.instance_uuid,
    instances.c.uuid,
)
_HOLDS = (allocations.c.instance_uuid, attachments.c.instance_uuid, ports.c.device_id)


def purge(db: Database, before: float, *, keep_keys_seconds: float, is_dry: bool = False) -> Mapping[str, int]:
    """Remove what was over before that time (seconds since the epoch), in short transactions; answers how many rows of which table.

    `keep_keys_seconds`: how long clients' keys count at least. `is_dry`: only count.

    Raises: BadRequest for a time less than a day ago; DatabaseUnavailable.
    """
    if before > now() - MIN_SECONDS:
        raise BadRequest(reason="Only what was over a day ago can be removed.")
    removed = Counter[str]()
    after = (0.0, 0)
    while True:
        with db.read() if is_dry else db.write() as connection:
            rows = connection.execute(_DELETED, {"before": before, "at": after[0], "id": after[1]}).all()
            if not rows:
                break
            after = (rows[-1].deleted_at, rows[-1].id)
            spoken_of = _spoken_of(connection)
            uuids = [row.uuid for row in rows if row.uuid not in spoken_of]
            work = list(connection.scalars(sa.select(jobs.c.uuid).where(jobs.c.instance_uuid.in_(uuids))))
            _take(connection, _OF_A_JOB, work, removed, is_dry)
            _take(connection, _OF_AN_INSTANCE, uuids, removed, is_dry)
    ended = sa.and_(jobs.c.board == BOARD, jobs.c.instance_uuid.is_(None), jobs.c.state.not_in(_UNFINISHED), jobs.c.finished_at < before)
    _take_all(db, jobs.c.id, ended, jobs.c.uuid, _OF_A_JOB, removed, is_dry)
    keys = idempotency_keys.c
    outdated = keys.created_at < min(before, now() - keep_keys_seconds)
    _take_all(db, keys.id, outdated, keys.id, (keys.id,), removed, is_dry)
    return removed


_DELETED = (
    sa.select(instances.c.id, instances.c.uuid, instances.c.deleted_at)
    .where(
        instances.c.deleted_at < sa.bindparam("before", type_=sa.Double),
        sa.tuple_(instances.c.deleted_at, instances.c.id)
        > sa.tuple_(sa.bindparam("at", type_=sa.Double), sa.bindparam("id", type_=sa.BigInteger)),
        instances.c.id < sa.select(sa.func.max(_all.c.id)).scalar_subquery(),
        sa.or_(instances.c.changed == 0, instances.c.changed < sa.select(sa.func.max(_all.c.changed)).scalar_subquery()),
        ~sa.exists().where(jobs.c.instance_uuid == instances.c.uuid, jobs.c.state.in_(_UNFINISHED)),
        instances.c.host.is_(None),
        *(~sa.exists().where(column == instances.c.uuid) for column in _HOLDS),
    )
    .order_by(instances.c.deleted_at, instances.c.id)
    .limit(_AT_ONCE)
)


def _spoken_of(connection: Connection) -> set[str]:
    """Instances that unfinished work is about though it stands in nobody's queue: late cleanings."""
    query = sa.select(jobs.c.inputs).where(jobs.c.state.in_(_UNFINISHED), jobs.c.instance_uuid.is_(None))
    return {str(inputs["instance_uuid"]) for inputs in connection.scalars(query) if inputs.get("instance_uuid")}


def _take_all(
    db: Database,
    key: sa.Column[Any],
    condition: sa.ColumnElement[bool],
    named: sa.Column[Any],
    columns: Sequence[sa.Column[Any]],
    removed: Counter[str],
    is_dry: bool,
) -> None:
    """Take the rows that meet the condition, with what hangs on them, in the order of `key`."""
    after = 0
    while True:
        with db.read() if is_dry else db.write() as connection:
            rows = connection.execute(sa.select(key, named).where(condition, key > after).order_by(key).limit(_AT_ONCE)).all()
            if not rows:
                return
            after = rows[-1][0]
            _take(connection, columns, [row[1] for row in rows], removed, is_dry)


def _take(
    connection: Connection,
    columns: Sequence[sa.Column[Any]],
    values: Sequence[Any],
    removed: Counter[str],
    is_dry: bool,
) -> None:
    """Remove, or count, the rows of each column's table in which it has one of these values."""
    for column in columns:
        condition = column.in_(values)
        if is_dry:
            removed[column.table.name] += connection.execute(sa.select(sa.func.count()).where(condition)).scalar_one()
        else:
            removed[column.table.name] += connection.execute(sa.delete(column.table).where(condition)).rowcount
