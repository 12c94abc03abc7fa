"""Checks of work: jobs, their leases, their flows, the attempts of builds, conductors."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from hullwright.conductor.reconcile.findings import Finding
from hullwright.conductor.reconcile.view import IS_OPEN, View
from hullwright.flows import catalog
from hullwright.objects.errors import JobUnloadable
from hullwright.objects.states import OPEN_JOB_STATES, AttemptState, JobState
from hullwright.persistence.models.jobs import attempts, conductors, flows, jobs

# These find their instance gone when they were cut off after their last write, and end by themselves.
_OUTLIVE_THEIR_INSTANCE = ("delete_instance",)


def job_stuck(view: View) -> Iterator[Finding]:
    """No job is stuck."""
    for job in view.stuck_jobs:
        if view.only in (None, job.uuid):
            evidence = f"{job.kind}: {job.error or 'no reason is on record'}"
            data = {"kind": job.kind}
            yield Finding("job_stuck", job.uuid, evidence, instance_uuid=job.instance_uuid, since=job.created_at, data=data)


def job_without_instance(view: View) -> Iterator[Finding]:
    """An open job's instance is there."""
    known = view.known_instances(job.instance_uuid for job in view.open_jobs if job.instance_uuid)
    for job in view.open_jobs:
        if job.instance_uuid is None or job.kind in _OUTLIVE_THEIR_INSTANCE or not _is_of_a_living_one(view, job.uuid):
            continue
        row = known.get(job.instance_uuid)
        if row is None or row.deleted_at is not None:
            evidence = f"{job.kind} is {job.state}: " + ("there is no such instance" if row is None else "the instance is deleted")
            data = {"kind": job.kind}
            yield Finding("job_without_instance", job.uuid, evidence, instance_uuid=job.instance_uuid, since=job.created_at, data=data)


def _is_of_a_living_one(view: View, job_uuid: str) -> bool:
    """Whether a job is in its instance's queue. Work about what is left of one, and questions, are not."""
    if view.only not in (None, job_uuid):
        return False
    query = sa.select(jobs.c.instance_uuid).where(jobs.c.uuid == job_uuid)
    return view.conn.execute(query).scalar() is not None


def job_orphaned(view: View) -> Iterator[Finding]:
    """Whoever drives a job is a living conductor."""
    for job in view.open_jobs:
        if job.state == JobState.RUNNING and job.owner not in view.living_conductors and view.only in (None, job.uuid):
            evidence = f"{job.kind} is leased to conductor {job.owner}, which is gone"
            yield Finding("job_orphaned", job.uuid, evidence, instance_uuid=job.instance_uuid, since=job.created_at, mark=str(job.owner))


def flow_unknown(view: View) -> Iterator[Finding]:
    """What was begun can be gone on with by this version. A job that a living conductor drives is known to that one."""
    query = (
        sa.select(jobs.c.uuid, jobs.c.kind, jobs.c.instance_uuid, jobs.c.owner, jobs.c.created_at, flows.c.meta)
        .join(flows, flows.c.uuid == jobs.c.uuid)
        .where(IS_OPEN, view.about(jobs.c.uuid))
    )
    for row in view.conn.execute(query):
        if row.owner in view.living_conductors:
            continue
        path = str(((row.meta or {}).get("factory") or {}).get("name"))
        try:
            catalog.find(path, row.uuid)
        except JobUnloadable as error:
            data = {"kind": row.kind}
            yield Finding("flow_unknown", row.uuid, f"{row.kind}: {error.text}", None, row.instance_uuid, row.created_at, data=data)


def attempt_unclosed(view: View) -> Iterator[Finding]:
    """The attempts of a build that has ended have ended."""
    resting = (*OPEN_JOB_STATES, JobState.STUCK)
    query = (
        sa.select(attempts.c.job_uuid, attempts.c.number, attempts.c.instance_uuid, attempts.c.host, attempts.c.started_at, jobs.c.state)
        .outerjoin(jobs, jobs.c.uuid == attempts.c.job_uuid)
        .where(
            attempts.c.state == AttemptState.RUNNING,
            sa.or_(jobs.c.state.is_(None), jobs.c.state.not_in(resting)),
            view.about(attempts.c.job_uuid + " " + sa.cast(attempts.c.number, sa.String)),
        )
    )
    for row in (row for theirs in view.of_ended(attempts.c.job_uuid) for row in view.conn.execute(query.where(theirs))):
        evidence = f"attempt {row.number} runs, its job is {row.state or 'gone'}"
        data = {"job_uuid": row.job_uuid, "number": row.number, "succeeded": row.state == JobState.DONE}
        subject = f"{row.job_uuid} {row.number}"
        yield Finding("attempt_unclosed", subject, evidence, row.host, row.instance_uuid, row.started_at, data=data)


def conductor_stale(view: View) -> Iterator[Finding]:
    """A conductor that is gone is forgotten."""
    query = sa.select(conductors).where(conductors.c.id.not_in(view.living_conductors), view.about(conductors.c.id))
    for row in view.conn.execute(query):
        evidence = f"process {row.pid} of {row.hostname} has not renewed its lease"
        yield Finding("conductor_stale", row.id, evidence, since=row.expires_at, mark=str(row.expires_at))
