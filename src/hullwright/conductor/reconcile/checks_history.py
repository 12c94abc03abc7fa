"""Checks of what has ended: that a job's end is its flow's, that its action is closed, that its history tells each step in order.

Only jobs that ended lately are looked at (`View.ended`): a round must not cost more the longer an installation has run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from hullwright.conductor.reconcile.findings import Finding
from hullwright.conductor.reconcile.view import View, in_batches
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence.models.instances import instance_actions
from hullwright.persistence.models.jobs import atoms, flows, jobs, step_events

# What a step must have come from to arrive at a state, in its own last event. RESUMED: a conductor took it up again after a crash.
_BEFORE = {
    "SUCCESS": {"RUNNING", "RESUMED"},
    "FAILURE": {"RUNNING", "RESUMED"},
    "REVERTED": {"REVERTING", "RESUMED"},
    "REVERT_FAILURE": {"REVERTING", "RESUMED"},
}
# How a job ended -> its flow's state, and those that its steps may rest in. A job that was cancelled has no flow.
_ENDS: dict[str, tuple[str, set[str | None]]] = {
    JobState.DONE: ("SUCCESS", {"SUCCESS"}),
    JobState.REVERTED: ("REVERTED", {"REVERTED", "PENDING", None}),
}
_FLOW = ""  # the name of the flow among the steps


def _finding(kind: str, job: Any, evidence: str) -> Finding:
    return Finding(kind, job.uuid, f"{job.kind} is {job.state}: {evidence}", None, job.instance_uuid, job.finished_at)


def history_broken(view: View) -> Iterator[Finding]:
    """A job's events are numbered without a gap, by owners of growing fences, and no step ends that did not begin."""
    columns = (step_events.c.job_uuid, step_events.c.seq, step_events.c.step, step_events.c.to_state, step_events.c.fence)
    for batch in in_batches(view.ended):
        query = sa.select(*columns).where(step_events.c.job_uuid.in_([job.uuid for job in batch]))
        told: dict[str, list[Any]] = defaultdict(list)
        for event in view.conn.execute(query.order_by(step_events.c.job_uuid, step_events.c.seq)):
            told[event.job_uuid].append(event)
        for job in batch:
            complaint = _complaint(job, told[job.uuid])
            if complaint:
                yield _finding("history_broken", job, complaint)


def _complaint(job: Any, events: list[Any]) -> str | None:
    """What is wrong with a job's history, or None."""
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        return f"a gap among its {len(events)} events"
    if len(events) != job.seq:
        return f"it has {len(events)} events and counts {job.seq}"
    last: dict[str, str] = {}
    fence = 0
    for event in events:
        if event.fence < fence:
            return f"event {event.seq} is of fence {event.fence}, after one of fence {fence}: an old owner wrote"
        fence = event.fence
        if event.step != _FLOW and event.to_state in _BEFORE and last.get(event.step) not in _BEFORE[event.to_state]:
            return f"event {event.seq}: {event.step} went from {last.get(event.step, 'nothing')} to {event.to_state}"
        last[event.step] = event.to_state
    if job.state == JobState.DONE:
        unfinished = sorted(step or "the flow" for step, state in last.items() if state != "SUCCESS")
        if unfinished:
            return f"{', '.join(unfinished)} did not succeed"
    return None


def job_inconsistent(view: View) -> Iterator[Finding]:
    """A job that has ended has no owner, and ended as its flow did; one that is stuck says why."""
    columns = (jobs.c.uuid, jobs.c.kind, jobs.c.state, jobs.c.instance_uuid, jobs.c.owner, jobs.c.finished_at)
    # By the index of owners: those who have one are few.
    owned = sa.select(*columns).where(jobs.c.owner > "", jobs.c.state.not_in(OPEN_JOB_STATES), view.about(jobs.c.uuid))
    wrong = {job.uuid: _finding("job_inconsistent", job, f"conductor {job.owner} still owns it") for job in view.conn.execute(owned)}
    for batch in in_batches([job for job in view.ended if job.uuid not in wrong]):
        by_uuid = {job.uuid: job for job in batch}
        ends = dict(view.conn.execute(sa.select(flows.c.uuid, flows.c.state).where(flows.c.uuid.in_(by_uuid))).tuples().all())
        rests: dict[str, set[str | None]] = defaultdict(set)
        theirs = sa.select(atoms.c.flow_uuid, atoms.c.state).where(atoms.c.flow_uuid.in_(ends)).distinct()
        for flow_uuid, state in view.conn.execute(theirs):
            rests[flow_uuid].add(state)
        for uuid, job in by_uuid.items():
            complaint = _disagreement(job, uuid in ends, ends.get(uuid), rests[uuid])
            if complaint:
                wrong[uuid] = _finding("job_inconsistent", job, complaint)
    yield from wrong.values()


def _disagreement(job: Any, has_flow: bool, flow_state: str | None, step_states: set[str | None]) -> str | None:
    if job.state == JobState.STUCK:
        return None if job.error else "it does not say why"
    if not has_flow:
        return None  # a question, a round, or given up by an operator
    if job.state not in _ENDS:
        return f"it has a flow, which is {flow_state}"
    wanted, allowed = _ENDS[job.state]
    if flow_state != wanted:
        return f"its flow is {flow_state}"
    odd = sorted(str(state) for state in step_states - allowed)
    return f"its flow has steps that are {', '.join(odd)}" if odd else None


def action_unclosed(view: View) -> Iterator[Finding]:
    """The action of a job that has ended has ended; of one that is stuck it stays open."""
    columns = (instance_actions.c.id, instance_actions.c.action, instance_actions.c.instance_uuid, instance_actions.c.started_at)
    joined = sa.select(*columns, jobs.c.uuid.label("job_uuid"), jobs.c.state).join(jobs, jobs.c.uuid == instance_actions.c.job_uuid)
    is_open = sa.and_(instance_actions.c.finished_at.is_(None), jobs.c.state.not_in((*OPEN_JOB_STATES, JobState.STUCK)))
    about = view.about(sa.cast(instance_actions.c.id, sa.String))
    for theirs in view.of_ended(instance_actions.c.job_uuid):
        for row in view.conn.execute(joined.where(is_open, theirs, about)):
            evidence = f"{row.action} is open, its job {row.job_uuid} is {row.state}"
            data = {"job_uuid": row.job_uuid, "failed": row.state != JobState.DONE}
            yield Finding("action_unclosed", str(row.id), evidence, None, row.instance_uuid, row.started_at, data=data)
