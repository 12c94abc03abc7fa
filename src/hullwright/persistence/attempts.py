"""Attempts: one row per pass of a build's retry loop: where it went, why there, how it ended. Never rewritten by a later attempt."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.builds import Attempt
from hullwright.objects.placement import PlacementReport
from hullwright.objects.states import AttemptState
from hullwright.persistence.database import now
from hullwright.persistence.inserts import upsert
from hullwright.persistence.models.jobs import attempts

_KEYS = ["job_uuid", "number"]


def begin(connection: Connection, *, job_uuid: str, number: int, instance_uuid: str, **fields: Any) -> None:
    """Record that an attempt chose its hosts; choosing again after a crash replaces the choice."""
    row = {
        "job_uuid": job_uuid,
        "number": number,
        "instance_uuid": instance_uuid,
        "state": AttemptState.RUNNING,
        "host": None,
        "alternates": [],
        "report": {},
        "started_at": now(),
    } | fields
    columns = [name for name in row if name not in (*_KEYS, "started_at")]
    upsert(connection, attempts, row, keys=_KEYS, replace=columns)


def update(connection: Connection, job_uuid: str, number: int, **changes: Any) -> None:
    """Change an attempt that is still running; one that has ended stays as it is."""
    connection.execute(_update_running(tuple(changes)), {"its_job": job_uuid, "its_number": number} | changes)


@cache
def _update_running(columns: tuple[str, ...]) -> sa.Update:
    """The statement for these columns, built once."""
    this_one = (attempts.c.job_uuid == sa.bindparam("its_job"), attempts.c.number == sa.bindparam("its_number"))
    running = sa.update(attempts).where(*this_one, attempts.c.state == AttemptState.RUNNING)
    return running.values({name: sa.bindparam(name) for name in columns})


def end(connection: Connection, job_uuid: str, number: int, state: AttemptState, **changes: Any) -> None:
    """Record how an attempt ended: state, and for a failure step, error (class name) and reason."""
    update(connection, job_uuid, number, state=state, finished_at=now(), **changes)


def get_report(connection: Connection, job_uuid: str, number: int) -> PlacementReport:
    """Why an attempt that has chosen its hosts chose those."""
    query = sa.select(attempts.c.report).where(attempts.c.job_uuid == job_uuid, attempts.c.number == number)
    return PlacementReport.from_dict(connection.execute(query).scalar_one())


def list_for(connection: Connection, job_uuid: str) -> list[Attempt]:
    """A build's attempts in order."""
    rows = connection.execute(sa.select(attempts).where(attempts.c.job_uuid == job_uuid).order_by(attempts.c.number))
    return [Attempt.from_dict(dict(row)) for row in rows.mappings()]


def tried(connection: Connection, job_uuid: str, before: int | None = None) -> dict[str, str]:
    """Host -> reason, for the hosts that attempts went to, of those earlier than number `before`.

    The retry loop asks here and never in TaskFlow's own history, which does not survive a reload whole.
    """
    query = sa.select(attempts.c.host, attempts.c.reason).where(attempts.c.job_uuid == job_uuid, attempts.c.host.is_not(None))
    if before is not None:
        query = query.where(attempts.c.number < before)
    return {row.host: row.reason or "interrupted" for row in connection.execute(query.order_by(attempts.c.number))}
